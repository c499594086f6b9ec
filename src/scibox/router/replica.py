"""Replicas and routes: what the router knows of the places that answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from scibox.core.types import Dialect, ModelCard, Purpose, Thinking, TokenIds
from scibox.upstream.address import Address
from scibox.wire.orders import Target


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a replica could not answer when it was last tried, and since when (Unix seconds)."""

    words: str
    since: float


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
    # What its template told: whether it opens a block of reasoning, by `chat_template_kwargs`.
    opens: dict[bytes, bool] = field(default_factory=dict)
    is_known: bool = False  # a server of others has answered once and said what it would of itself
    trouble: Trouble | None = None  # of a server of others; of a child of ours its supervisor knows more
    users: int = 0  # calls that may still go to it

    def failed(self, words: str) -> None:
        """It could not answer; told until it has answered again."""
        if not self.is_local:
            since = self.trouble.since if self.trouble else time.time()
            self.trouble = Trouble(words, since)

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

    @property
    def has_tokenizer(self) -> bool:
        """Whether a replica can be asked for the LLM tokens of a text."""
        return any(replica.tokenizer for replica in self.replicas)

    @property
    def shown(self) -> ModelCard:
        """The card with what a remote replica has said of itself since."""
        return replace(self.card, context=self.card.context or self.replicas[0].context)


def refused(status: int) -> str:
    """What to do about a server that refuses the gateway itself."""
    return (
        f"It refuses the gateway (status {status}): check its url, upstream_model, and upstream_key_env or "
        "upstream_key_file."
    )
