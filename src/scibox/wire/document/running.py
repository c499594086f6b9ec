"""The part of the OpenAPI document on the running service: what is broken, and reloading."""

from __future__ import annotations

from typing import Any

from scibox.wire.admin.status import Reloaded, Status

from .admin import TAG
from .stored import Get

TYPES = (Status, Reloaded)


def paths(get: Get) -> dict[str, Any]:
    """The paths."""
    return {
        "/admin/v1/status": {
            "get": get("getStatus", TAG, "Status", "What is broken, in words, and what to do.", "401", "403"),
        },
        "/admin/v1/reload": {
            "post": get(
                "reload",
                *(TAG, "Reloaded", "Take over the configuration as it is now, whole or not at all."),
                *("401", "403", "409"),
            ),
        },
    }
