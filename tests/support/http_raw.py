"""A client that sends bytes as they are and reads until the server closes or falls silent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from rig import SECRET

KEY = f"authorization: Bearer {SECRET}\r\n".encode()
POST = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\n" + KEY
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
GOOD = b'{"model":"vectors","input":"text"}'
GET = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


@dataclass
class Heard:
    """What came back."""

    data: bytes
    is_closed: bool

    @property
    def statuses(self) -> list[int]:
        """The status of each answer."""
        return [int(part[:3]) for part in self.data.split(b"HTTP/1.1 ")[1:]]


async def say(port: int, *pieces: bytes, silence_s: float = 0.5) -> Heard:
    """Send the pieces, a moment between them, and hear all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for index, piece in enumerate(pieces):
            if index:
                await asyncio.sleep(0.05)
            writer.write(piece)
        return await hear(reader, silence_s)
    finally:
        writer.close()


async def hear(reader: asyncio.StreamReader, silence_s: float) -> Heard:
    """Everything until the server closes, or has been silent for so long."""
    data = b""
    try:
        while True:
            async with asyncio.timeout(silence_s):
                piece = await reader.read(65_536)
            if not piece:
                return Heard(data, True)
            data += piece
    except TimeoutError:
        return Heard(data, False)
