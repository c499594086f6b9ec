"""What the free endpoints answer: models, `/v1/key`, `/health`, `/ready`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from scibox.core.admission import Allowance
from scibox.core.types import Key, Kind, ModelCard


class Model(Struct):
    """A model, as OpenAI lists it, with what a caller needs to know of it beside."""

    id: str
    created: int
    owned_by: str
    kind: Kind
    root: str  # the model that really serves; another name than `id` on an alias
    object: Literal["model"] = "model"
    max_model_len: int | None = None  # LLM tokens, prompt and completion; vLLM's name for it
    dimensions: int | None = None  # numbers per vector, of embedding models


class ModelList(Struct):
    """The models of a key."""

    data: list[Model]
    object: Literal["list"] = "list"


class LimitInfo(Struct):
    """A limit that holds for this key's calls, and what is left of it; `reset_s` until all of it is."""

    of: Literal["key", "owner", "model", "owner on model"]  # whose calls it counts
    model: str | None
    limit: str  # "calls_per_minute", ...
    amount: int
    remaining: int
    reset_s: float


class KeyInfo(Struct):
    """Who am I. Times are RFC 3339, in UTC."""

    id: str
    owner: str
    name: str
    role: str
    last_four: str
    created_at: str
    expires_at: str | None
    models: list[str]
    limits: list[LimitInfo]
    object: Literal["key"] = "key"


class KeyRevoked(Struct):
    """A key that opens nothing any more, for ever."""

    id: str
    revoked: Literal[True] = True
    object: Literal["key"] = "key"


class KeyRotated(Struct):
    """A key's new secret, shown only here; the old one works until `old_secret_until` (RFC 3339)."""

    id: str
    secret: str
    old_secret_until: str
    object: Literal["key"] = "key"


class Health(Struct):
    """`ok`, or `starting` while an engine loads; either way the service answers."""

    status: Literal["ok", "starting"]
    version: str


class Readiness(Struct):
    """Whether a call with a good key would be answered now; `reasons` say why not."""

    status: Literal["ready", "not_ready"]
    reasons: list[str]


def render_models(cards: Sequence[ModelCard]) -> bytes:
    """The list of models."""
    return msgspec.json.encode(ModelList([_model(card) for card in cards]))


def render_model(card: ModelCard) -> bytes:
    """One model."""
    return msgspec.json.encode(_model(card))


def render_key(
    key: Key, models: list[str], allowances: Iterable[Allowance], iso: Callable[[float], str]
) -> bytes:
    """The key behind a secret; `iso` writes Unix seconds as RFC 3339."""
    return msgspec.json.encode(
        KeyInfo(
            id=key.key_id,
            owner=key.owner,
            name=key.name,
            role=key.role,
            last_four=key.last_four,
            created_at=iso(key.created_at),
            expires_at=None if key.expires_at is None else iso(key.expires_at),
            models=models,
            limits=[_limit(allowance) for allowance in allowances],
        )
    )


def render_revoked(key: Key) -> bytes:
    """That a key is revoked."""
    return msgspec.json.encode(KeyRevoked(key.key_id))


def render_rotated(key_id: str, secret: str, old_until: str) -> bytes:
    """A key's new secret."""
    return msgspec.json.encode(KeyRotated(key_id, secret, old_until))


def render_health(status: Literal["ok", "starting"], version: str) -> bytes:
    """The state of the service."""
    return msgspec.json.encode(Health(status, version))


def render_readiness(reasons: list[str]) -> bytes:
    """Whether calls are answered."""
    return msgspec.json.encode(Readiness("not_ready" if reasons else "ready", reasons))


def _limit(allowance: Allowance) -> LimitInfo:
    kind, _, name = allowance.subject.partition(":")
    model, _, owner = name.partition(" owner:") if kind == "model" else ("", "", "")
    return LimitInfo(
        of="owner on model" if owner else "key" if kind == "key" else "owner" if kind == "owner" else "model",
        model=model or None,
        limit=allowance.limit,
        amount=allowance.amount,
        remaining=max(0, allowance.remaining),
        reset_s=round(allowance.reset_s, 3),
    )


def _model(card: ModelCard) -> Model:
    return Model(
        id=card.name,
        created=card.created,
        owned_by=card.owned_by,
        kind=card.kind,
        root=card.root or card.name,
        max_model_len=card.context,
        dimensions=card.dimensions,
    )
