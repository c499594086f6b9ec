"""Limits as they are told and as they are changed."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from scibox.core.types import Limits
from scibox.wire.body import Strict

LIMIT_NAMES = tuple(Limits.__dataclass_fields__)
MOST = 10**15  # beyond it a number is a slip of the hand, and floats begin to round
Amount = Annotated[int, Meta(ge=1, lt=MOST)] | None | UnsetType


class LimitsObject(Struct):
    """What one key or owner may use; null: no limit. Tokens are LLM tokens; days and months are UTC's."""

    calls_per_second: int | None = None
    calls_per_minute: int | None = None
    tokens_per_minute: int | None = None
    texts_per_minute: int | None = None
    calls_in_flight: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None


class LimitsChange(Strict, frozen=True):
    """Limits that change: a number sets one, null takes it away, what is left out stays as it is."""

    calls_per_second: Amount = UNSET
    calls_per_minute: Amount = UNSET
    tokens_per_minute: Amount = UNSET
    texts_per_minute: Amount = UNSET
    calls_in_flight: Amount = UNSET
    tokens_per_day: Amount = UNSET
    tokens_per_month: Amount = UNSET


def shape_limits(limits: Limits) -> LimitsObject:
    """Limits as they are told."""
    return msgspec.convert(limits, LimitsObject, from_attributes=True)


def changes(change: LimitsChange) -> dict[str, int | None]:
    """The limits that a change names."""
    given = ((name, getattr(change, name)) for name in LIMIT_NAMES)
    return {name: value for name, value in given if value is not UNSET}
