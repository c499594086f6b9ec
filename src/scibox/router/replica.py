"""Replicas and routes: what the router knows of the places that answer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, Self

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
LEARNT = ("context", "dialect", "slots")  # what a server of others may say of itself, and others may not


@dataclass
class Replica:
    """One running instance of a deployment. What it does now, `in_flight`, is of this process alone."""

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
        self.in_flight = 0  # attempts that it works on for this process
        self.exchanges: set[Exchange] = set()  # with which they do
        if self.stated is None:
            self.stated = frozenset(name for name in LEARNT if getattr(self, name) is not None)

    @property
    def is_usable(self) -> bool:
        """Whether a new call may go to it."""
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

    def failed(self, words: str) -> None:
        """It could not answer; told until it has answered again."""
        self.trouble = Trouble(words, self.trouble.since if self.trouble else time.time())

    def answered(self) -> None:
        """It is there."""
        self.trouble = None

    @property
    def target(self) -> Target:
        """What must be known of it to write to it."""
        dialect = self.dialect or "openai"
        has_tools = dialect != "llama" if self.has_tools is None else self.has_tools
        return Target(self.model, dialect, has_tools, self.thinking or "auto", self.is_hermes)

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

    def embedded(self, texts: int, prompt_tokens: int, cached_tokens: int) -> None:
        """So many texts more have their vectors; `cached_tokens` of theirs were known already."""


class Nobody:
    """A witness for calls that nobody accounts for."""

    def tried(self, deployment: int, address: str) -> None:
        """Not heard."""

    def embedded(self, texts: int, prompt_tokens: int, cached_tokens: int) -> None:
        """Not heard."""


NOBODY = Nobody()


@dataclass(frozen=True, slots=True)
class Deployment:
    """One configured way to serve a model: replicas that are as good as each other."""

    replicas: tuple[Replica, ...]

    def slots(self, unknown: int) -> int:
        """Calls that its replicas answer at the same time; `unknown` of one that does not say.

        Where none is usable all count that stay: calls go there and fail, or find one that is back, instead
        of waiting.
        """
        staying = [replica for replica in self.replicas if not replica.is_draining]
        usable = [replica for replica in staying if replica.is_usable]
        return sum(replica.slots or unknown for replica in usable or staying)

    def in_turn(self) -> list[Replica]:
        """The order in which a new call tries its replicas: those that can answer, the least busy first."""
        return sorted(
            (replica for replica in self.replicas if not replica.is_draining),
            key=lambda replica: (not replica.is_usable, replica.in_flight / (replica.slots or 1)),
        )


@dataclass
class Route:
    """A model and its deployments, in order of preference; `fallbacks` are models that may stand in for it.

    Entered for as long as a call may go to one of its replicas: a reload does not end them meanwhile.
    """

    card: ModelCard
    deployments: tuple[Deployment, ...]
    rules: EmbeddingRules = field(default_factory=EmbeddingRules)  # of an embedding model
    fallbacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
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

    def from_(self, first: int) -> list[tuple[int, Deployment]]:
        """The deployments with their indexes, as a call that was given `first` tries them."""
        numbered = list(enumerate(self.deployments))
        return numbered[first : first + 1] + numbered[:first] + numbered[first + 1 :]

    @property
    def has_tokenizer(self) -> bool:
        """Whether a replica can be asked for the LLM tokens of a text."""
        return any(replica.tokenizer for replica in self.replicas)

    @property
    def shown(self) -> ModelCard:
        """The card with what a remote replica has said of itself since."""
        told = (replica.context for replica in self.replicas if replica.context)
        return replace(self.card, context=self.card.context or next(told, None))
