"""`/admin/v1/owners`: what is asked and what is answered. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from scibox.core.errors import InvalidRequest
from scibox.core.files import Page
from scibox.core.keys import OwnerChange, check_name
from scibox.core.types import Limits, Owner
from scibox.wire.body import Strict
from scibox.wire.stored import pages

from .body import read
from .keys import LISTED, MOST_LISTED, Note, Weight
from .limits import LimitsChange, LimitsObject, changes, shape_limits


class NewOwnerRequest(Strict, frozen=True):
    """An owner to be made."""

    name: Annotated[str, Meta(description="Honoured. The team or person; it is its id.")]
    weight: Annotated[
        Weight, Meta(description="Honoured. Twice the weight is twice the share of a busy model.")
    ] = 1.0
    limits: Annotated[LimitsChange, Meta(description="Honoured. What all its keys together may use.")] = (
        LimitsChange()
    )
    note: Annotated[Note, Meta(description="Honoured. For operators; nobody else sees it.")] = ""


class OwnerChangeRequest(Strict, frozen=True):
    """What is to change of an owner; what is left out stays as it is."""

    weight: Annotated[
        Weight | UnsetType,
        Meta(description="Honoured. Twice the weight is twice the share of a busy model."),
    ] = UNSET
    limits: Annotated[
        LimitsChange, Meta(description="Honoured. Those that change; `null` takes one away.")
    ] = LimitsChange()
    note: Annotated[Note | UnsetType, Meta(description="Honoured. For operators; nobody else sees it.")] = (
        UNSET
    )


class AdminOwner(Struct):
    """An owner as operators see it; `keys` counts those that are not revoked."""

    id: str
    weight: float
    limits: LimitsObject
    note: str
    keys: int
    created_at: int
    object: Literal["admin.owner"] = "admin.owner"


class AdminOwnerList(Struct):
    """A page of owners."""

    data: list[AdminOwner]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class AdminOwnerDeleted(Struct):
    """An owner that is gone."""

    id: str
    deleted: Literal[True] = True
    object: Literal["admin.owner"] = "admin.owner"


_new = msgspec.json.Decoder(NewOwnerRequest)
_change = msgspec.json.Decoder(OwnerChangeRequest)


def parse_list(query: Mapping[str, str]) -> Page:
    """The list that a query asks for."""
    return pages.parse(query, LISTED, MOST_LISTED, ("order",))


def parse_new(raw: bytes, now: float) -> Owner:
    """An owner to be made."""
    asked = read(raw, _new, NewOwnerRequest)
    return Owner(
        check_name(asked.name, "name"), asked.weight, Limits(**changes(asked.limits)), now, asked.note
    )


def parse_change(raw: bytes) -> OwnerChange:
    """What is to change."""
    asked = read(raw, _change, OwnerChangeRequest)
    change = OwnerChange(asked.weight, asked.note, changes(asked.limits))
    if change == OwnerChange():
        raise InvalidRequest("Nothing is to change: name at least one field.", param="body")
    return change


def shape(owner: Owner, keys: int) -> AdminOwner:
    """An owner as it is told."""
    return AdminOwner(
        owner.name, owner.weight, shape_limits(owner.limits), owner.note, keys, int(owner.created_at)
    )


def render(owner: Owner, keys: int) -> bytes:
    """One owner."""
    return msgspec.json.encode(shape(owner, keys))


def render_list(owners: Sequence[Owner], keys: Mapping[str, int], has_more: bool) -> bytes:
    """A page of owners."""
    ids = [owner.name for owner in owners]
    shapes = [shape(owner, keys.get(owner.name, 0)) for owner in owners]
    return msgspec.json.encode(
        AdminOwnerList(shapes, ids[0] if ids else None, ids[-1] if ids else None, has_more)
    )


def render_deleted(name: str) -> bytes:
    """That an owner is gone."""
    return msgspec.json.encode(AdminOwnerDeleted(name))
