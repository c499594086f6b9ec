"""The least that a gateway in Python does: HTTP parsed on both sides and bytes passed on, nothing else.

    python bench/gateway/relay.py PORT UPSTREAM_PORT

No key, no limit, no record, no failure that is handled: what SciBox needs beyond this is what it does for it.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import ClassVar

import httptools
import uvloop


class Behind(asyncio.Protocol):
    """A kept connection to the upstream."""

    idle: ClassVar[deque[Behind]] = deque()
    port = 0

    def __init__(self) -> None:
        self.front: Front | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def ask(self, front: Front, request: bytes) -> None:
        self.front = front
        self.parser = httptools.HttpResponseParser(self)
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        front = self.front
        self.parser.feed_data(data)
        if front is not None:
            front.transport.write(data)

    def on_message_complete(self) -> None:
        self.front = None
        self.idle.append(self)


class Front(asyncio.Protocol):
    """A client's connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        lines = [b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)]
        lines += [b"%b: %b\r\n" % header for header in self.headers]
        request = b"".join([*lines, b"\r\n", *self.pieces])
        if Behind.idle:
            Behind.idle.popleft().ask(self, request)
        else:
            self._opening = asyncio.ensure_future(self._open(request))

    async def _open(self, request: bytes) -> None:
        _, behind = await asyncio.get_running_loop().create_connection(Behind, "127.0.0.1", Behind.port)
        behind.ask(self, request)


async def main(port: int, upstream: int) -> None:
    Behind.port = upstream
    server = await asyncio.get_running_loop().create_server(Front, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
