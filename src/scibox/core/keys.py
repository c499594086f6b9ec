"""What operators decide on owners and keys: drafts, changes, and the rules that hold whoever asks.

Plain functions over frozen data; `now` is Unix time in seconds. What a change leaves out (`UNSET`) stays.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from .errors import InvalidRequest
from .types import NO_LIMITS, Key, Limits, Owner, Role

KeyState = Literal["active", "disabled", "expired", "revoked"]
LONGEST_NAME = 100
_FORMULA = "=+-@"  # a spreadsheet takes a cell that begins so for a formula


@dataclass(frozen=True, slots=True)
class Draft:
    """A key that is to be made, before it has an id and a secret."""

    owner: str
    name: str
    role: Role = "member"
    expires_at: float | None = None
    models: frozenset[str] | None = None
    limits: Limits = NO_LIMITS
    weight: float | None = None  # of its owner; None: as it is
    note: str | None = None  # on its owner; None: as it is


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What becomes of a key. `limits` holds those that change; None takes a limit away."""

    name: str | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    is_enabled: bool | UnsetType = UNSET
    expires_at: float | UnsetType | None = UNSET
    models: frozenset[str] | UnsetType | None = UNSET
    limits: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OwnerChange:
    """What becomes of an owner."""

    weight: float | UnsetType = UNSET
    note: str | UnsetType = UNSET
    limits: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shown:
    """A key as operators see it: when it was used last, and the secret where that was made just now."""

    key: Key
    used_at: float | None = None
    secret: str | None = None
    old_until: float | None = None  # after a rotation: how long the secret before works


def change_key(key: Key, change: KeyChange) -> Key:
    """The key after a change."""
    given = _given(change)
    return replace(key, **given, limits=replace(key.limits, **change.limits))


def change_owner(owner: Owner, change: OwnerChange) -> Owner:
    """The owner after a change."""
    given = _given(change)
    return replace(owner, **given, limits=replace(owner.limits, **change.limits))


def state(key: Key, now: float) -> KeyState:
    """What has become of a key; what cannot be undone is said first."""
    if key.revoked_at is not None:
        return "revoked"
    if key.is_expired(now):
        return "expired"
    return "active" if key.is_enabled else "disabled"


def locks_out(keys: Iterable[Key], changed: Iterable[Key], now: float) -> bool:
    """Whether these changes would leave no operator's key that works, where there is one now."""
    before = {key.key_id: key for key in keys}
    after = before | {key.key_id: key for key in changed}
    return _has_operator(before, now) and not _has_operator(after, now)


def written(name: str) -> str:
    """A name as it is stored: what looks the same is the same, however a keyboard composes its letters."""
    return unicodedata.normalize("NFC", name)


def check_name(name: str, param: str) -> str:
    """The name of an owner or a key, or `InvalidRequest`: it stands in paths, tables and spreadsheets."""
    name = written(name)
    if not 1 <= len(name) <= LONGEST_NAME:
        raise InvalidRequest(f"'{param}' must have 1 to {LONGEST_NAME} characters.", param=param)
    if not name.isprintable() or name != name.strip() or name != name.strip("/"):
        message = f"'{param}' must have no line ends or control characters, and no space or '/' at its ends."
        raise InvalidRequest(message, param=param)
    if name[0] in _FORMULA or not any(character.isalnum() for character in name):
        message = f"'{param}' must begin with none of {_FORMULA} and have a letter or a digit."
        raise InvalidRequest(message, param=param)
    return name


def _has_operator(keys: Mapping[str, Key], now: float) -> bool:
    return any(key.role == "operator" and state(key, now) == "active" for key in keys.values())


def _given(change: KeyChange | OwnerChange) -> dict[str, Any]:  # Any: values of fields of different types
    names = (name for name in change.__slots__ if name != "limits")
    return {name: value for name in names if (value := getattr(change, name)) is not UNSET}
