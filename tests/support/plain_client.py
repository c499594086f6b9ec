"""A client for tests, on plain sockets: what a byte-level test needs to see."""

from __future__ import annotations

import asyncio
import json
from typing import Any


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"), limit=1 << 24)
    host, _, port = address.removeprefix("http://").rpartition(":")
    return await asyncio.open_connection(host, int(port), limit=1 << 24)


async def send(
    address: str, path: str, body: Any = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send one request; the answer is left to the caller."""
    reader, writer = await connect(address)
    data = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    try:
        writer.write(head.encode() + data)
        await writer.drain()
    except ConnectionError:
        writer.close()
        raise
    return reader, writer


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value for name, value in headers.items()}


async def read_pieces(reader: asyncio.StreamReader, headers: dict[str, str]) -> tuple[list[bytes], bool]:
    """The pieces of the body, and whether it ended as its framing says."""
    if "content-length" in headers:
        length = int(headers["content-length"])
        body = b""
        while len(body) < length and (piece := await reader.read(length - len(body))):
            body += piece
        return [body], len(body) == length
    pieces = []
    while True:
        size = await reader.readline()
        if not size.endswith(b"\r\n"):
            return pieces, False
        try:
            piece = await reader.readexactly(int(size, 16) + 2)
        except asyncio.IncompleteReadError:
            return pieces, False
        if piece == b"\r\n":
            return pieces, True
        pieces.append(piece[:-2])


async def ask(address: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and decoded JSON of an answer."""
    reader, writer = await send(address, path, body)
    try:
        status, headers = await read_head(reader)
        pieces, whole = await read_pieces(reader, headers)
        assert whole
        return status, json.loads(b"".join(pieces))
    finally:
        writer.close()


async def stream(address: str, path: str, body: Any) -> tuple[list[bytes], bool]:
    """The pieces of a stream, and whether it ended properly."""
    reader, writer = await send(address, path, body)
    try:
        _, headers = await read_head(reader)
        assert headers["content-type"].startswith("text/event-stream")
        return await read_pieces(reader, headers)
    finally:
        writer.close()


def events(pieces: list[bytes]) -> list[Any]:
    """Decoded `data:` events; `[DONE]` stays a string."""
    blocks = b"".join(pieces).split(b"\n\n")
    assert blocks.pop() == b""
    data = [block.removeprefix(b"data: ") for block in blocks if block.startswith(b"data: ")]
    return ["[DONE]" if item == b"[DONE]" else json.loads(item) for item in data]


def chat(text: str = "hello there", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}
