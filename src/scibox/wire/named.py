"""The answer of a model that stands in for another: its public name, whatever its server calls it."""

from __future__ import annotations

import re

import msgspec

# A quote inside a string is escaped: this can only be a field, and answers have no other of that name.
_MODEL = re.compile(rb'"model"\s*:\s*(?:"(?:[^"\\]|\\.)*"|null)')


class Named:
    """A `Filter` (wire/answers.py)."""

    def __init__(self, model: str) -> None:
        self._field = b'"model":' + msgspec.json.encode(model)

    def event(self, data: bytes) -> list[bytes]:
        """The event, with that name."""
        return [self.whole(data)]

    def whole(self, body: bytes) -> bytes:
        """The body, with that name."""
        named, found = _MODEL.subn(lambda _: self._field, body, count=1)
        if found:
            return named
        return body.replace(b"{", b"{" + self._field + b",", 1)  # no answer is empty
