"""The part of the OpenAPI document on usage."""

from __future__ import annotations

from typing import Any

from scibox.wire.usage import (
    FAILED_LISTED,
    GROUPS,
    MOST_FAILED_LISTED,
    MOST_LISTED,
    WIDTHS,
    FailedCall,
    FailedList,
    UsageBucket,
    UsagePage,
    UsageResult,
)

from .stored import Get, query

TAG = "Usage"
TYPES = (UsageResult, UsageBucket, UsagePage, FailedCall, FailedList)
_OWN = ("400", "401", "503")
_ADMIN = ("400", "401", "403", "503")


def paths(get: Get, admin_tag: str) -> dict[str, Any]:
    """The paths, for callers and for operators."""
    owners = query("owners", _names(), "Only calls of these owners.")
    owner = query("owner", {"type": "string"}, "Only calls of this owner.")
    return {
        "/v1/usage": {
            "get": {
                **get("getUsage", TAG, "UsagePage", "What the calls of this key's owner cost.", *_OWN),
                "parameters": _of_sums(),
            }
        },
        "/v1/usage/errors": {
            "get": {
                **get("listFailedCalls", TAG, "FailedList", "Its last calls that did not finish.", *_OWN),
                "parameters": [_limit()],
            }
        },
        "/admin/v1/usage": {
            "get": {
                **get("getAllUsage", admin_tag, "UsagePage", "What everybody's calls cost.", *_ADMIN),
                "parameters": [*_of_sums(), owners],
            }
        },
        "/admin/v1/usage/errors": {
            "get": {
                **get(
                    *("listAllFailedCalls", admin_tag, "FailedList"),
                    *("Everybody's last calls that did not finish.", *_ADMIN),
                ),
                "parameters": [_limit(), owner],
            }
        },
    }


def _of_sums() -> list[dict[str, Any]]:
    time = {"type": "integer", "minimum": 0}
    width = {"enum": list(WIDTHS), "default": "1d"}
    groups = {"type": "array", "items": {"enum": list(GROUPS)}}
    limit = {"type": "integer", "minimum": 1, "maximum": max(MOST_LISTED.values())}
    return [
        query("start_time", time, "Unix seconds; without it, the month begins it (UTC). Whole hours count."),
        query("end_time", time, "Unix seconds, exclusive; without it, now."),
        query("bucket_width", width, "An hour, a day (UTC), or all in one."),
        query("group_by", groups, "A result for each; repeated or with commas."),
        query("models", _names(), "Only calls of these models, under their public names."),
        query("api_key_ids", _names(), "Only calls of these keys."),
        query("limit", limit, "Buckets of a page: 1 to 168 hours (24) or 366 days (31)."),
        query("page", {"type": "string"}, "The `next_page` of the page before."),
    ]


def _limit() -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 1, "maximum": MOST_FAILED_LISTED, "default": FAILED_LISTED}
    return query("limit", schema, "How many calls at most.")


def _names() -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "maxItems": 100}
