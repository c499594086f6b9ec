"""The HTTP client to replicas, against servers that behave in ways a good one would not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from rig import socket_folder
from scibox.core.errors import UpstreamBroken, UpstreamUnavailable
from scibox.upstream.address import Address
from scibox.upstream.client import MAX_ERROR_BYTES, Client
from scibox.upstream.connection import HIGH_WATER_BYTES

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[Address]:
    """A server on a Unix socket that answers each connection by `serve` and has closed all at the end."""
    tasks: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]  # it is one
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.close()

    with socket_folder() as folder:
        path = str(folder / "s.sock")
        async with await asyncio.start_unix_server(handle, path):
            yield Address.parse(f"unix:{path}")
            await asyncio.wait_for(asyncio.gather(*tasks), 5)


async def ask(client: Client, address: Address) -> bytes:
    exchange = client.exchange(address, "POST", "/v1/x", body=b"{}")
    try:
        await exchange.open()
        return await exchange.read_all()
    finally:
        exchange.close()


def answering(*pieces: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return serve


@pytest.mark.parametrize(
    "pieces",
    [
        (OK + b"content-length: 5\r\n\r\n", b"hel", b"lo"),
        (OK + b"transfer-encoding: chunked\r\n\r\n", b"3\r\nhel\r\n2\r\n", b"lo\r\n0\r\n\r\n"),
        (OK + b"\r\nhello",),  # neither: the close is the end (RFC 9112, 6.3)
    ],
)
async def test_bodies_of_every_framing(pieces: tuple[bytes, ...]) -> None:
    async with server(answering(*pieces)) as address:
        assert await ask(Client(1.0), address) == b"hello"


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"HTTP/1.1 200",),
        (b"<html>what?</html>",),
        (OK + b"content-length: 50\r\n\r\nhello",),
        (OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",),
        (OK + b"transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",),
    ],
)
async def test_a_cut_or_garbled_answer_is_an_error(pieces: tuple[bytes, ...]) -> None:
    async with server(answering(*pieces)) as address:
        with pytest.raises(UpstreamBroken):
            await ask(Client(1.0), address)


async def test_nobody_there_is_an_error_of_its_own() -> None:
    with pytest.raises(UpstreamUnavailable):
        await ask(Client(1.0), Address.parse("unix:/nowhere/s.sock"))


async def test_a_kept_connection_is_used_again() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.read(1000):
            writer.write(OK + b"content-length: 2\r\n\r\nok")

    async with server(serve) as address:
        client = Client(1.0)
        assert [await ask(client, address) for _ in range(3)] == [b"ok"] * 3
        client.close()

    assert connections == 1


async def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    """The server closes after each answer without saying so; no call notices."""
    calls = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        await reader.readuntil(b"{}")
        calls += 1
        writer.write(OK + b"content-length: 2\r\n\r\nok")
        await writer.drain()
        await reader.read(1)  # the next request is read and never answered

    async with server(serve) as address:
        client = Client(1.0)
        assert [await ask(client, address) for _ in range(3)] == [b"ok"] * 3
        client.close()

    assert calls == 3


async def test_a_replica_is_paused_when_nobody_reads() -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"{}")
        writer.write(OK + b"content-length: 100000000\r\n\r\n")
        while sent < 100_000_000 and not writer.is_closing():
            writer.write(bytes(100_000))
            await writer.drain()
            sent += 100_000

    async with server(serve) as address:
        client = Client(1.0)
        exchange = client.exchange(address, "POST", "/v1/x", body=b"{}")
        await exchange.open()
        await asyncio.sleep(0.3)
        # What we hold, one read of the loop, and the buffers of the kernel and of the server's own writer.
        assert sent < HIGH_WATER_BYTES + 4_000_000
        held = sent
        read = 0
        while read < 10_000_000:
            read += len(await exchange.read())
        assert sent > held
        exchange.close()  # in the middle of the answer; the server notices, or leaving the block would fail

    assert sent < 100_000_000


def endless(head: bytes, piece: bytes, most_bytes: int = 20_000_000) -> Serve:
    """Writes until nobody listens; fails if somebody listens for too long."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(head)
        sent = 0
        while not writer.is_closing():
            assert sent < most_bytes
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    return serve


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (OK + b"content-length: 1000000000\r\n\r\n", bytes(100_000)),
        (OK, b"x-more: and more\r\n" * 1_000),
    ],
)
async def test_what_is_too_large_is_an_error_before_it_is_read(head: bytes, piece: bytes) -> None:
    async with server(endless(head, piece)) as address:
        with pytest.raises(UpstreamBroken):
            await asyncio.wait_for(ask(Client(1.0), address), 5)


async def test_of_an_error_only_the_start_is_read() -> None:
    head = b"HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n"
    async with server(endless(head, b"10000\r\n" + bytes(0x10000) + b"\r\n")) as address:
        exchange = Client(1.0).exchange(address, "POST", "/v1/x", body=b"{}")
        await exchange.open()
        read = await asyncio.wait_for(exchange.read_error(), 5)
        exchange.close()

    assert MAX_ERROR_BYTES <= len(read) < 10 * HIGH_WATER_BYTES


def test_addresses() -> None:
    remote = Address.parse("https://gpu1:8443/openai/v1")
    assert (remote.host, remote.port, remote.prefix, remote.root, remote.is_tls) == (
        "gpu1",
        8443,
        "/openai/v1",
        "/openai",
        True,
    )
    assert Address.parse("http://[::1]/v1").authority == "[::1]"
    assert Address.parse("http://h:8000/v1").authority == "h:8000"
    assert Address.parse("unix:/run/a.sock").socket == "/run/a.sock"
    with pytest.raises(ValueError, match="not an http"):
        Address.parse("ftp://h/v1")
