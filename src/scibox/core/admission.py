"""What the gate's desk is asked and answers. The desk decides who may start; it may be in another process.

Times are Unix or monotonic seconds of the desk's own; durations are seconds; tokens are LLM tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from .types import Limits

Rank = Literal["interactive", "batch"]


class Subject(Struct, frozen=True):
    """Something that is limited, and how.

    Names: "key:key_1", "owner:team", "model:m" (all its callers), "model:m owner:team".
    """

    name: str
    limits: Limits


class Wish(Struct, frozen=True):
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


class Place(Struct, frozen=True):
    """Where a call stands in its queue: 1 is next. `eta_s` is how long it will probably still wait."""

    call_id: str
    model: str
    position: int
    eta_s: float
    waited_s: float


class Allowance(Struct, frozen=True):
    """One limit as its holder sees it: `unit` is that of the field in `Limits`."""

    subject: str
    limit: str  # the field of `Limits`
    amount: int
    remaining: int
    reset_s: float  # until all of it is there again


class Grant(Struct, frozen=True):
    """The call may start: it holds a slot of that deployment until it leaves."""

    deployment: int
    position: int  # where it stood when it came; 0: it did not wait
    waited_s: float
    allowances: tuple[Allowance, ...] = ()


class Desk(Protocol):
    """Limits, slots and the fair queue.

    A refusal is raised: `RateLimited`, `QuotaExceeded`, `Busy`, `Draining`.
    """

    async def enter(self, wish: Wish, on_place: Callable[[Place], None]) -> Grant:
        """Wait until the call may start; `on_place` hears where it stands. Cancelled, it leaves at once."""

    def charge(self, call_id: str, completion_tokens: int) -> None:
        """That many LLM tokens more have been generated for it. Never waits."""

    def leave(self, call_id: str, tokens: int | None) -> None:
        """The call has ended, after so many LLM tokens (None: as reserved). Never waits; harmless twice."""

    async def allowances(self, subjects: Sequence[Subject]) -> Sequence[Allowance]:
        """What is left of these limits."""

    async def places(self, owner: str) -> Sequence[Place]:
        """Where the waiting calls of an owner stand."""
