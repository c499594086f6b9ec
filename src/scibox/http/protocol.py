"""HTTP/1.1 on one connection: uvicorn's, but strict about what is a request and impatient with slow clients.

A request that asks a model is not asked by ASGI but as it is (`incoming.py`); everything else is uvicorn's.

RFC 9112 (sections 2.2, 3.2, 5, 6.3, 11.2) wherever a lenient reading could make a proxy in front of us and
us disagree about where a request ends: such a request is refused with 400 and its connection closed, and
nothing after it is read. No timers: once a second `sweep` looks at every connection.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from scibox.core.errors import HeadTooLarge, InvalidRequest, RequestTimeout, SciBoxError
from scibox.wire import errors

from .front import Entrance, Front
from .incoming import Handle, Incoming
from .marks import fields_of, new_id

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200
MAX_WAITING = 16  # pipelined requests behind the one that is being answered
BODY_BYTES_PER_S = 256  # the slowest modem that anybody uses brings ten times that
PAUSE_S = 1.0  # a sweep that is later than this was held up: the process was stopped, or the machine slept
LINGER_S = 2.0  # a client that still sends gets this long to read why it was refused
LINGER_BYTES = 64 * 2**20  # and may send this much more

_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_MALFORMED = "This is not valid HTTP/1.1; check the client."


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a client may take: for a head, for each stretch of a body, and between requests."""

    header_s: float = 10.0
    body_s: float = 30.0
    keep_alive_s: float = 75.0


class Settings(uvicorn.Config):
    """uvicorn's settings with ours."""

    def __init__(
        self, entrance: Entrance | Front, *, patience: Patience, **more: Any
    ) -> None:  # Any: uvicorn's own
        super().__init__(entrance, http=Protocol, **more)
        self.entrance = entrance
        self.patience = patience


class Phase(Enum):
    """What a connection is reading."""

    IDLE = "nothing"
    HEAD = "a request's head"
    BODY = "a request's body"


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Settings,
        server_state: ServerState,
        app_state: dict[str, Any],  # Any: uvicorn's own
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._settings = config
        self._answering: RequestResponseCycle | None = None
        self._phase = Phase.IDLE
        self._since = self.loop.time()  # of the phase; of the stretch of a body; of the end
        self._received = 0  # bytes in the same time
        self._unused = 0  # bytes of a body's framing since anything of the body itself came
        self._is_ending = False  # what comes now is thrown away
        self._offers_upgrade = False
        self._error: SciBoxError | None = None

    # what the event loop calls

    def data_received(self, data: bytes) -> None:
        """Read on; whatever is no HTTP ends the connection."""
        self._received += len(data)
        if self._is_ending:
            if self._received > LINGER_BYTES:
                self.transport.abort()
            return
        self._unused += len(data)
        try:
            while data:
                data = self._feed(data)
        except httptools.HttpParserError:
            self._refuse(self._error or InvalidRequest(_MALFORMED, code="malformed_http"))
        else:
            self._check_sizes()

    def _feed(self, data: bytes) -> bytes:
        """Parse; returns what is to be parsed next.

        An upgrade may be ignored (RFC 9110, 7.8), and Java's client offers HTTP/2 with every first request.
        The parser would skip such a request's body, so a new one reads its head again without the offer.
        """
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._offers_upgrade = False
            method = self.parser.get_method()
            self.parser = httptools.HttpRequestParser(self)
            return _head(method, self.url, self.headers) + data[upgrade.args[0] :]
        return b""

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left; every request that came over this connection learns of it."""
        for cycle in (self._answering, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                _lose(cycle)
        self.pipeline.clear()
        super().connection_lost(exc)

    # what the parser calls

    def on_message_begin(self) -> None:
        """A request begins."""
        if len(self.pipeline) >= MAX_WAITING:
            raise _Malformed
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._enter(Phase.HEAD)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; a field in a trailer is none (RFC 9110, 6.5.1) and must not become one."""
        if self._phase is Phase.HEAD:
            name = name.lower()
            self.headers.append((name, value))
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        """A request's head is whole: now it is answered."""
        version, told = self.parser.get_http_version(), b" ".join(itertools.chain.from_iterable(self.headers))
        if len(self.headers) > MAX_HEADERS or len(self.url) + len(told) > MAX_HEAD_BYTES:
            self._error = _too_large()
            raise _Malformed
        if _BAD_VALUE.search(told) or not _is_sound(version, self.url, self.headers):
            raise _Malformed
        if self.parser.should_upgrade():
            self._offers_upgrade = True
            return
        found = None
        if self.parser.get_method() == b"POST":
            found = self._settings.entrance.front.find(self.url)
        if found:
            self._ask(*found)
        else:
            self._ask_application()
        self._enter(Phase.BODY)
        if self.pipeline:
            self.flow.resume_reading()  # to see the client leave; `MAX_WAITING` bounds what can come

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unused = 0
        if isinstance(self.cycle, Incoming):
            self.cycle.feed(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        if self._offers_upgrade:
            return
        if isinstance(self.cycle, Incoming):
            self.cycle.finish()
        else:
            super().on_message_complete()
        self._enter(Phase.IDLE)

    def on_response_complete(self) -> None:
        """An answer has left; uvicorn would set a timer here, whose work `sweep` does."""
        if self.transport.is_closing():
            return
        if self._is_ending:
            self._linger()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if self._phase is Phase.IDLE:
            self._enter(Phase.IDLE)

    # who answers

    def _ask(self, path: str, handle: Handle) -> None:
        """A model is asked."""
        is_new = self.parser.get_http_version() == "1.1"
        marks = self._settings.entrance.front.marks(fields_of(self.headers))
        marks.awaits_continue = marks.awaits_continue and is_new  # RFC 9110, 10.1.1
        was_answered = not self._is_busy
        self.cycle = Incoming(
            path,
            self.url,
            self.headers,
            marks,
            transport=self.transport,
            flow=self.flow,
            default_headers=self.server_state.default_headers,
            loop=self.loop,
            keep_alive=is_new and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if was_answered:
            self._start_asgi_task(self.cycle, handle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, handle))  # type: ignore[arg-type] # see `_start_asgi_task`

    def _ask_application(self) -> None:
        """Something else is asked: by ASGI, as uvicorn does it."""
        url, headers = self.url, self.headers
        expects = self.expect_100_continue and self.parser.get_http_version() != "1.0"  # RFC 9110, 10.1.1
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # Any: uvicorn's own
        """Its turn has come; `app` is a `Handle` where a model is asked."""
        self._answering = cycle
        if isinstance(cycle, Incoming):
            cycle.start(app, self.tasks)
        else:
            super()._start_asgi_task(cycle, app)

    # patience

    def sweep(self, now: float) -> None:
        """Close the connection if its client has been slow for too long."""
        waited_s = now - self._since
        if self._is_ending:
            if waited_s > LINGER_S and not self._is_busy:
                self.transport.abort()
        elif self._phase is Phase.BODY:
            self._sweep_body(now, waited_s)
        elif self._is_busy:
            return  # it is the client that waits
        elif self._phase is Phase.HEAD:
            if waited_s > self._patience.header_s:
                self._refuse(RequestTimeout("The request's headers took too long; send them at once."))
        elif waited_s > (self._patience.keep_alive_s if self._answering else self._patience.header_s):
            self.transport.close()

    def _sweep_body(self, now: float, waited_s: float) -> None:
        if self.flow.read_paused:  # what is slow is our side
            self._since, self._received = now, 0
        if waited_s <= self._patience.body_s:
            return
        if self._received < BODY_BYTES_PER_S * self._patience.body_s or self.cycle.response_complete:
            self._refuse(RequestTimeout("The request's body comes too slowly; send it faster."))
        self._since, self._received = now, 0

    @property
    def _patience(self) -> Patience:
        return self._settings.patience  # of now: a reload may have changed it

    def forgive(self, seconds: float) -> None:
        """Our own process stood still for so long: that was not the client's slowness."""
        self._since = min(self._since + seconds, self.loop.time())

    @property
    def _is_busy(self) -> bool:
        return self._answering is not None and not self._answering.response_complete

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._since = self.loop.time()
        self._received = self._unused = 0

    def _check_sizes(self) -> None:
        """A head, a trailer or chunk extensions without an end; the parser would collect them for ever."""
        if self._phase is Phase.HEAD and self._received > MAX_HEAD_BYTES:
            self._refuse(_too_large())
        elif self._phase is Phase.BODY:
            if self._unused > MAX_HEAD_BYTES:
                self._refuse(InvalidRequest(_MALFORMED, code="malformed_http"))
            elif self.cycle.response_complete and self._received > LINGER_BYTES:
                self._finish()

    # the end

    def _refuse(self, error: SciBoxError) -> None:
        """Answer what is no request, and close; where another answer is on its way, only close after it."""
        if self._is_busy:
            is_its_own = self.cycle is self._answering and self._phase is Phase.BODY
            if not is_its_own or self.cycle.response_started:
                self._finish()
                return
            _lose(self.cycle)
            self._answering = None
        elif self._phase is Phase.BODY:  # it has its answer already
            self._finish()
            return
        if not self.transport.is_closing():
            self.transport.write(_answer(error))
        self._finish()

    def _finish(self) -> None:
        """Read no request any more; close when the answer that is on its way has left."""
        self._is_ending = True
        self.pipeline.clear()
        if not self._is_busy and not self.transport.is_closing():
            self._linger()

    def _linger(self) -> None:
        """Close our side only: a client that still sends would get a reset, and never see its answer."""
        self._since, self._received = self.loop.time(), 0
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()


def _lose(cycle: RequestResponseCycle) -> None:
    """Nobody waits for this answer any more."""
    if isinstance(cycle, Incoming):
        cycle.leave()
    else:
        cycle.disconnected = True
        cycle.message_event.set()


class _Malformed(Exception):
    """Ends the parser's work."""


class Sweep:
    """Looks at every connection, about once a second."""

    def __init__(self) -> None:
        self._swept_at: float | None = None

    def __call__(
        self, connections: Iterable[Any]
    ) -> None:  # Any: uvicorn's set of all kinds of its protocols
        """Close those whose clients have been slow for too long; a pause of our own process is not theirs."""
        now = asyncio.get_running_loop().time()
        late_s = now - self._swept_at - 1.0 if self._swept_at is not None else 0.0
        self._swept_at = now
        for connection in list(connections):
            if late_s > PAUSE_S:
                connection.forgive(late_s)
            if not connection.transport.is_closing():
                connection.sweep(now)


def _is_sound(version: str, url: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether everybody who reads this head finds the same request in it."""
    if version not in {"1.0", "1.1"}:
        return False
    hosts = [value for name, value in headers if name == b"host"]
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        return False
    if len(lengths) + len(codings) > 1 or (lengths and not lengths[0].isdigit()):
        return False
    if codings and (version == "1.0" or codings[0].lower() != b"chunked"):
        return False
    return url.startswith(b"/") or _names(url, hosts)


def _names(url: bytes, hosts: list[bytes]) -> bool:
    """Whether a whole address as the target (RFC 9112, 3.2.2) names the same server as `Host` does."""
    scheme, found, rest = url.partition(b"://")
    authority = rest.partition(b"/")[0].lower()
    return bool(found) and scheme.lower() in {b"http", b"https"} and [authority] == [h.lower() for h in hosts]


def _head(method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """A request's head without an offer to upgrade."""
    lines = [method + b" " + url + b" HTTP/1.1"]
    for name, value in headers:
        if name == b"connection":
            lines += [b"connection: close"] if b"close" in value.lower() else []
        elif name != b"upgrade":
            lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"", b""])


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"The headers are larger than {MAX_HEAD_BYTES} bytes or more than {MAX_HEADERS}; send less of them."
    )


def _answer(error: SciBoxError) -> bytes:
    body = errors.render(error)
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nx-request-id: {new_id()}\r\nopenai-processing-ms: 0\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body
