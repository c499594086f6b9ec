"""Answers as ASGI messages: JSON, errors in OpenAI's shape, streams of events with heartbeats."""

from __future__ import annotations

from starlette.types import Scope

from scibox.core.admission import Grant, Place
from scibox.core.errors import SciBoxError
from scibox.core.streams import Course, Misstep, ending_of
from scibox.core.types import Ending
from scibox.wire import sse, waiting
from scibox.wire.face import Asked, Face

from .incoming import Headers, Incoming

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx in front must not hold events back
]


def request_id(scope: Scope) -> str:
    """The id that `http.front.Front` gave this request."""
    return str(scope["state"]["request_id"])


async def send_error(incoming: Incoming, error: SciBoxError, face: Face, headers: Headers = ()) -> None:
    """An error as a whole answer in the face's words, with what a client needs to try again."""
    body = face.error(error, incoming.request_id)
    await incoming.answer(error.status, body, [*error_headers(error), *headers])


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

    Until then an error can still be a plain HTTP error; after it, it is the last event. Comments never wait:
    a client that is slow misses them.
    """

    def __init__(self, incoming: Incoming, heartbeat_s: float, face: Face, asked: Asked) -> None:
        super().__init__()
        self.course = Course()
        self._incoming = incoming
        self._face = face
        self._asked = asked
        self._heartbeat_s = heartbeat_s
        self._loop = incoming.loop
        self._wrote_at = self._loop.time()
        self._beat = self._loop.call_later(heartbeat_s, self._on_time)

    @property
    def has_begun(self) -> bool:
        """Whether the status has left."""
        return self._incoming.response_started

    def queued(self, place: Place) -> None:
        """It waits: told in a comment."""
        if not self.has_begun:
            self.headers = waiting.placed_headers(place)
        self._comment(waiting.comment(place))

    def put(self, data: bytes, headers: Headers = ()) -> None:
        """Whole events, as they are, now; `headers` leave with the first of them."""
        if not self._incoming.response_started:
            self.course.begin()
            self._incoming.begin([*_STREAM_HEADERS, *self.headers, *headers])
        self._incoming.put(data)
        self._wrote_at = self._loop.time()

    async def fail(self, error: SciBoxError) -> None:
        """End with an error: of HTTP where nothing has left yet, else as an event without `[DONE]`."""
        self.course.end(ending_of(error)[0])
        if not self.has_begun:
            await send_error(self._incoming, error, self._face, self.headers)
            return
        await self._incoming.room()
        self._incoming.put(self._asked.reply.error_event(error))
        self._incoming.end()

    def finish(self) -> None:
        """The last event has been put: the answer is whole."""
        self.course.end(Ending.FINISHED)

    def end(self) -> None:
        """End after the last event; an answer that is not whole never ends so."""
        if not self.course.is_whole:
            raise Misstep("a stream ends that has not finished")
        self._incoming.end()

    def close(self) -> None:
        """Say nothing any more."""
        self._beat.cancel()

    def _comment(self, data: bytes) -> None:
        if not self._incoming.is_slow:
            self.put(data)

    def _on_time(self) -> None:
        """Where nothing else has come for so long: that we are not dead."""
        silent_s = self._loop.time() - self._wrote_at
        if silent_s >= self._heartbeat_s:
            self._comment(sse.HEARTBEAT)
            silent_s = 0.0
        self._beat = self._loop.call_later(self._heartbeat_s - silent_s, self._on_time)
