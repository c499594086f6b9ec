"""Answers as ASGI messages: JSON, errors in OpenAI's shape, streams of events with heartbeats."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from starlette.types import Scope, Send

from scibox.core.admission import Grant, Place
from scibox.core.errors import SciBoxError
from scibox.wire import sse, waiting
from scibox.wire.face import Asked, Face

Headers = Iterable[tuple[bytes, bytes]]

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx in front must not hold events back
]


def request_id(scope: Scope) -> str:
    """The id that `http.front.Front` gave this request."""
    return str(scope["state"]["request_id"])


async def send_json(send: Send, status: int, body: bytes, headers: Headers = ()) -> None:
    """A whole JSON answer."""
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})


async def send_error(
    send: Send, error: SciBoxError, face: Face, request_id: str, headers: Headers = ()
) -> None:
    """An error as a whole answer in the face's words, with what a client needs to try again."""
    body = face.error(error, request_id)
    await send_json(send, error.status, body, [*error_headers(error), *headers])


def error_headers(error: SciBoxError) -> list[tuple[bytes, bytes]]:
    """`Retry-After` where trying again helps (RFC 9110, 10.2.3), `WWW-Authenticate` with 401 (11.6.1)."""
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    if error.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


class Head:
    """Hears of a call's turn: the headers that its answer has because of it; empty until it has its turn."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def queued(self, place: Place) -> None:
        """It waits; a whole answer says so when it has come."""

    def admitted(self, grant: Grant) -> None:
        """It starts."""
        self.headers = waiting.granted_headers(grant)


class EventStream(Head):
    """A streamed answer. The status leaves with the first event, comment or heartbeat, not before.

    Until then an error can still be a plain HTTP error; after it, it is the last event.
    """

    def __init__(self, send: Send, heartbeat_s: float, face: Face, asked: Asked) -> None:
        super().__init__()
        self._send = send
        self._face = face
        self._asked = asked
        self._heartbeat_s = heartbeat_s
        self._lock = asyncio.Lock()
        self._has_begun = False
        self._wrote_at = asyncio.get_running_loop().time()
        self._place: Place | None = None
        self._is_placed = asyncio.Event()

    @property
    def has_begun(self) -> bool:
        """Whether the status has left."""
        return self._has_begun

    def queued(self, place: Place) -> None:
        """It waits: told in a comment."""
        if not self._has_begun:
            self.headers = waiting.placed_headers(place)
        self._place = place
        self._is_placed.set()

    def admitted(self, grant: Grant) -> None:
        """It starts: nothing is told of its place any more."""
        super().admitted(grant)
        self._place = None

    async def write(self, data: bytes, headers: Headers = ()) -> None:
        """Whole events, as they are; `headers` leave with the first of them."""
        if not data:
            return
        async with self._lock:
            if not self._has_begun:
                self._has_begun = True
                start = {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [*_STREAM_HEADERS, *self.headers, *headers],
                }
                await self._send(start)
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._wrote_at = asyncio.get_running_loop().time()

    async def fail(self, error: SciBoxError) -> None:
        """End with an error: of HTTP where nothing has left yet, else as an event without `[DONE]`."""
        async with self._lock:
            if not self._has_begun:
                self._has_begun = True
                await send_error(self._send, error, self._face, self._asked.call.request_id, self.headers)
                return
            await self._send({"type": "http.response.body", "body": self._asked.reply.error_event(error)})

    async def end(self) -> None:
        """End after the last event."""
        await self._send({"type": "http.response.body", "body": b""})

    async def beat(self) -> None:
        """Comments, for ever: where the call stands; and while nothing else comes, that we are not dead."""
        while True:
            silent_s = asyncio.get_running_loop().time() - self._wrote_at
            if self._is_placed.is_set():
                self._is_placed.clear()
                if self._place is not None:
                    await self.write(waiting.comment(self._place))
            elif silent_s >= self._heartbeat_s:
                await self.write(sse.HEARTBEAT)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._heartbeat_s - silent_s):
                        await self._is_placed.wait()
