"""What the gate's desk is asked and answers. The desk decides who may start; it may be in another process.

Times are Unix or monotonic seconds of the desk's own; durations are seconds; tokens are LLM tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from .types import Limits

Rank = Literal["interactive", "batch"]


class Subject(Struct, frozen=True, gc=False):
    """Something that is limited, and how; its name is of one of the functions below."""

    name: str
    limits: Limits


def of_key(key_id: str) -> str:
    """The name of a key's limits."""
    return f"key:{key_id}"


def of_owner(owner: str) -> str:
    """The name of an owner's limits."""
    return f"owner:{owner}"


def of_model(model: str, owner: str | None = None) -> str:
    """The name of a model's limits, of all its callers or of an owner."""
    return f"model:{model}" if owner is None else f"model:{model} owner:{owner}"


class Wish(Struct, frozen=True, gc=False):
    """A call that wants to start: all that the desk must know of it."""

    call_id: str  # the request id
    key_id: str
    owner: str
    weight: float
    model: str  # public name
    rank: Rank
    prompt_tokens: int  # an estimate
    completion_tokens: int  # reserved: what the caller allows, or an estimate
    texts: int
    patience_s: float
    subjects: tuple[Subject, ...]  # those with limits


class Allowance(Struct, frozen=True, gc=False):
    """One limit as its holder sees it: `unit` is that of the field in `Limits`."""

    subject: str
    limit: str  # the field of `Limits`
    amount: int
    remaining: int
    reset_s: float  # until all of it is there again


class Place(Struct, frozen=True, gc=False):
    """Where a call stands in its queue: 1 is next, 0 has started. `eta_s` is how long it will still wait."""

    call_id: str
    model: str
    position: int
    eta_s: float
    waited_s: float
    ran_s: float = 0.0  # since it started
    came_at: int = 0  # where it stood when it came
    expected_s: float = 0.0  # how long it was expected to wait then
    allowances: tuple[Allowance, ...] = ()  # of its limits; told to who waits, not in lists


class Load(Struct, frozen=True):
    """How busy a model is: calls that have a slot, and calls that wait for one."""

    model: str
    slots: int
    running: int
    waiting: int


class Grant(Struct, frozen=True, gc=False):
    """The call may start: it holds a slot of that deployment until it leaves."""

    deployment: int
    position: int  # where it stood when it came; 0: it did not wait
    waited_s: float
    allowances: tuple[Allowance, ...] = ()
    expected_s: float = 0.0  # how long it was expected to wait when it came


class Desk(Protocol):
    """Limits, slots and the fair queue.

    A refusal is raised: `RateLimited`, `QuotaExceeded`, `Busy`, `Draining`.
    """

    async def enter(self, wish: Wish, on_place: Callable[[Place], None] | None) -> Grant:
        """Wait until the call may start. Cancelled, it leaves at once.

        `on_place` hears where it stands: first after about a second, when it is clear that it will not be
        refused at once, then every second or two. None: nobody wants to hear it.
        """

    def charge(self, call_id: str, completion_tokens: int) -> None:
        """That many LLM tokens more have been generated for it. Never waits."""

    def move(self, call_id: str, deployment: int) -> None:
        """It goes on at another deployment of its model, and takes its slot there. Never waits."""

    def leave(self, call_id: str, tokens: int | None) -> None:
        """The call has ended, after so many LLM tokens (None: as reserved). Never waits; harmless twice."""

    async def allowances(self, subjects: Sequence[Subject]) -> Sequence[Allowance]:
        """What is left of these limits."""

    async def places(self, owner: str) -> Sequence[Place]:
        """Where the calls of an owner stand, those that have started too."""

    async def has_room(self, models: Sequence[str]) -> str | None:
        """The first of these models that would start a call now, to be suggested instead of a busy one."""
