"""Replicas and routes: what the router knows of the places that answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from scibox.core.types import (
    Dialect,
    ModelCard,
    Purpose,
    Thinking,
    TokenIds,
)
from scibox.upstream.address import Address
from scibox.wire.orders import Target

from .trouble import Trouble


@dataclass(slots=True)
class Replica:
    """One running instance of a deployment."""

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
    trouble: Trouble | None = None  # its last attempt failed, and none has succeeded since
    # What its template told: whether it opens a block of reasoning, by `chat_template_kwargs`.
    opens: dict[bytes, bool] = field(default_factory=dict)
    is_known: bool = False  # a server of others has answered once and said what it would of itself
    users: int = 0  # calls that may still go to it

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
class Route:
    """A model and the replicas that serve it, in order of preference."""

    card: ModelCard
    replicas: tuple[Replica, ...]
    rules: EmbeddingRules = field(default_factory=EmbeddingRules)  # of an embedding model

    @contextmanager
    def used(self) -> Iterator[None]:
        """While a call may go to one of its replicas: a reload does not end them meanwhile."""
        for replica in self.replicas:
            replica.users += 1
        try:
            yield
        finally:
            for replica in self.replicas:
                replica.users -= 1

    def from_(self, first: int) -> list[tuple[int, Replica]]:
        """The replicas with their indexes, in the order in which a call that was given `first` tries them."""
        numbered = list(enumerate(self.replicas))
        return numbered[first : first + 1] + numbered[:first] + numbered[first + 1 :]

    @property
    def has_tokenizer(self) -> bool:
        """Whether a replica can be asked for the LLM tokens of a text."""
        return any(replica.tokenizer for replica in self.replicas)

    @property
    def shown(self) -> ModelCard:
        """The card with what a remote replica has said of itself since."""
        return replace(self.card, context=self.card.context or self.replicas[0].context)
