"""Errors as clients see them: OpenAI's shape, for bodies and for events."""

from __future__ import annotations

import msgspec

from scibox.core.errors import SciBoxError

from . import sse


def render(error: SciBoxError) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}`."""
    return msgspec.json.encode(
        {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
    )


def event(error: SciBoxError) -> bytes:
    """The same as the last event of a stream; no `[DONE]` follows it."""
    return sse.render(render(error))
