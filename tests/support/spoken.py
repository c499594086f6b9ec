"""A server that answers in another server's documented words: bodies by method and path."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Spoken:
    """`says`: by "GET /path", what is answered: a body, or a status and a body. Everything else is 404."""

    says: dict[str, Any]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = next(
                    (int(line[15:]) for line in head.splitlines() if line.startswith("content-length:")), 0
                )
                self.bodies.append(await reader.readexactly(length))
                self.heads.append(head)
                place = head.rpartition(" HTTP/1.1")[0].split("?")[0]
                self.asked.append(place)
                told = self.says.get(place, (404, {"detail": "Not Found"}))
                if callable(told):
                    told = told(head)
                status, body = told if isinstance(told, tuple) else (200, told)
                raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(raw)}\r\n\r\n".encode() + raw)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def spoken(says: dict[str, Any]) -> AsyncIterator[Spoken]:
    """It listens until the end of the `with`; `url` ends with /v1."""
    one = Spoken(says)
    server = await asyncio.start_server(one.answer, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield one
    finally:
        server.close()
