"""The part of the OpenAPI document on owners, keys and limits: for operators."""

from __future__ import annotations

from typing import Any, get_args

from scibox.core.keys import KeyState
from scibox.wire.admin.keys import LISTED, MOST_LISTED, AdminKey, AdminKeyList

from .stored import Get, page, query

TAG = "Admin"
TYPES = (AdminKey, AdminKeyList)
_ALWAYS = ("400", "401", "403", "503")


def paths(get: Get) -> dict[str, Any]:
    """The paths."""
    by_time = query("order", {"enum": ["asc", "desc"], "default": "desc"}, "By the time of creation.")
    state = query("state", {"enum": list(get_args(KeyState))}, "Only keys in this state.")
    owner = query("owner", {"type": "string"}, "Only keys of this owner.")
    return {
        "/admin/v1/keys": {
            "get": {
                **get("listKeys", TAG, "AdminKeyList", "The keys.", *_ALWAYS),
                "parameters": [*page("keys", LISTED, MOST_LISTED), by_time, owner, state],
            },
        },
    }
