"""A request that asks a model, on its connection: what it brings, and the way of its answer.

No ASGI between them: this is the way of every call, and each layer would cost as much as a whole proxy.
The connection (`protocol.py`) says what comes of the body and when the client leaves: then the one task of
the call is cancelled. An answer leaves in few pieces: a whole one with its head, a chunk with its frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from .marks import CLOSE, Marks

Headers = Iterable[tuple[bytes, bytes]]
Handle = Callable[["Incoming"], Coroutine[Any, Any, None]]  # Any: of a coroutine, what asyncio sends into it

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Nobody:
    """In place of the event that an ASGI application waits for."""

    def set(self) -> None:
        """Nobody waits."""


class Incoming(RequestResponseCycle):
    """One request and its answer; beside uvicorn's own, whose names a connection uses for both.

    `path` is in the form in which routes are written, `target` as the client wrote it. `headers` has them by
    name, `pairs` has all.
    """

    message_event = _Nobody()  # type: ignore[assignment]

    def __init__(
        self,
        path: str,
        target: bytes,
        pairs: list[tuple[bytes, bytes]],
        marks: Marks,
        *,
        transport: asyncio.Transport,
        flow: FlowControl,
        default_headers: Headers,
        loop: asyncio.AbstractEventLoop,
        keep_alive: bool,
        on_response: Callable[[], None],
    ) -> None:
        self.path = path
        self.target = target
        self.pairs = pairs  # every header
        self.marks = marks
        self.headers = marks.fields
        self.transport = transport
        self.flow = flow
        self.loop = loop
        self.keep_alive = keep_alive
        self.on_response = on_response
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self._default_headers = default_headers
        self._task: asyncio.Task[None] | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._limit_bytes: int | None = None  # of the body; None: nobody reads it yet
        self._is_whole = False
        self._reader: asyncio.Future[None] | None = None

    # what the connection says

    def start(self, handle: Handle, tasks: set[asyncio.Task[None]]) -> None:
        """Its turn has come: answer it, in a task that `tasks` holds."""
        task = self._task = self.loop.create_task(handle(self))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def feed(self, piece: bytes) -> None:
        """A piece of the body."""
        if self.response_complete:
            return
        self._pieces.append(piece)
        self._size += len(piece)
        if self._limit_bytes is None:
            if self._size > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
        elif self._size > self._limit_bytes:
            self._wake()

    def finish(self) -> None:
        """The body is whole."""
        self._is_whole = True
        self._wake()

    def leave(self) -> None:
        """The client is not there any more."""
        self.disconnected = True
        if self._task is not None and not self.response_complete:
            self._task.cancel()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # what it brings

    @property
    def task(self) -> asyncio.Task[None]:
        """The task that answers it."""
        assert self._task is not None
        return self._task

    @property
    def request_id(self) -> str:
        """Its id."""
        return self.marks.request_id

    async def read(self, limit_bytes: int) -> bytes | None:
        """The whole body; None as soon as it is larger than that."""
        if self.marks.awaits_continue:
            self.marks.awaits_continue = False
            if not self.transport.is_closing():
                self.transport.write(_CONTINUE)
        self._limit_bytes = limit_bytes
        self.flow.resume_reading()
        while not self._is_whole and self._size <= limit_bytes:
            self._reader = self.loop.create_future()
            await self._reader
        if self._size > limit_bytes:
            return None
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    # its answer

    @property
    def is_slow(self) -> bool:
        """Whether the client does not read what it has been sent."""
        return self.flow.write_paused and not self.disconnected

    async def room(self) -> None:
        """Wait until a client that is slow has read on."""
        if self.is_slow:
            await self.flow.drain()

    async def answer(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """A whole answer in JSON."""
        await self.room()
        framing = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        self._write(self._head(status, headers, framing) + body)
        self._complete()

    def begin(self, headers: Headers) -> None:
        """The head of a streamed answer."""
        self._write(self._head(200, headers, b"transfer-encoding: chunked\r\n"))

    def put(self, data: bytes) -> None:
        """A piece of a streamed answer, now: see `room`."""
        if not self.disconnected:
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """The end of a streamed answer."""
        self._write(b"0\r\n\r\n")
        self._complete()

    def break_off(self) -> None:
        """End an answer that cannot be made whole, so that the client sees that it is not."""
        if not self.response_complete and not self.disconnected:
            self.transport.close()

    def _write(self, data: bytes) -> None:
        if not self.disconnected:
            self.transport.write(data)

    def _head(self, status: int, headers: Headers, framing: bytes) -> bytes:
        self.response_started = True
        told = [*self._default_headers, *headers, *self.marks.headers()]
        values = b" ".join([value for _, value in told])
        if b"\n" in values or b"\r" in values:
            raise ValueError("a header would be several lines")
        if CLOSE in told:
            self.keep_alive = False
        elif not self.keep_alive:
            told.append(CLOSE)
        pieces = [STATUS_LINE[status], framing]
        for name, value in told:
            pieces += (name, b": ", value, b"\r\n")
        pieces.append(b"\r\n")
        return b"".join(pieces)

    def _complete(self) -> None:
        self.response_complete = True
        if self.disconnected:
            return
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
