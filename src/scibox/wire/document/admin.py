"""The part of the OpenAPI document on owners, keys and limits: for operators."""

from __future__ import annotations

from typing import Any, get_args

from scibox.core.keys import KeyState
from scibox.wire.admin.keys import (
    LISTED,
    MOST_LISTED,
    AdminKey,
    AdminKeyList,
    BulkMade,
    BulkRequest,
    KeyChangeRequest,
    NewKeyRequest,
    RevokeRequest,
    RotateRequest,
)
from scibox.wire.admin.owners import (
    AdminOwner,
    AdminOwnerDeleted,
    AdminOwnerList,
    NewOwnerRequest,
    OwnerChangeRequest,
)

from .stored import Get, page, place, query

TAG = "Admin"
TYPES = (
    *(NewOwnerRequest, OwnerChangeRequest, AdminOwner, AdminOwnerList, AdminOwnerDeleted),
    *(NewKeyRequest, KeyChangeRequest, RotateRequest, RevokeRequest, BulkRequest),
    *(AdminKey, AdminKeyList, BulkMade),
)
OWNER_EXAMPLE = {"name": "physics", "weight": 2, "limits": {"tokens_per_day": 1_000_000}}
KEY_EXAMPLE = {"owner": "physics", "name": "laptop", "days": 90, "limits": {"calls_per_minute": 60}}
BULK_EXAMPLE = {"keys": [KEY_EXAMPLE, {"owner": "chemistry", "days": 90, "weight": 1.5}]}
KEY_CHANGE_EXAMPLE = {"enabled": False}
OWNER_CHANGE_EXAMPLE = {"weight": 1, "limits": {"tokens_per_day": None}}
ROTATE_EXAMPLE = {"overlap_s": 86400}
_READ = ("400", "401", "403", "503")
_ONE = (*_READ, "404")
_WRITTEN = ("408", "413", "415")
BY_TIME = query("order", {"enum": ["asc", "desc"], "default": "desc"}, "By the time of creation.")


def paths(get: Get) -> dict[str, Any]:
    """The paths."""
    return {**_owner_paths(get), **_key_paths(get)}


def rotation(get: Get) -> dict[str, Any]:
    """`POST /v1/key/rotate`: the holder's."""
    return {
        **get("rotateOwnKey", "Service", "KeyRotated", "A new secret, where allowed.", *_READ, *_WRITTEN),
        "requestBody": request_body("RotateRequest", ROTATE_EXAMPLE, is_required=False),
    }


def _owner_paths(get: Get) -> dict[str, Any]:
    def owner(operation: str, summary: str, *errors: str, answer: str = "AdminOwner") -> dict[str, Any]:
        return get(operation, TAG, answer, summary, *errors)

    return {
        "/admin/v1/owners": {
            "get": {
                **owner("listOwners", "The owners.", *_ONE, answer="AdminOwnerList"),
                "parameters": [*page("owners", LISTED, MOST_LISTED), BY_TIME],
            },
            "post": {
                **owner("createOwner", "Make an owner.", *_READ, *_WRITTEN, "409"),
                "requestBody": request_body("NewOwnerRequest", OWNER_EXAMPLE),
            },
        },
        "/admin/v1/owners/{name}": {
            "parameters": [place("name")],
            "get": owner("getOwner", "One owner.", *_ONE),
            "post": {
                **owner("changeOwner", "Change an owner: weight, limits, note.", *_ONE, *_WRITTEN),
                "requestBody": request_body("OwnerChangeRequest", OWNER_CHANGE_EXAMPLE),
            },
            "delete": owner(
                *("deleteOwner", "Forget an owner without keys.", *_ONE, "409"), answer="AdminOwnerDeleted"
            ),
        },
    }


def _key_paths(get: Get) -> dict[str, Any]:
    def key(operation: str, summary: str, *errors: str, answer: str = "AdminKey") -> dict[str, Any]:
        return get(operation, TAG, answer, summary, *errors)

    state = query("state", {"enum": list(get_args(KeyState))}, "Only keys in this state.")
    owner = query("owner", {"type": "string"}, "Only keys of this owner.")
    one = {"parameters": [place("key_id")]}
    again = query(
        "again", {"type": "boolean", "default": False}, "As in JSON, which a table has no place for."
    )
    return {
        "/admin/v1/keys": {
            "get": {
                **key("listKeys", "The keys.", *_ONE, answer="AdminKeyList"),
                "parameters": [*page("keys", LISTED, MOST_LISTED), BY_TIME, owner, state],
            },
            "post": {
                **key("createKey", "Make a key; its secret is shown once.", *_READ, *_WRITTEN),
                "requestBody": request_body("NewKeyRequest", KEY_EXAMPLE),
            },
        },
        "/admin/v1/keys/bulk": {
            "post": {
                **key("createKeys", "Make many keys, or none.", *_READ, *_WRITTEN, answer="BulkMade"),
                "parameters": [again],
                "requestBody": _bulk_body(),
            },
        },
        "/admin/v1/keys/{key_id}": {
            **one,
            "get": key("getAdminKey", "One key.", *_ONE),
            "post": {
                **key("changeKey", "Change a key, enable or disable it.", *_ONE, *_WRITTEN, "409"),
                "requestBody": request_body("KeyChangeRequest", KEY_CHANGE_EXAMPLE),
            },
        },
        "/admin/v1/keys/{key_id}/rotate": {
            **one,
            "post": {
                **key("rotateKey", "A new secret, shown once.", *_ONE, *_WRITTEN, "409"),
                "requestBody": request_body("RotateRequest", ROTATE_EXAMPLE, is_required=False),
            },
        },
        "/admin/v1/keys/{key_id}/revoke": {
            **one,
            "post": {
                **key("revokeKey", "End a key for ever.", *_ONE, *_WRITTEN, "409"),
                "requestBody": request_body("RevokeRequest", {}, is_required=False),
            },
        },
    }


def _bulk_body() -> dict[str, Any]:
    body = request_body("BulkRequest", BULK_EXAMPLE)
    body["content"]["text/csv"] = {
        "schema": {"type": "string"},
        "example": "owner,name,days,limits\nphysics,laptop,90,calls_per_minute=60\n",
    }
    return body


def request_body(request: str, example: dict[str, Any], *, is_required: bool = True) -> dict[str, Any]:
    """A JSON body of that record."""
    schema = {"$ref": f"#/components/schemas/{request}"}
    content = {"application/json": {"schema": schema, "example": example}}
    return {"required": is_required, "content": content}
