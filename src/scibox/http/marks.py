"""What the answer to every request carries: its id, its time, the client's own id, what its page may read."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping

from .cors import Cors, Headers

CLOSE = (b"connection", b"close")
DRAWN_AT_ONCE = 64  # ids: the kernel is asked once for so many
_chance: list[str] = []
Fields = Mapping[bytes, bytes]  # headers by their lower-case names; of several of one name, the first

# A client's own id goes back as it came, where it is one: OpenAI takes up to 512 ASCII characters.
_OWN_ID = re.compile(rb"[A-Za-z0-9._:/=+@-]{1,128}")


class Marks:
    """Of one request, made when its head has come."""

    __slots__ = ("_began_at", "_cors", "_is_draining", "awaits_continue", "fields", "request_id")

    def __init__(self, fields: Fields, cors: Cors, is_draining: Callable[[], bool]) -> None:
        self.fields = fields
        self.request_id = new_id()
        # A client that was not told to go on may leave its body out, and then nobody knows where it ends.
        self.awaits_continue = fields.get(b"expect", b"").lower() == b"100-continue"
        self._began_at = time.perf_counter()
        self._cors = cors
        self._is_draining = is_draining

    def headers(self) -> Headers:
        """What an answer that leaves now carries."""
        headers = self.own_headers()
        if origin := self.fields.get(b"origin"):
            headers += self._cors.answer(origin.decode("latin-1"))
        return headers

    def own_headers(self) -> Headers:
        """The same without what pages of other origins need."""
        fields = self.fields
        headers = [
            (b"x-request-id", self.request_id.encode()),
            (b"openai-processing-ms", b"%d" % ((time.perf_counter() - self._began_at) * 1000)),
        ]
        own_id = fields.get(b"x-client-request-id") or fields.get(b"x-request-id")
        if own_id and _OWN_ID.fullmatch(own_id):
            headers.append((b"x-client-request-id", own_id))
        if self.awaits_continue or self._is_draining():  # a kept connection would only lead to a refusal
            headers.append(CLOSE)
        return headers


def fields_of(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    """The headers of a request by name."""
    return dict(reversed(list(headers)))


def new_id() -> str:
    """A request id: `req_` and 96 random bits."""
    if not _chance:
        drawn = os.urandom(12 * DRAWN_AT_ONCE).hex()
        _chance.extend(drawn[at : at + 24] for at in range(0, len(drawn), 24))
    return f"req_{_chance.pop()}"
