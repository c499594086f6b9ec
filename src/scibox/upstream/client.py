"""The one HTTP client to replicas: connect, exchange, keep idle connections for the next call."""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict, deque

from scibox.core.errors import UpstreamBroken, UpstreamLost, UpstreamUnavailable

from .address import Address
from .connection import Connection

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
        lines = [f"{method} {path} HTTP/1.1", f"host: {address.authority}", f"content-length: {len(body)}"]
        lines.append("accept: application/json, text/event-stream")
        if body:
            lines.append("content-type: application/json")
        if secret is not None:
            lines.append(f"authorization: Bearer {secret}")
        if request_id is not None:  # so that the log of a model server can be read beside ours
            lines.append(f"x-request-id: {request_id}")
        return Exchange(self, address, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), body)

    async def take(self, address: Address) -> tuple[Connection, bool]:
        """A connection, and whether it was used before (its replica may just have closed it)."""
        idle = self._idle[address]
        while idle:
            connection = idle.pop()
            if connection.is_open:
                return connection, True
        return await self.connect(address), False

    def give_back(self, address: Address, connection: Connection) -> None:
        """Keep a connection whose exchange is over."""
        idle = self._idle[address]
        if len(idle) < MAX_IDLE:
            idle.append(connection)
        else:
            connection.close()

    async def connect(self, address: Address) -> Connection:
        """A new connection within the connect deadline."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.connect_s):
                if address.socket is not None:
                    return (await loop.create_unix_connection(Connection, address.socket))[1]
                context = self._context() if address.is_tls else None
                return (await loop.create_connection(Connection, address.host, address.port, ssl=context))[1]
        except (OSError, TimeoutError) as error:
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


class Exchange:
    """A request in flight: `status` and headers are known once it is open."""

    def __init__(self, client: Client, address: Address, head: bytes, body: bytes) -> None:
        self._client = client
        self._address = address
        self._head = head
        self._body = body
        self._connection: Connection | None = None

    async def open(self) -> None:
        """Send the request and wait for status and headers."""
        connection, was_used = await self._client.take(self._address)
        try:
            await self._begin(connection)
        except UpstreamLost:
            # The replica closed a kept connection while it was idle: nothing was answered, a new one is safe.
            if not was_used:
                raise
            connection.close()
            await self._begin(await self._client.connect(self._address))

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

    async def read(self) -> bytes:
        """The next bytes of the body; empty at its end."""
        assert self._connection is not None
        return await self._connection.read()

    async def read_all(self) -> bytes:
        """The whole body, bounded."""
        length = self.header(b"content-length")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            raise UpstreamBroken(_TOO_LARGE)
        body = await self._read_up_to(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            raise UpstreamBroken(_TOO_LARGE)
        return body

    async def read_error(self) -> bytes:
        """The body of an error, as far as anybody would read it."""
        return await self._read_up_to(MAX_ERROR_BYTES)

    async def _read_up_to(self, size_bytes: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while size < size_bytes and (piece := await self.read()):
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    async def _begin(self, connection: Connection) -> None:
        self._connection = connection
        connection.send(self._head, self._body)
        await connection.read_head()
