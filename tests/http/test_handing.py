"""Connections handed to several takers: evenly, and never lost with one of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

from scibox.http.handing import Lane, Taking, Usher

HOST = "127.0.0.1"


class Taker:
    """A worker's part in this process: says its name to each connection, then counts it until it closes."""

    def __init__(self, name: bytes, lane: Lane) -> None:
        self.name = name
        self.lane = lane
        self.held: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._run: asyncio.Task[None] | None = None

    def start(self) -> None:
        taking = Taking(os.dup(self.lane.end), self._take, lambda: len(self.held), self.lane.told)
        self._run = asyncio.create_task(taking.run(0.01))

    async def stop(self) -> None:
        for task in (self._run, *self._tasks):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _take(self, connection: socket.socket) -> None:
        task = asyncio.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connection)
        self.held.add(writer)
        writer.write(self.name)
        try:
            await reader.read()
        finally:
            self.held.discard(writer)
            writer.close()
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def hall(takers: int) -> AsyncIterator[tuple[Usher, list[Taker], int]]:
    warnings: list[str] = []
    with socket.create_server((HOST, 0), backlog=2048) as listener:
        listener.setblocking(False)
        usher = Usher(listener, warnings.append)
        made = [Taker(b"%d" % number, Lane()) for number in range(takers)]
        for taker in made:
            usher.add(taker.lane)
        try:
            yield usher, made, listener.getsockname()[1]
        finally:
            usher.stop()
            for taker in made:
                await taker.stop()
                for connection in taker.lane.shut():
                    connection.close()
                taker.lane.close()
    assert not warnings


async def ask(port: int) -> tuple[bytes, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(HOST, port)
    return await asyncio.wait_for(reader.readexactly(1), 10), writer


async def close(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.close()
        await writer.wait_closed()


async def test_connections_that_stay_are_spread_evenly() -> None:
    async with hall(4) as (usher, takers, port):
        for taker in takers:
            taker.start()
            usher.open(taker.lane)
        answers = await asyncio.gather(*(ask(port) for _ in range(64)))
        assert [len(taker.held) for taker in takers] == [16] * 4
        await close([writer for _, writer in answers])


async def test_who_has_fewer_gets_the_next() -> None:
    async with hall(2) as (usher, takers, port):
        for taker in takers:
            taker.start()
            usher.open(taker.lane)
        kept = await asyncio.gather(*(ask(port) for _ in range(10)))
        gone = [writer for name, writer in kept if name == b"0"]
        await close(gone)
        async with asyncio.timeout(5):
            while takers[0].held or takers[0].lane.load:
                await asyncio.sleep(0.01)
        more = [await ask(port) for _ in range(5)]
        assert [name for name, _ in more] == [b"0"] * 5
        await close([writer for _, writer in [*kept, *more] if not writer.is_closing()])


async def test_what_a_taker_that_died_has_not_taken_goes_to_another() -> None:
    async with hall(2) as (usher, takers, port):
        usher.open(takers[0].lane)  # it never takes anything: it hangs
        asking = [asyncio.create_task(ask(port)) for _ in range(6)]
        await asyncio.sleep(0.05)
        takers[1].start()
        usher.open(takers[1].lane)
        usher.shut(takers[0].lane)
        answers = await asyncio.gather(*asking)
        assert [name for name, _ in answers] == [b"1"] * 6
        await close([writer for _, writer in answers])


async def test_while_there_is_no_taker_connections_wait() -> None:
    async with hall(1) as (usher, [taker], port):
        asking = [asyncio.create_task(ask(port)) for _ in range(3)]
        taker.start()
        usher.open(taker.lane)
        before = await asyncio.gather(*asking)
        usher.shut(taker.lane)
        asking = [asyncio.create_task(ask(port)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in asking)
        usher.open(taker.lane)
        after = await asyncio.gather(*asking)
        assert [name for name, _ in [*before, *after]] == [b"0"] * 6
        await close([writer for _, writer in [*before, *after]])


async def test_more_connections_than_a_lane_holds_wait_and_are_not_lost() -> None:
    async with hall(1) as (usher, [taker], port):
        usher.open(taker.lane)
        asking = [asyncio.create_task(ask(port)) for _ in range(600)]
        await asyncio.sleep(0.3)
        taker.start()
        answers = await asyncio.gather(*asking)
        assert len(answers) == 600
        await close([writer for _, writer in answers])
