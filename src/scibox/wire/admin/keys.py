"""`/admin/v1/keys`: what is asked and what is answered. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from scibox.core.errors import InvalidRequest
from scibox.core.files import Page
from scibox.core.types import Key, Limits, Role
from scibox.wire.stored import pages

KeyState = Literal["active", "disabled", "expired", "revoked"]
LISTED, MOST_LISTED = 100, 1_000


class LimitsObject(Struct):
    """What one key or owner may use; null: no limit. Tokens are LLM tokens; days and months are UTC's."""

    calls_per_second: int | None = None
    calls_per_minute: int | None = None
    tokens_per_minute: int | None = None
    texts_per_minute: int | None = None
    calls_in_flight: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None


class AdminKey(Struct):
    """A key as operators see it; its secret is shown only when it is made. `models` null: every model."""

    id: str
    owner: str
    name: str
    role: Role
    last_four: str
    state: KeyState
    enabled: bool
    models: list[str] | None
    limits: LimitsObject
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    object: Literal["admin.key"] = "admin.key"


class AdminKeyList(Struct):
    """A page of keys."""

    data: list[AdminKey]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


@dataclass(frozen=True, slots=True)
class KeyQuery:
    """Which keys are listed; None: of every owner, in every state."""

    page: Page
    owner: str | None = None
    state: KeyState | None = None


def state(key: Key, now: float) -> KeyState:
    """What has become of a key; what cannot be undone is said first."""
    if key.revoked_at is not None:
        return "revoked"
    if key.is_expired(now):
        return "expired"
    return "active" if key.is_enabled else "disabled"


def parse_list(query: Mapping[str, str]) -> KeyQuery:
    """The list that a query asks for."""
    page = pages.parse(query, LISTED, MOST_LISTED, ("order", "owner", "state"))
    wanted = query.get("state") or None
    for known in get_args(KeyState):
        if wanted in {None, known}:
            return KeyQuery(page, query.get("owner") or None, wanted and known)
    raise InvalidRequest(f"'state' must be one of: {', '.join(get_args(KeyState))}.", param="state")


def shape(key: Key, now: float) -> AdminKey:
    """A key as it is told at `now` (Unix seconds)."""
    return AdminKey(
        id=key.key_id,
        owner=key.owner,
        name=key.name,
        role=key.role,
        last_four=key.last_four,
        state=state(key, now),
        enabled=key.is_enabled,
        models=None if key.models is None else sorted(key.models),
        limits=shape_limits(key.limits),
        created_at=int(key.created_at),
        expires_at=None if key.expires_at is None else int(key.expires_at),
        revoked_at=None if key.revoked_at is None else int(key.revoked_at),
    )


def shape_limits(limits: Limits) -> LimitsObject:
    """Limits as they are told."""
    return msgspec.convert(limits, LimitsObject, from_attributes=True)


def render_list(keys: Sequence[Key], has_more: bool, now: float) -> bytes:
    """A page of keys."""
    ids = [key.key_id for key in keys]
    shapes = [shape(key, now) for key in keys]
    return msgspec.json.encode(
        AdminKeyList(shapes, ids[0] if ids else None, ids[-1] if ids else None, has_more)
    )
