"""One HTTP/1.1 connection to a replica, one exchange at a time (RFC 9112), parsed by httptools.

Our own because the client library decides more than the server: docs/decisions.md has the figures. It
stops reading when the caller does not keep up, and closing it in the middle of an answer is how a replica
learns that nobody waits any more.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import cast

import httptools

from scibox.core.errors import UpstreamBroken, UpstreamLost, UpstreamTimeout

HIGH_WATER_BYTES = 64 * 1024
LARGE_BYTES = 64 * 1024
MAX_HEAD_BYTES = 256 * 1024  # of status and headers; real ones have a few hundred
_CUT = "The model server closed the connection before its answer was whole; try again."
LATE = "The model server took too long; try again, or ask for a shorter answer."
_GARBAGE = (
    "The model server answered with something that is not HTTP; tell the operator to check its address."
)


class Connection(asyncio.Protocol):
    """Sends one request, hands out its answer piece by piece, and may then be used again.

    Whoever waits says until when, in the loop's time: `UpstreamTimeout`. One timer serves all waits, since
    most of them are over in time: it looks again when the wait of that moment would be too long.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._by = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.has_answered = False  # any byte of an answer has come
        self.is_complete = False
        self.keeps_alive = False
        self._has_headers = False
        self._head_bytes = 0
        self._pieces: deque[bytes] = deque()
        self._held_bytes = 0
        self._is_paused = False
        self._failure: str | None = None

    # what the client calls

    def send(self, head: bytes, body: bytes) -> None:
        """Begin an exchange."""
        assert self._transport is not None
        self._reset()
        if len(body) > LARGE_BYTES:
            self._transport.write(head)
            self._transport.write(body)
        else:  # one system call less, for one more copy
            self._transport.write(head + body)

    async def read_head(self, by: float) -> None:
        """Wait for status and headers."""
        while not self._has_headers:
            await self._wait(by)

    async def read(self, by: float) -> bytes:
        """The next bytes of the body; empty at its end. Raises `UpstreamBroken` when it is cut."""
        while not self._pieces:
            if self.is_complete:
                return b""
            await self._wait(by)
        piece = self._pieces.popleft() if len(self._pieces) == 1 else self._take_all()
        self._held_bytes -= len(piece)
        if self._is_paused and self._held_bytes < HIGH_WATER_BYTES // 2 and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return piece

    def close(self) -> None:
        """Drop the connection at once; the replica sees it."""
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    def _take_all(self) -> bytes:
        joined = b"".join(self._pieces)
        self._pieces.clear()
        return joined

    async def _wait(self, by: float) -> None:
        if self._failure is not None:
            lost = UpstreamBroken if self.has_answered else UpstreamLost
            raise lost(self._failure, code="upstream_broke_off")
        self._waiter = self._loop.create_future()
        self._by = by
        if self._timer is None or self._timer.when() > by:
            self._set_timer()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._by, self._on_time) if self._by < math.inf else None

    def _on_time(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if self._loop.time() >= self._by:
            self._waiter.set_exception(UpstreamTimeout(LATE, retry_after_s=5))
        else:
            self._set_timer()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, reason: str) -> None:
        if not self.is_complete and self._failure is None:
            self._failure = reason
        self._wake()

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        self.has_answered = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(_GARBAGE)
            self.close()
            return
        if not self._has_headers:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._fail(_GARBAGE)
                self.close()
        if self._held_bytes > HIGH_WATER_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._has_headers and exc is None and self._ends_with_connection():
            self.is_complete = True
        self._fail(_CUT)

    def _ends_with_connection(self) -> bool:
        """RFC 9112 section 6.3: neither a length nor chunks, so the close is the end."""
        return b"content-length" not in self.headers and b"transfer-encoding" not in self.headers

    # what the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._has_headers = True

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._held_bytes += len(body)

    def on_message_complete(self) -> None:
        # should_keep_alive() is right only here (docs/decisions.md)
        self.keeps_alive = self._parser.should_keep_alive()
        self.is_complete = True
