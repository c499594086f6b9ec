"""Answers as ASGI messages: JSON, errors in OpenAI's shape, streams of events with heartbeats."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from starlette.types import Scope, Send

from scibox.core.errors import SciBoxError
from scibox.wire import sse
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


async def send_error(send: Send, error: SciBoxError, face: Face, request_id: str) -> None:
    """An error as a whole answer in the face's words, with what a client needs to try again."""
    await send_json(send, error.status, face.error(error, request_id), error_headers(error))


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


class EventStream:
    """A streamed answer. The status leaves with the first event or the first heartbeat, not before.

    Until then an error can still be a plain HTTP error; after it, it is the last event.
    """

    def __init__(self, send: Send, heartbeat_s: float, face: Face, asked: Asked) -> None:
        self._send = send
        self._face = face
        self._asked = asked
        self._heartbeat_s = heartbeat_s
        self._lock = asyncio.Lock()
        self._has_begun = False
        self._wrote_at = asyncio.get_running_loop().time()

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
                    "headers": [*_STREAM_HEADERS, *headers],
                }
                await self._send(start)
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._wrote_at = asyncio.get_running_loop().time()

    async def fail(self, error: SciBoxError) -> None:
        """End with an error: of HTTP where nothing has left yet, else as an event without `[DONE]`."""
        async with self._lock:
            if not self._has_begun:
                self._has_begun = True
                await send_error(self._send, error, self._face, self._asked.call.request_id)
                return
            await self._send({"type": "http.response.body", "body": self._asked.reply.error_event(error)})

    async def end(self) -> None:
        """End after the last event."""
        await self._send({"type": "http.response.body", "body": b""})

    async def beat(self) -> None:
        """Comments while nothing else comes, for ever: proxies and clients must not think us dead."""
        while True:
            silent_s = asyncio.get_running_loop().time() - self._wrote_at
            if silent_s >= self._heartbeat_s:
                await self.write(sse.HEARTBEAT)
                silent_s = 0.0
            await asyncio.sleep(self._heartbeat_s - silent_s)
