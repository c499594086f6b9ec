"""Cross-origin requests: which pages of other origins may use the API (WHATWG Fetch, section 3.2).

Credentials are never allowed: a page needs a key, as any other client does, and cookies mean nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Headers = list[tuple[bytes, bytes]]

# `*` would not do: it leaves out `authorization` (Fetch, 4.8, step 7).
_ASKED = re.compile(r"[a-zA-Z0-9!#$%&'*+.^_`|~, -]{1,4096}")
_USUAL = "authorization, content-type, x-api-key"
_MAX_AGE = b"7200"  # what Chrome keeps a preflight at most


@dataclass(frozen=True, slots=True)
class Cors:
    """The origins whose pages may use the API; `*` is all of them, none is none."""

    origins: Sequence[str]

    def answer(self, origin: str) -> Headers:
        """What an answer to a page of this origin carries; nothing where it may not read it."""
        allowed = self._allowed(origin)
        if not allowed:
            return []
        return [*allowed, (b"access-control-expose-headers", b"*")]

    def preflight(self, origin: str, methods: Iterable[str], asked_headers: str) -> Headers:
        """What the answer to a preflight carries; `asked_headers` is what the page wants to send."""
        allowed = self._allowed(origin)
        if not allowed:
            return []
        names = asked_headers if _ASKED.fullmatch(asked_headers) else _USUAL
        return [
            *allowed,
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-allow-headers", names.encode()),
            (b"access-control-max-age", _MAX_AGE),
        ]

    def _allowed(self, origin: str) -> Headers:
        if not self.origins or not origin:
            return []
        if "*" in self.origins:
            return [(b"access-control-allow-origin", b"*")]
        named = [(b"access-control-allow-origin", origin.encode())] if origin in self.origins else []
        return [*named, (b"vary", b"origin")]
