"""`/admin/v1/keys`: what is asked and what is answered. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from scibox.core.errors import InvalidRequest
from scibox.core.files import Page
from scibox.core.keys import Draft, KeyChange, KeyState, Shown, check_name, state
from scibox.core.types import Limits, Role
from scibox.wire.body import Strict, refuse_unknown
from scibox.wire.stored import pages

from .body import Problems, read
from .limits import LimitsChange, LimitsObject, changes, shape_limits

LISTED, MOST_LISTED = 100, 1_000
MOST_MADE = 10_000  # keys of one bulk call
DAY_S = 86_400.0
LONGEST_OVERLAP_S = 90 * DAY_S

Models = Annotated[list[str], Meta(min_length=1, max_length=1_000)]
Days = Annotated[float, Meta(gt=0, le=36_500)]
Time = Annotated[int, Meta(ge=1, lt=10**11)]  # beyond it somebody sends milliseconds
Weight = Annotated[float, Meta(ge=0.001, le=1_000)]
Note = Annotated[str, Meta(max_length=1_000)]


class NewKeyRequest(Strict, frozen=True):
    """A key to be made. An owner that is not there yet is made with it."""

    owner: Annotated[str, Meta(description="Honoured. The team or person it belongs to.")]
    name: Annotated[str, Meta(description="Honoured. What it is for; the owner's name where left out.")] = ""
    role: Annotated[Role, Meta(description="Honoured. `member` or `operator`.")] = "member"
    models: Annotated[
        Models | None, Meta(description="Honoured. Public names; `null`: every model, also later ones.")
    ] = None
    limits: Annotated[LimitsChange, Meta(description="Honoured. Its own, beside its owner's.")] = (
        LimitsChange()
    )
    days: Annotated[Days | None, Meta(description="Honoured. Days until it expires; `null`: never.")] = None
    expires_at: Annotated[Time | None, Meta(description="Honoured. When it expires, instead of `days`.")] = (
        None
    )


class TableKeyRequest(NewKeyRequest, frozen=True):
    """A key of many, and what its owner is to be."""

    weight: Annotated[Weight | None, Meta(description="Honoured. Of the owner.")] = None
    note: Annotated[Note | None, Meta(description="Honoured. On the owner.")] = None


class BulkRequest(Strict, frozen=True):
    """Many keys: all of them are made, or none."""

    keys: Annotated[
        Annotated[list[TableKeyRequest], Meta(min_length=1, max_length=MOST_MADE)],
        Meta(description="Honoured. Each as in `POST /admin/v1/keys`, and its owner's `weight` and `note`."),
    ]
    again: Annotated[
        bool, Meta(description="Honoured. Make a key also where this owner has one of this name.")
    ] = False


class KeyChangeRequest(Strict, frozen=True):
    """What is to change of a key; what is left out stays as it is."""

    name: Annotated[str | UnsetType, Meta(description="Honoured. What it is for.")] = UNSET
    role: Annotated[Role | UnsetType, Meta(description="Honoured. `member` or `operator`.")] = UNSET
    enabled: Annotated[
        bool | UnsetType, Meta(description="Honoured. `false`: refused until it is enabled again.")
    ] = UNSET
    models: Annotated[Models | UnsetType | None, Meta(description="Honoured. `null`: every model.")] = UNSET
    limits: Annotated[
        LimitsChange, Meta(description="Honoured. Those that change; `null` takes one away.")
    ] = LimitsChange()
    days: Annotated[Days | UnsetType | None, Meta(description="Honoured. From now on; `null`: never.")] = (
        UNSET
    )
    expires_at: Annotated[
        Time | UnsetType | None, Meta(description="Honoured. When it expires, instead of `days`.")
    ] = UNSET
    force: Annotated[
        bool, Meta(description="Honoured. Also where no operator's key would be left that works.")
    ] = False


class RotateRequest(Strict, frozen=True):
    """A new secret for a key."""

    overlap_s: Annotated[
        Annotated[float, Meta(ge=0, le=LONGEST_OVERLAP_S)],
        Meta(description="Honoured. Seconds that the old secret works beside the new one; 0: not at all."),
    ] = 0.0


class RevokeRequest(Strict, frozen=True):
    """The end of a key."""

    force: Annotated[
        bool, Meta(description="Honoured. Also where no operator's key would be left that works.")
    ] = False


class AdminKey(Struct):
    """A key; `models` null: every model. `secret` and `old_secret_until` only where it was made just now."""

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
    last_used_at: int | None
    secret: str | UnsetType = UNSET
    old_secret_until: int | UnsetType = UNSET
    object: Literal["admin.key"] = "admin.key"


class AdminKeyList(Struct):
    """A page of keys."""

    data: list[AdminKey]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class BulkMade(Struct):
    """The keys that were made, in the order asked; `skipped`: the places of those that were there before."""

    data: list[AdminKey]
    skipped: list[str]
    object: Literal["list"] = "list"


@dataclass(frozen=True, slots=True)
class KeyQuery:
    """Which keys are listed; None: of every owner, in every state."""

    page: Page
    owner: str | None = None
    state: KeyState | None = None


_new = msgspec.json.Decoder(NewKeyRequest)
_bulk = msgspec.json.Decoder(BulkRequest)
_change = msgspec.json.Decoder(KeyChangeRequest)
_rotate = msgspec.json.Decoder(RotateRequest)
_revoke = msgspec.json.Decoder(RevokeRequest)


def parse_list(query: Mapping[str, str]) -> KeyQuery:
    """The list that a query asks for."""
    page = pages.parse(query, LISTED, MOST_LISTED, ("order", "owner", "state"))
    wanted = query.get("state") or None
    for known in get_args(KeyState):
        if wanted in {None, known}:
            return KeyQuery(page, query.get("owner") or None, wanted and known)
    raise InvalidRequest(f"'state' must be one of: {', '.join(get_args(KeyState))}.", param="state")


def parse_new(raw: bytes, now: float) -> Draft:
    """A key to be made."""
    return draft(read(raw, _new, NewKeyRequest), now)


def parse_bulk(raw: bytes, now: float) -> tuple[list[tuple[str, Draft]], bool]:
    """Keys to be made, each with the place that errors name; and whether also those that are there."""
    asked = read(raw, _bulk, TableKeyRequest)
    problems = Problems()
    drafts = []
    for index, one in enumerate(asked.keys):
        with problems.within(f"keys[{index}]"):
            drafts.append((f"keys[{index}]", draft(one, now)))
    problems.tell()
    return drafts, asked.again


def parse_again(query: Mapping[str, str]) -> bool:
    """Whether the keys of a table are to be made also where they are there already."""
    refuse_unknown(query, {"again"})
    said = query.get("again", "false")
    if said not in {"true", "false"}:
        raise InvalidRequest("'again' must be true or false.", param="again")
    return said == "true"


def parse_change(raw: bytes, now: float) -> tuple[KeyChange, bool]:
    """What is to change, and whether also the last operator's key."""
    asked = read(raw, _change, KeyChangeRequest)
    change = KeyChange(
        name=check_name(asked.name, "name") if isinstance(asked.name, str) else UNSET,
        role=asked.role,
        is_enabled=asked.enabled,
        expires_at=_expiry(asked.days, asked.expires_at, now),
        models=frozenset(asked.models) if isinstance(asked.models, list) else asked.models,
        limits=changes(asked.limits),
    )
    if change == KeyChange():
        raise InvalidRequest("Nothing is to change: name at least one field.", param="body")
    return change, asked.force


def parse_rotate(raw: bytes) -> float:
    """Seconds that the old secret works beside the new one."""
    return read(raw or b"{}", _rotate, RotateRequest).overlap_s


def parse_revoke(raw: bytes) -> bool:
    """Whether also the last operator's key is to be revoked."""
    return read(raw or b"{}", _revoke, RevokeRequest).force


def draft(asked: NewKeyRequest, now: float) -> Draft:
    """The key that a request asks for."""
    expiry = _expiry(asked.days or UNSET, asked.expires_at or UNSET, now)  # null is as if it were not there
    more = asked if isinstance(asked, TableKeyRequest) else None
    return Draft(
        owner=check_name(asked.owner, "owner"),
        name=check_name(asked.name or asked.owner, "name"),
        role=asked.role,
        expires_at=None if isinstance(expiry, UnsetType) else expiry,
        models=None if asked.models is None else frozenset(asked.models),
        limits=Limits(**changes(asked.limits)),
        weight=None if more is None else more.weight,
        note=None if more is None else more.note,
    )


def shape(shown: Shown, now: float) -> AdminKey:
    """A key as it is told at `now` (Unix seconds)."""
    key = shown.key
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
        expires_at=_whole(key.expires_at),
        revoked_at=_whole(key.revoked_at),
        last_used_at=_whole(shown.used_at),
        secret=UNSET if shown.secret is None else shown.secret,
        old_secret_until=UNSET if shown.old_until is None else int(shown.old_until),
    )


def render(shown: Shown, now: float) -> bytes:
    """One key."""
    return msgspec.json.encode(shape(shown, now))


def render_bulk(made: Iterable[Shown], skipped: Iterable[str], now: float) -> bytes:
    """The keys that were made and their secrets."""
    return msgspec.json.encode(BulkMade([shape(shown, now) for shown in made], list(skipped)))


def render_list(keys: Sequence[Shown], has_more: bool, now: float) -> bytes:
    """A page of keys."""
    ids = [shown.key.key_id for shown in keys]
    shapes = [shape(shown, now) for shown in keys]
    return msgspec.json.encode(
        AdminKeyList(shapes, ids[0] if ids else None, ids[-1] if ids else None, has_more)
    )


def _whole(at: float | None) -> int | None:
    return None if at is None else int(at)


def _expiry(
    days: float | UnsetType | None, expires_at: int | UnsetType | None, now: float
) -> float | UnsetType | None:
    """When a key is to expire, None: never; UNSET where neither says."""
    if not isinstance(days, UnsetType) and not isinstance(expires_at, UnsetType):
        raise InvalidRequest("Give 'days' or 'expires_at', not both.", param="expires_at")
    if not isinstance(days, UnsetType):
        return None if days is None else now + days * DAY_S
    if isinstance(expires_at, int) and expires_at <= now:
        raise InvalidRequest(
            "'expires_at' is Unix seconds, in the future; to end a key now, revoke it.", param="expires_at"
        )
    return expires_at
