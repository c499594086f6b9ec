"""The main process's end of the intercom: it answers what workers ask, and knows when one has gone."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

from msgspec import Raw

from scibox.core.errors import SciBoxError
from scibox.core.events import Emit, Notice

from .frames import Answer, Ask, Drop, Failed, Message, NoFrame, Note, Splitter, Tell, body, fault, frame

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED
Asked = Callable[["Caller", "Turn"], Awaitable[object]]
Told = Callable[["Caller", Raw], None]
Gone = Callable[["Caller"], None]


class Dropped(SciBoxError):
    """Who asked does not wait for the answer any more."""

    code = "dropped"


class Turn:
    """One thing that was asked, while it is being answered."""

    def __init__(self, caller: Caller, ask: Ask) -> None:
        self._caller = caller
        self._ref = ask.ref
        self.body = ask.body

    def note(self, what: object) -> None:
        """Tell the asker how it stands."""
        self._caller.send(Note(self._ref, Raw(body(what))))


class Hub:
    """Serves one socket. Handlers are registered before it starts; those of `asked` may wait."""

    def __init__(self, emit: Emit) -> None:
        self.asked: dict[str, Asked] = {}
        self.told: dict[str, Told] = {}
        self.gone: list[Gone] = []
        self.callers: set[Caller] = set()
        self._emit = emit
        self._server: asyncio.Server | None = None

    async def start(self, path: Path) -> None:
        """Listen on the socket, which must be in a folder of the user's own."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Caller(self), str(path))

    def stop(self) -> None:
        """Hang up."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for caller in list(self.callers):
            caller.hang_up()

    def tell_all(self, what: str, about: object = None) -> None:
        """Something that every worker should know."""
        message = Tell(what, Raw(body(about)))
        for caller in self.callers:
            caller.send(message)

    def warn(self, message: str) -> None:
        """Something that an operator should know."""
        self._emit(Notice(message, is_warning=True))


class Caller(asyncio.Protocol):
    """The connection of one worker. `pid` is its process, as the kernel knows it."""

    def __init__(self, hub: Hub) -> None:
        self.pid = 0
        self._hub = hub
        self._splitter = Splitter()
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A worker has called."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._hub.callers.add(self)
        own = self._transport.get_extra_info("socket")
        credentials = own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid = _CREDENTIALS.unpack(credentials)[0]

    def data_received(self, data: bytes) -> None:
        """Do what these messages say, in their order."""
        try:
            for message in self._splitter.feed(data):
                self._take(message)
        except NoFrame as error:
            self._hub.warn(f"the worker {self.pid} does not speak the intercom's language: {error}")
            self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker is gone, or has hung up: nothing of its is wanted any more."""
        self._hub.callers.discard(self)
        self._transport = None
        for task in self._answering.values():
            task.cancel()
        for handler in self._hub.gone:
            handler(self)

    def send(self, message: Message) -> None:
        """Never waits; lost when the worker is gone."""
        if self._transport is not None:
            self._transport.write(frame(message))

    def hang_up(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def _take(self, message: Message) -> None:
        match message:
            case Ask():
                task = asyncio.create_task(self._answer(message))
                self._answering[message.ref] = task
                task.add_done_callback(lambda _: self._answering.pop(message.ref, None))
            case Drop():
                if (running := self._answering.get(message.ref)) is not None:
                    running.cancel()
            case Tell():
                if (handler := self._hub.told.get(message.what)) is not None:
                    self._tell(handler, message)
            case _:
                raise NoFrame(f"{type(message).__name__} from a worker")

    def _tell(self, handler: Told, message: Tell) -> None:
        try:
            handler(self, message.body)
        except Exception as error:  # one message must not cost a worker's connection
            self._hub.warn(f"a message '{message.what}' of the worker {self.pid} failed: {error!r}")

    async def _answer(self, ask: Ask) -> None:
        """Exactly one answer, whatever happens."""
        try:
            handler = self._hub.asked.get(ask.what)
            if handler is None:
                raise SciBoxError(f"The main process knows nothing of '{ask.what}'.")
            self.send(Answer(ask.ref, Raw(body(await handler(self, Turn(self, ask))))))
        except SciBoxError as error:
            self.send(Failed(ask.ref, fault(error)))
        except asyncio.CancelledError:
            self.send(Failed(ask.ref, fault(Dropped("Dropped."))))
            raise
        except Exception as error:  # of ours: the worker's call fails, the connection goes on
            self._hub.warn(f"'{ask.what}' of the worker {self.pid} failed: {error!r}")
            self.send(Failed(ask.ref, fault(SciBoxError("The service failed; try again."))))
