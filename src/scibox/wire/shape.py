"""Answers of remote servers in OpenAI's shape, where some of them leave out what clients read.

Looked for without decoding: an event costs one search, a whole answer has been read already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

# Calls that are numbered; vLLM writes `id` and `type` before the number.
_NUMBERED = re.compile(
    rb'"tool_calls"\s*:\s*(?:null|\[\s*(?:\]|\{(?:\s*"(?:id|type)"\s*:\s*(?:"[^"]*"|null)\s*,)*\s*"index"\s*:\s*\d))'
)

Json = dict[str, Any]  # Any: a decoded answer of a replica


class Shape:
    """A `Filter` (wire/answers.py): text is never null without calls, and calls are numbered."""

    def __init__(self) -> None:
        self._calls: dict[int, list[object]] = {}  # the ids of each choice's calls, in order

    def event(self, data: bytes) -> list[bytes]:
        """The event, its tool calls numbered."""
        if b'"tool_calls"' not in data or _NUMBERED.search(data):
            return [data]
        chunk: Json = msgspec.json.decode(data)
        for choice in chunk["choices"]:
            delta = choice.get("delta") or {}
            seen = self._calls.setdefault(choice.get("index", 0), [])
            for call in delta.get("tool_calls") or ():
                _number(call, seen)
        return [msgspec.json.encode(chunk)]

    def whole(self, body: bytes) -> bytes:
        """The body, each message with its role, and with text or calls."""
        answer: Json = msgspec.json.decode(body)
        changed = [_complete(choice["message"]) for choice in answer["choices"]]
        return msgspec.json.encode(answer) if any(changed) else body


def is_said(message: Mapping[str, Raw] | None) -> bool:
    """Whether a message has its role, and text: nearly always."""
    return (
        message is not None
        and "role" in message
        and "content" in message
        and bytes(message["content"]).startswith(b'"')
    )


def _number(call: Json, seen: list[object]) -> None:
    """A new id begins the next call; a piece without one belongs to the last."""
    if call.get("index") is not None:
        return
    made = call.get("id")
    if not seen or (made and made not in seen):
        seen.append(made)
    call["index"] = seen.index(made) if made in seen else len(seen) - 1


def _complete(message: Json) -> bool:
    """Add what is missing; whether anything was."""
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, list):  # parts
        text: str | None = "".join(part.get("text") or "" for part in content)
    else:
        text = content if content or calls else ""
    if "role" in message and "content" in message and content == text:
        return False
    message.setdefault("role", "assistant")
    message["content"] = text
    return True
