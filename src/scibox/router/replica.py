"""Replicas and routes: what the router knows of the places that answer."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, Self
from urllib.parse import quote

from scibox.core.errors import UpstreamUnavailable
from scibox.core.pulse import Pulse
from scibox.core.routing import Choice
from scibox.core.spending import Pace
from scibox.core.types import (
    Dialect,
    ModelCard,
    Purpose,
    Thinking,
    TokenIds,
)
from scibox.upstream.address import Address
from scibox.upstream.client import Exchange
from scibox.wire.orders import Target

from .trouble import Trouble

UpstreamKind = Literal["vllm", "sglang", "llama", "ollama", "tei", "litellm", "scibox", "openai"]
Headers = tuple[tuple[bytes, bytes], ...]
_OF_PULSE = frozenset({"slots", "is_draining", "away"})
LEARNT = ("context", "dialect", "slots")  # what a server of others may say of itself, and others may not


@dataclass
class Replica:
    """One running instance of a deployment. How it does now, its `pulse`, is what this process has seen.

    Its `trouble` is in words for the operator, `fault` the code of the error; the breaker of its pulse
    decides whether calls go to it.
    """

    address: Address
    model: str  # the name it is known by there
    secret: str | None = None  # the upstream's own key
    context: int | None = None  # LLM tokens per call, prompt and completion; None: not known
    is_local: bool = False  # a child of ours: it comes back when it dies
    counts: bool = False  # has a tokenizer of its own, to be asked as llama-server's is
    dialect: Dialect | None = "openai"  # None: still to be asked
    has_tools: bool | None = None  # its chat template shows tools to the model; None: a llama-server is asked
    is_hermes: bool = False  # and writes calls as Hermes and Qwen do
    thinking: Thinking | None = "auto"  # None: its chat template tells
    slots: int | None = None  # calls that it answers at the same time; None: not known
    id: str = ""  # as operators name it
    texts: int | None = None  # that it takes in one call, where it says so
    kind: UpstreamKind | None = None  # of a server of others, as far as it has told
    stated: frozenset[str] | None = (
        None  # fields that the operator has set: what it says of them is not taken
    )
    away: Trouble | None = None  # it was looked at and is not there; it gets no new calls
    doubt: Trouble | None = None  # it is there, and what it says of itself does not fit what it is here for
    trouble: Trouble | None = None  # its last attempt failed, and none has succeeded since
    # What its template told: whether it opens a block of reasoning, by `chat_template_kwargs`.
    opens: dict[bytes, bool] = field(default_factory=dict)
    is_known: bool = False  # a server of others has answered once and said what it would of itself
    is_draining: bool = False  # it gets no new calls

    def __post_init__(self) -> None:
        self.pulse: Pulse[Replica] = Pulse(self, self.slots)
        self.name = str(self.address)  # as it stands in the ledger
        self.fault = ""
        self.resumes = Pace()  # of the streams that it breaks off
        self.exchanges: set[Exchange] = set()  # with which it works on attempts of this process
        if self.stated is None:
            self.stated = frozenset(name for name in LEARNT if getattr(self, name) is not None)

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        if name in _OF_PULSE and "pulse" in self.__dict__:
            self._tell_pulse()

    def _tell_pulse(self) -> None:
        """Who chooses among replicas knows only pulses."""
        pulse, now = self.pulse, time.monotonic()
        is_barred = self.is_draining or self.away is not None
        if pulse.is_draining is not is_barred:
            pulse.drain(is_barred, now)
        if pulse.slots != self.slots:
            pulse.resize(self.slots, now)

    @property
    def in_flight(self) -> int:
        """Attempts that it works on for this process."""
        return self.pulse.in_flight

    @property
    def takes_calls(self) -> bool:
        """Whether a new call may go to it now."""
        return not self.pulse.is_draining and self.pulse.breaker.is_ready(time.monotonic())

    @property
    def is_usable(self) -> bool:
        """Whether it is known to be well."""
        return not self.is_draining and self.trouble is None and self.away is None

    @property
    def ailment(self) -> Trouble | None:
        """What an operator should know of it."""
        return self.away or self.trouble or self.doubt

    def may_learn(self, name: str) -> bool:
        """Whether what it says of that field counts."""
        return self.stated is None or name not in self.stated

    def cut(self) -> None:
        """End what it works on for this process, as if it had died."""
        for exchange in list(self.exchanges):
            exchange.cut()

    @property
    def is_unreachable(self) -> bool:
        """Whether the last that is known of it is that nobody could connect."""
        return self.fault == UpstreamUnavailable.code

    def failed(self, words: str, fault: str = "") -> None:
        """It could not answer; told until it has answered again."""
        self.trouble = Trouble(words, self.trouble.since if self.trouble else time.time())
        self.fault = fault

    def answered(self) -> None:
        """It is there."""
        if self.fault or self.trouble is not None:
            self.trouble = None
            self.fault = ""

    def found(self) -> None:
        """Somebody has reached it who was not a call: the next call may go there at once."""
        if self.is_unreachable:
            self.answered()
            self.pulse.checked(True, time.monotonic(), 0.5)

    @property
    def target(self) -> Target:
        """What must be known of it to write to it."""
        dialect = self.dialect or "openai"
        has_tools = dialect != "llama" if self.has_tools is None else self.has_tools
        return Target(
            self.model,
            dialect,
            has_tools,
            self.thinking or "auto",
            has_newer_limit=self.kind == "openai",
            is_hermes=self.is_hermes,
        )

    @property
    def tokenizer(self) -> Literal["llama", "vllm"] | None:
        """How its tokenizer is asked; None where it has none that can be."""
        if self.counts or self.dialect == "llama":
            return "llama"
        return "vllm" if self.dialect == "vllm" else None


@dataclass(frozen=True, slots=True)
class EmbeddingRules:
    """How an embedding model wants to be asked.

    `identity` is of the weights, as far as it can be known: vectors of one identity are the same for ever.
    """

    prefix: str = ""  # before a text of which the caller does not say what it is
    query_prefix: str | None = None  # None: `prefix`
    passage_prefix: str | None = None
    token_ids: TokenIds = "cl100k_base"  # noqa: S105 - LLM tokens
    is_matryoshka: bool = False  # was trained so that the first numbers of a vector are a vector
    identity: bytes = b""

    def prefix_of(self, purpose: Purpose | None) -> str:
        """What stands before a text of that purpose."""
        own = {"query": self.query_prefix, "passage": self.passage_prefix}.get(purpose or "")
        return self.prefix if own is None else own


class Witness(Protocol):
    """Hears what becomes of a call while it is on its way: the gate's ticket, which accounts for it."""

    def tried(self, deployment: int, address: str) -> None:
        """An attempt on that replica begins."""

    def answers(self, deployment: int, address: str) -> None:
        """Of several attempts at a time it is this one that answers."""

    def embedded(self, texts: int, prompt_tokens: int, cached_tokens: int) -> None:
        """So many texts more have their vectors; `cached_tokens` of theirs were known already."""


class Nobody:
    """A witness for calls that nobody accounts for."""

    def tried(self, deployment: int, address: str) -> None:
        """Not heard."""

    def answers(self, deployment: int, address: str) -> None:
        """Not heard."""

    def embedded(self, texts: int, prompt_tokens: int, cached_tokens: int) -> None:
        """Not heard."""


NOBODY = Nobody()


@dataclass
class Deployment:
    """One configured way to serve a model: replicas that are as good as each other."""

    replicas: tuple[Replica, ...]

    def __post_init__(self) -> None:
        self._own = Choice(random.random, (replica.pulse for replica in self.replicas))

    @property
    def choice(self) -> Choice[Replica]:
        """Who decides among its replicas; for calls that came before a reload, where those are now."""
        if len(self._own):
            return self._own
        homes = (replica.pulse.home for replica in self.replicas)
        return next((home for home in homes if home is not None), self._own)

    @property
    def takes_calls(self) -> bool:
        """Whether a new call may go to one of its replicas now."""
        return any(replica.takes_calls for replica in self.replicas)

    def slots(self, unknown: int) -> int:
        """Calls that its replicas answer at the same time; `unknown` of one that does not say.

        Where none takes any all count that stay: calls go there and fail, or find one that is back, instead
        of waiting.
        """
        staying = [replica for replica in self.replicas if not replica.is_draining]
        able = [replica for replica in staying if replica.takes_calls]
        return sum(replica.slots or unknown for replica in able or staying)


@dataclass
class Route:
    """A model and its deployments, in order of preference; `fallbacks` are models that may stand in for it.

    Entered for as long as a call may go to one of its replicas: a reload does not end them meanwhile.
    """

    card: ModelCard
    deployments: tuple[Deployment, ...]
    rules: EmbeddingRules = field(default_factory=EmbeddingRules)  # of an embedding model
    fallbacks: tuple[str, ...] = ()
    hedge_after_s: float | None = None  # without a first chunk, after which another replica is asked too
    resumes: bool = True  # a stream whose replica dies goes on on another one

    def __post_init__(self) -> None:
        name = self.card.name
        named = name.encode() if name.isascii() else quote(name).encode()
        self.headers: Headers = ((b"x-scibox-model", named),)  # of its answers
        self.users = 0  # calls that may still go to one of its replicas
        self.serve_by(self.deployments)

    def serve_by(self, deployments: tuple[Deployment, ...]) -> None:
        """These replicas answer from now on, also the calls that have the route and wait."""
        self.deployments = deployments
        self.replicas = tuple(replica for one in deployments for replica in one.replicas)

    def __enter__(self) -> Self:
        self.users += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.users -= 1

    def slots(self, unknown: int) -> list[int]:
        """Calls that each deployment answers at the same time: none where no replica takes calls, unless none
        does anywhere.
        """
        able = [deployment.takes_calls for deployment in self.deployments]
        return [
            deployment.slots(unknown) if is_able or not any(able) else 0
            for deployment, is_able in zip(self.deployments, able, strict=True)
        ]

    @property
    def askable(self) -> list[Replica]:
        """The replicas that have a tokenizer, those first that are not in trouble."""
        able = (replica for replica in self.replicas if replica.tokenizer)
        return sorted(able, key=lambda replica: (not replica.takes_calls, not replica.is_usable))

    @property
    def has_tokenizer(self) -> bool:
        """Whether a replica can be asked for the LLM tokens of a text."""
        return any(replica.tokenizer for replica in self.replicas)

    @property
    def shown(self) -> ModelCard:
        """The card with what a remote replica has said of itself since."""
        told = (replica.context for replica in self.replicas if replica.context)
        return replace(self.card, context=self.card.context or next(told, None))
