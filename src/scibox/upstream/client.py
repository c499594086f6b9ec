"""The one HTTP client to replicas: connect, exchange, keep idle connections for the next call."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections import defaultdict, deque
from collections.abc import Coroutine
from functools import lru_cache

from scibox.core.errors import UpstreamBroken, UpstreamLost, UpstreamTimeout, UpstreamUnavailable

from .address import Address
from .connection import LATE, Connection

MAX_IDLE = 64  # per address
MAX_BODY_BYTES = 256 * 2**20  # of a non-streamed answer: 2,048 vectors of 4,096 numbers as text
MAX_ERROR_BYTES = 64 * 1024  # read of an error: its sentence stands at the start
_TOO_LARGE = "The model server's answer is larger than any answer can be; try again."


class Client:
    """Opens exchanges with replicas; one for the whole process."""

    def __init__(self, connect_s: float) -> None:
        self.connect_s = connect_s
        self._idle: defaultdict[Address, deque[Connection]] = defaultdict(deque)
        self._tls: ssl.SSLContext | None = None

    def exchange(
        self,
        address: Address,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        secret: str | None = None,
        request_id: str | None = None,
    ) -> Exchange:
        """One request and its answer, to be opened and, whatever happens, closed; `path` is absolute."""
        fixed = _head(method, path, address, secret, bool(body))
        own = f"content-length: {len(body)}\r\n"
        if request_id is not None:  # so that the log of a model server can be read beside ours
            own += f"x-request-id: {request_id}\r\n"
        return Exchange(self, address, fixed + own.encode("latin-1") + b"\r\n", body)

    async def take(self, address: Address, by: float) -> tuple[Connection, bool]:
        """A connection, and whether it was used before (its replica may just have closed it)."""
        idle = self._idle[address]
        while idle:
            connection = idle.pop()
            if connection.is_open:
                return connection, True
        return await self.connect(address, by), False

    def give_back(self, address: Address, connection: Connection) -> None:
        """Keep a connection whose exchange is over."""
        idle = self._idle[address]
        if len(idle) < MAX_IDLE:
            idle.append(connection)
        else:
            connection.close()

    async def connect(self, address: Address, by: float = math.inf) -> Connection:
        """A new connection within the connect deadline, and by that time."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(loop.time() + self.connect_s, by)):
                if address.socket is not None:
                    return (await loop.create_unix_connection(Connection, address.socket))[1]
                context = self._context() if address.is_tls else None
                return (await loop.create_connection(Connection, address.host, address.port, ssl=context))[1]
        except (OSError, TimeoutError) as error:
            if loop.time() >= by:
                raise UpstreamTimeout(LATE, retry_after_s=5) from None
            raise UpstreamUnavailable(
                "The model server cannot be reached now; try again in a few seconds.", retry_after_s=2
            ) from error

    def close(self) -> None:
        """Close the idle connections."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


@lru_cache(1024)
def _head(method: str, path: str, address: Address, secret: str | None, has_body: bool) -> bytes:
    """The lines of a head that are the same in many requests."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {address.authority}"]
    lines.append("accept: application/json, text/event-stream")
    if has_body:
        lines.append("content-type: application/json")
    if secret is not None:
        lines.append(f"authorization: Bearer {secret}")
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")


class Exchange:
    """A request in flight: `status` and headers are known once it is open.

    What waits ends `by` that moment of the loop's time at the latest: `UpstreamTimeout`.
    """

    def __init__(self, client: Client, address: Address, head: bytes, body: bytes) -> None:
        self._client = client
        self._address = address
        self._head = head
        self._body = body
        self._connection: Connection | None = None

    async def open(self, by: float = math.inf) -> None:
        """Send the request and wait for status and headers."""
        connection, was_used = await self._client.take(self._address, by)
        try:
            await self._begin(connection, by)
        except UpstreamLost:
            # The replica closed a kept connection while it was idle: nothing was answered, a new one is safe.
            if not was_used:
                raise
            connection.close()
            await self._begin(await self._client.connect(self._address, by), by)

    def close(self) -> None:
        """Keep the connection of a finished exchange, drop any other: its replica then stops working."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.is_complete and connection.keeps_alive and connection.is_open:
            self._client.give_back(self._address, connection)
        else:
            connection.close()

    def cut(self) -> None:
        """Drop the connection under whoever reads from it: to him the replica has died."""
        if self._connection is not None:
            self._connection.close()

    @property
    def status(self) -> int:
        """The HTTP status."""
        assert self._connection is not None
        return self._connection.status

    def header(self, name: bytes) -> bytes:
        """A header's value by its lower-case name; empty where it is missing."""
        assert self._connection is not None
        return self._connection.headers.get(name, b"")

    def read(self, by: float = math.inf) -> Coroutine[None, None, bytes]:
        """The next bytes of the body; empty at its end."""
        assert self._connection is not None
        return self._connection.read(by)

    async def read_all(self, by: float = math.inf) -> bytes:
        """The whole body, bounded."""
        length = self.header(b"content-length")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            raise UpstreamBroken(_TOO_LARGE)
        body = await self._read_up_to(MAX_BODY_BYTES + 1, by)
        if len(body) > MAX_BODY_BYTES:
            raise UpstreamBroken(_TOO_LARGE)
        return body

    async def read_error(self, by: float = math.inf) -> bytes:
        """The body of an error, as far as anybody would read it."""
        return await self._read_up_to(MAX_ERROR_BYTES, by)

    async def _read_up_to(self, size_bytes: int, by: float) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while size < size_bytes and (piece := await self.read(by)):
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    async def _begin(self, connection: Connection, by: float) -> None:
        self._connection = connection
        connection.send(self._head, self._body)
        await connection.read_head(by)
