"""U+FFFD never shows in an answer: one that is cut inside a character ends before it.

llama.cpp ends such an answer with the replacement character, and gives it as the text of LLM tokens that
are parts of characters. In JSON it stands inside strings only, so it can be taken out of the bytes.
"""

from __future__ import annotations

import re

_RAW = "\ufffd".encode()
# After an even number of backslashes: `\\ufffd` is a backslash and five letters. Those of JSON inside JSON
# (the arguments of a tool call) have one more level and stay.
_ESCAPED = re.compile(rb"(?<!\\)((?:\\\\)*)\\u[fF]{3}[dD]")


class Clean:
    """The filter; costs one look at an event that is plain ASCII."""

    def event(self, data: bytes) -> list[bytes]:
        """The event without it."""
        return [_without(data)]

    def whole(self, body: bytes) -> bytes:
        """The body without it."""
        return _without(body)


def _without(data: bytes) -> bytes:
    if not data.isascii() and _RAW in data:
        data = data.replace(_RAW, b"")
    if b"\\" in data and b"\\u" in data:
        data = _ESCAPED.sub(rb"\1", data)
    return data
