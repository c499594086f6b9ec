"""One connection to the server of the shared limits: orders leave at once, replies come in their order.

valkey-py's `Connection` opens it (address, TLS, login) and reads replies; its client on top, which sends one
order and waits for the reply, is not used: many takes are under way at a time, a settle waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any

import msgspec

from scibox.core.errors import OperatorError

Reply = list[Any]  # Any: what the script of each operation says, see shared.lua
Heard = Callable[[Reply], None]

_CONNECT_S = 1.0


class LineLost(Exception):
    """The server cannot be reached, or does not do what it should; the text says what happened."""


class Line:
    """An open connection. `on_end` hears once why it ended, after which no reply comes any more."""

    def __init__(self, connection: Any, prefix: str, on_end: Callable[[str], None]) -> None:
        self._connection = connection  # Any: valkey-py is an extra that may be missing
        self._prefix = prefix
        self._on_end = on_end
        self._sha = sha1(_script().encode(), usedforsecurity=False).hexdigest()
        self._heard: deque[Heard] = deque()
        self._outbox: list[bytes] = []
        self._has_mail = asyncio.Event()
        self._is_open = True
        self._tasks = [asyncio.create_task(self._live(part())) for part in (self._write, self._read)]

    @classmethod
    async def open(cls, url: str, prefix: str, on_end: Callable[[str], None]) -> Line:
        """Connect and teach the server the script, or `LineLost`."""
        connection = _connection(url)
        try:
            async with asyncio.timeout(_CONNECT_S):
                await connection.connect()
                await connection.send_command("SCRIPT LOAD", _script())
                await connection.read_response()
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if not isinstance(error, Exception):
                raise
            raise LineLost(_words(error)) from error
        return cls(connection, prefix, on_end)

    @property
    def is_quiet(self) -> bool:
        """Whether every order has been replied to."""
        return not self._heard

    def ask(self, operation: str, arguments: object, heard: Heard) -> None:
        """Send an order; `heard` gets its reply."""
        packed = msgspec.msgpack.encode(arguments)
        order = self._connection.pack_command("EVALSHA", self._sha, 1, self._prefix, operation, packed)
        self._outbox += order
        self._heard.append(heard)
        self._has_mail.set()

    async def call(self, operation: str, arguments: object, within_s: float) -> Reply:
        """Send an order and wait for its reply, or `LineLost`."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.ask(operation, arguments, lambda reply: None if answer.done() else answer.set_result(reply))
        waits: set[asyncio.Future[Any]] = {answer, *self._tasks}
        await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            self.close(f"no reply within {within_s:g} s")
            raise LineLost("the connection ended")
        return answer.result()

    def close(self, reason: str) -> None:
        """Drop the connection at once."""
        if not self._is_open:
            return
        self._is_open = False
        for task in self._tasks:
            task.cancel()
        self._on_end(reason)

    async def closed(self) -> None:
        """Wait until nothing of it is left."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.disconnect(nowait=True)

    async def _live(self, part: Coroutine[Any, Any, None]) -> None:
        try:
            await part
        except Exception as error:
            self.close(_words(error))

    async def _write(self) -> None:
        while True:
            await self._has_mail.wait()
            self._has_mail.clear()
            outbox, self._outbox = self._outbox, []
            await self._connection.send_packed_command(outbox, check_health=False)

    async def _read(self) -> None:
        while True:
            # Not by itself: it would close the connection under the writer's hands.
            packed = await self._connection.read_response(disable_decoding=True, disconnect_on_error=False)
            heard = self._heard.popleft()
            try:
                heard(msgspec.msgpack.decode(packed))
            except Exception as error:  # a fault of ours, which must not look like one of the server's
                context = {"message": "a reply of the shared limits was not understood", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)


def check_url(url: str) -> None:
    """`OperatorError` where no connection could ever be made with it."""
    _connection(url)


@cache
def _script() -> str:
    return Path(__file__).with_name("shared.lua").read_text()


def _connection(url: str) -> Any:
    try:
        from valkey.asyncio.connection import Connection, parse_url  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = "shared.limits_url needs the extra 'valkey': pip install 'scibox[valkey]'."
        raise OperatorError(message) from error
    try:
        settings = parse_url(url)
    except ValueError as error:
        raise OperatorError(f"shared.limits_url is not an address of Valkey or Redis: {error}") from error
    kind = settings.pop("connection_class", Connection)
    return kind(**settings, socket_timeout=None, socket_connect_timeout=_CONNECT_S, client_name="scibox")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
