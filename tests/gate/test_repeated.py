"""Repeats that reach another worker than the first: the main process keeps the answers."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from limiting import until

from rig import socket_folder
from scibox.core.errors import IdempotencyKeyReused
from scibox.core.events import Event
from scibox.gate.repeated import RemoteRepeats, RepeatsBoard
from scibox.gate.repeats import Answer, LocalRepeats
from scibox.intercom.hub import Hub
from scibox.intercom.link import Link

ANSWER = Answer(200, b"\x00body", ((b"x-one", b"1"),))


@contextlib.asynccontextmanager
async def workers(count: int = 2) -> AsyncIterator[tuple[list[RemoteRepeats], list[Link], Hub]]:
    with socket_folder() as folder:
        events: list[Event] = []
        hub = Hub(events.append)
        RepeatsBoard(hub, LocalRepeats(60.0, 2**20, time.monotonic))
        await hub.start(folder / "i.sock")
        links = [Link(folder / "i.sock") for _ in range(count)]
        for link in links:
            await link.connect()
        try:
            yield [RemoteRepeats(link) for link in links], links, hub
        finally:
            for link in links:
                link.close()
            hub.stop()
            await asyncio.sleep(0.01)
            assert not events


async def test_a_repeat_at_another_worker_gets_the_first_answer() -> None:
    async with workers() as ((one, other), _, _):
        assert await one.begin(b"a", b"body") is None
        waiting = asyncio.create_task(other.begin(b"a", b"body"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        one.finish(b"a", ANSWER, is_kept=True)

        assert await asyncio.wait_for(waiting, 5) == ANSWER
        assert await other.begin(b"a", b"body") == ANSWER
        with pytest.raises(IdempotencyKeyReused):
            await other.begin(b"a", b"another")


async def test_what_a_dead_worker_led_is_led_by_who_waits() -> None:
    async with workers() as ((one, other), links, _):
        assert await one.begin(b"a", b"body") is None
        waiting = asyncio.create_task(other.begin(b"a", b"body"))
        await asyncio.sleep(0.05)
        links[0].close()

        assert await asyncio.wait_for(waiting, 5) is None
        other.finish(b"a", ANSWER, is_kept=True)
        assert await other.begin(b"a", b"body") == ANSWER


async def test_a_leader_hears_when_nobody_waits_any_more() -> None:
    async with workers() as ((one, other), _, _):
        await one.begin(b"a", b"body")
        waiting = asyncio.create_task(other.begin(b"a", b"body"))
        await asyncio.sleep(0.05)
        unwanted = asyncio.create_task(one.unwanted(b"a"))
        await asyncio.sleep(0.05)
        assert not unwanted.done()
        waiting.cancel()
        await asyncio.wait_for(unwanted, 5)
        one.abandon(b"a")

        assert await asyncio.wait_for(other.begin(b"a", b"body"), 5) is None


async def test_a_lead_that_nobody_waits_for_any_more_is_given_back() -> None:
    async with workers() as ((one, other), _, _):
        asking = asyncio.create_task(one.begin(b"a", b"body"))
        await asyncio.sleep(0)  # asked, not answered
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

        assert await asyncio.wait_for(other.begin(b"a", b"body"), 5) is None


async def test_an_answer_of_a_lead_that_was_lost_is_not_taken() -> None:
    async with workers() as ((one, other), links, hub):
        assert await one.begin(b"a", b"body") is None
        changes: list[bool] = []
        links[0].changed.append(lambda: changes.append(links[0].is_up))
        for caller in list(hub.callers):
            caller.hang_up()
        await until(lambda: changes == [False, True] and links[1].is_up)
        one.finish(b"a", ANSWER, is_kept=True)

        assert await other.begin(b"a", b"body") is None


async def test_while_the_main_process_is_away_each_call_is_made() -> None:
    async with workers(1) as ((one,), links, hub):
        assert await one.begin(b"b", b"body") is None
        hub.stop()
        await until(lambda: not links[0].is_up)

        assert await one.begin(b"a", b"body") is None
        await one.unwanted(b"a")
        one.finish(b"a", ANSWER, is_kept=True)  # forgotten
        assert await one.begin(b"a", b"body") is None
