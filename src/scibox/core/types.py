"""The words every room shares: keys, calls, chunks, usage, endings. Frozen data only.

What is made for each call or chunk is a `Struct`: a frozen dataclass takes ten times as long to make.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from msgspec import Struct

from .amounts import NO_LIMITS as NO_LIMITS  # noqa: PLC0414 - passed on
from .amounts import Limits as Limits  # noqa: PLC0414 - passed on

Kind = Literal["chat", "embedding", "rerank"]
Purpose = Literal["query", "passage"]
Content = str | tuple[int, ...]  # a text, or the LLM token ids of one
TokenIds = Literal["cl100k_base", "own", "refused"]  # which vocabulary's ids clients send for texts
Role = Literal["operator", "member"]
Dialect = Literal["openai", "vllm", "llama"]  # what a replica understands beyond OpenAI's documents
Thinking = Literal["auto", "opened", "none"]
"""Where reasoning text stands in what a replica says: `auto`: between `<think>` and `</think>` at the start;
`opened`: from the start on, since the chat template has written `<think>` itself; `none`: nowhere."""


class Ending(Enum):
    """How a call ended; every call has exactly one."""

    FINISHED = "finished"
    REFUSED = "refused"  # an error of the caller's, or a limit, before a replica has answered
    REVOKED = "revoked"  # its key was revoked while it waited or ran
    INTERRUPTED = "interrupted"  # the service stopped and could not wait for it, or died
    UPSTREAM_ERROR = "upstream_error"
    CLIENT_GONE = "client_gone"
    DEADLINE = "deadline"
    INTERNAL_ERROR = "internal_error"


class Usage(Struct, frozen=True, gc=False):
    """LLM tokens of one call, as the engine counted them.

    `cached_tokens` are part of the prompt, `reasoning_tokens` of the completion.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Owner:
    """A team or person: the unit of fairness. Twice the weight is twice the share of a busy model."""

    name: str
    weight: float = 1.0
    limits: Limits = NO_LIMITS
    created_at: float = 0.0  # Unix seconds
    note: str = ""


@dataclass(frozen=True, slots=True)
class Price:
    """Of a model, per million LLM tokens, in any currency."""

    prompt: float = 0.0
    completion: float = 0.0
    cached: float | None = None  # None: as the prompt

    def of(self, usage: Usage) -> float:
        """What so many LLM tokens cost."""
        cached = self.prompt if self.cached is None else self.cached
        fresh_tokens = usage.prompt_tokens - usage.cached_tokens
        million = fresh_tokens * self.prompt + usage.cached_tokens * cached
        return (million + usage.completion_tokens * self.completion) / 1e6


@dataclass(frozen=True, slots=True)
class Key:
    """The credential record; the secret itself is never here. Times are Unix seconds."""

    key_id: str
    owner: str
    name: str
    role: Role
    last_four: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    models: frozenset[str] | None = None  # None: every model
    is_enabled: bool = True  # a disabled key can be enabled again, a revoked one never
    limits: Limits = NO_LIMITS  # its own, beside its owner's

    def is_expired(self, now: float) -> bool:
        """Whether `now` (Unix seconds) is past the expiry."""
        return self.expires_at is not None and now >= self.expires_at

    def may_use(self, model: str) -> bool:
        """Whether this key is allowed the model of that public name."""
        return self.models is None or model in self.models


class Text(Struct, frozen=True, gc=False):
    """A text to embed, or the LLM token ids of one; `where` names it in errors ("input[3]")."""

    content: Content
    where: str
    purpose: Purpose | None = None  # None: the caller did not say


class Embedding(Struct, frozen=True, gc=False):
    """What is to be embedded, and how the vectors are told."""

    texts: tuple[Text, ...]
    dimensions: int | None = None
    as_base64: bool = False
    truncate: int | None = None  # LLM tokens a text is cut to; -1: the model's limit; None: nothing is cut


class Vector(Struct, frozen=True, gc=False):
    """One embedding: little-endian float32 of unit length, and the LLM tokens it was made of."""

    floats: bytes
    prompt_tokens: int


class Call(Struct, frozen=True, gc=False):
    """A parsed and validated request for one answer.

    `fields` holds the top-level fields of the body, each still as the JSON bytes the client sent: the
    gateway changes only what it must and never decodes a prompt to encode it again.
    `text_bytes` is the size of the prompt's text in UTF-8, `solid_bytes` the same without white space: the
    two bounds of its length in LLM tokens. Texts to embed are in `embedding`, measured one by one.
    """

    request_id: str
    kind: Kind
    model: str  # as the client sent it: a public name or an alias
    path: str  # of the replica's endpoint, below /v1
    fields: dict[str, bytes]
    stream: bool = False
    wants_usage: bool = False  # stream_options.include_usage
    text_bytes: int = 0
    solid_bytes: int = 0
    items: int = 1  # messages of a chat, texts to embed
    n: int = 1  # choices asked for, of all prompts together
    prompts: int = 1  # texts to go on from, each with as many of the choices
    thinks: bool | None = None  # whether it reasons first, where that can be chosen; None: its own way
    wants_stop: bool = False  # which stop sequence matched, where the replica can say it
    is_background: bool = False  # nobody waits for it (a line of a batch, "flex"), so other calls come first
    max_tokens: int | None = None  # LLM tokens of each choice at most, as the caller said
    patience_s: float | None = None  # how long it may wait for its turn; None: as the service is set
    endpoint: str = ""  # as the client called it, without /v1: "/responses"
    embedding: Embedding | None = None


class Chunk(Struct, frozen=True, gc=False):
    """A piece of an answer as it goes to the client: whole SSE events, or the whole JSON body.

    `headers` of the first chunk go to the client too, names in lower case. `deltas` estimates the LLM tokens
    in it, where the engine sends one with each event; with the one that `is_last` the answer is complete.
    """

    data: bytes
    usage: Usage | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    deltas: int = 0
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A public model as `GET /v1/models` shows it. `context` is in LLM tokens; `root` is set on aliases."""

    name: str
    kind: Kind
    owned_by: str
    created: int
    context: int | None = None
    dimensions: int | None = None
    root: str | None = None
    limits: Limits = NO_LIMITS  # of all callers together
    owner_limits: Limits = NO_LIMITS  # of each owner
    price: Price | None = None
