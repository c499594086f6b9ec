"""A desk in another process: what a worker sees is what the main process's desk says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from rig import socket_folder
from scibox.core.admission import Place, Subject, Wish
from scibox.core.errors import QuotaExceeded, RateLimited
from scibox.core.events import Event, Notice
from scibox.core.limits import Windows
from scibox.core.types import Limits
from scibox.gate.desk import LocalDesk
from scibox.gate.remote import RemoteDesk
from scibox.gate.switchboard import Switchboard
from scibox.intercom.hub import Hub
from scibox.intercom.link import Link

SLOTS = 2


def desk(slots: int = SLOTS) -> LocalDesk:
    return LocalDesk(lambda model: [slots], Windows(), time.monotonic, time.time)


def wish(call_id: str, limits: Limits | None = None, **more: object) -> Wish:
    fields = {
        "call_id": call_id,
        "key_id": "key_1",
        "owner": "team",
        "weight": 1.0,
        "model": "m",
        "rank": "interactive",
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "texts": 0,
        "patience_s": 5.0,
        "subjects": () if limits is None else (Subject("key:key_1", limits),),
    }
    return Wish(**{**fields, **more})  # type: ignore[arg-type]


@dataclass
class Main:
    """The main process's part, and the workers that ask it."""

    path: Path
    desk: LocalDesk
    hub: Hub
    board: Switchboard
    links: list[Link]
    events: list[Event]

    async def worker(self, parts: int = 2) -> RemoteDesk:
        link = Link(self.path)
        remote = RemoteDesk(link, desk(8), parts, self.events.append)
        await link.connect()
        self.links.append(link)
        return remote

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Notice) and event.is_warning]


@contextlib.asynccontextmanager
async def main(slots: int = SLOTS) -> AsyncIterator[Main]:
    with socket_folder() as folder:
        events: list[Event] = []
        own, hub = desk(slots), Hub(events.append)
        board = Switchboard(hub, own)
        await hub.start(folder / "i.sock")
        started = Main(folder / "i.sock", own, hub, board, [], events)
        try:
            yield started
        finally:
            for link in started.links:
                link.close()
            hub.stop()
            await asyncio.sleep(0)


async def until(holds: object, seconds: float = 5.0) -> None:
    assert callable(holds)
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)


async def test_slots_are_those_of_all_workers_together() -> None:
    async with main(slots=2) as one:
        first, second = await one.worker(), await one.worker()
        await first.enter(wish("a"), None)
        await second.enter(wish("b"), None)
        waiting = asyncio.create_task(second.enter(wish("c"), None))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert [place.position for place in await first.places("team")] == [0, 0, 1]

        first.leave("a", 30)
        grant = await asyncio.wait_for(waiting, 5)

    assert grant.position == 1


async def test_a_refusal_is_the_same_error() -> None:
    limits = Limits(tokens_per_day=30)
    async with main() as one:
        worker = await one.worker()
        await worker.enter(wish("a", limits), None)
        worker.leave("a", 30)
        with pytest.raises(QuotaExceeded) as remote:
            await worker.enter(wish("b", limits), None)
        with pytest.raises(QuotaExceeded) as local:
            await one.desk.enter(wish("b", limits), None)

    assert remote.value.message == local.value.message
    assert (remote.value.code, remote.value.should_retry) == ("insufficient_quota", False)


async def test_who_waits_hears_where_it_stands() -> None:
    async with main(slots=1) as one:
        worker = await one.worker()
        await worker.enter(wish("a"), None)
        heard: list[Place] = []
        waiting = asyncio.create_task(worker.enter(wish("b"), heard.append))
        await until(lambda: heard)
        waiting.cancel()

    assert (heard[0].call_id, heard[0].position) == ("b", 1)


async def test_allowances_and_room_are_those_of_the_one_desk() -> None:
    limits = Limits(calls_per_minute=5)
    async with main(slots=1) as one:
        first, second = await one.worker(), await one.worker()
        assert await second.has_room(["m"]) == "m"
        grant = await first.enter(wish("a", limits), None)
        left = await second.allowances([Subject("key:key_1", limits)])

        assert [(one.limit, one.remaining) for one in left] == [("calls_per_minute", 4)]
        assert [one.remaining for one in grant.allowances] == [4]
        assert await second.has_room(["m"]) is None


async def test_a_caller_that_leaves_the_queue_leaves_it_at_once() -> None:
    async with main(slots=1) as one:
        worker = await one.worker()
        await worker.enter(wish("a"), None)
        waiting = asyncio.create_task(worker.enter(wish("b"), None))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: len(one.desk._calls) == 1)


async def test_no_slot_is_lost_whenever_a_caller_leaves() -> None:
    """A cancellation and a grant that pass each other on the way: the slot comes back every time."""
    async with main(slots=1) as one:
        worker = await one.worker()
        for delay_ms in range(40):
            entering = asyncio.create_task(worker.enter(wish(f"a{delay_ms}"), None))
            for _ in range(delay_ms % 8):
                await asyncio.sleep(0)
            entering.cancel()
            await asyncio.gather(entering, return_exceptions=True)
            if not entering.cancelled():  # the grant was quicker
                worker.leave(f"a{delay_ms}", 0)
        await until(lambda: not one.desk._calls)
        assert one.board.calls == 0
        await asyncio.wait_for(worker.enter(wish("last"), None), 5)


async def test_a_worker_that_dies_gives_back_all_it_had() -> None:
    limits = Limits(calls_in_flight=2, tokens_per_minute=1000)
    async with main(slots=2) as one:
        dying, living = await one.worker(), await one.worker()
        await dying.enter(wish("a", limits), None)
        await dying.enter(wish("b", limits), None)
        dying.charge("a", 15)
        queued = asyncio.create_task(dying.enter(wish("c", limits), None))
        waiting = asyncio.create_task(living.enter(wish("d", limits), None))
        await asyncio.sleep(0.05)
        one.links[0].close()
        await asyncio.wait_for(waiting, 5)
        assert one.board.calls == 1
        # Its calls have used what was told of them: their prompts, and what was charged.
        left = await living.allowances([Subject("key:key_1", limits)])
        remaining = {allowance.limit: allowance.remaining for allowance in left}
        queued.cancel()

    assert remaining == {"calls_in_flight": 1, "tokens_per_minute": 1000 - (10 + 15) - 10 - 30}


async def test_without_the_main_process_a_worker_serves_its_part_and_says_so_and_returns_by_itself() -> None:
    limits = Limits(calls_in_flight=4)
    async with main() as one:
        worker = await one.worker(parts=4)
        await worker.enter(wish("before", limits), None)
        one.hub.stop()
        await until(lambda: one.warnings)
        assert "1/4" in one.warnings[0]

        await worker.enter(wish("a", limits), None)  # 4 / 4 = 1
        with pytest.raises(RateLimited):
            await worker.enter(wish("b", limits, patience_s=0.05), None)
        worker.leave("a", 30)
        await worker.enter(wish("b", limits), None)
        worker.leave("b", 30)
        worker.leave("before", 30)  # nobody hears it, nobody minds

        one.path.unlink(missing_ok=True)
        await one.hub.start(one.path)
        await until(lambda: one.links[0].is_up)
        await worker.enter(wish("c", limits), None)
        assert one.board.calls == 1
        assert [e.message for e in one.events if isinstance(e, Notice)][-1].endswith("limits are whole")


async def test_calls_that_wait_when_the_main_process_goes_wait_on_here() -> None:
    async with main(slots=1) as one:
        worker = await one.worker()
        await worker.enter(wish("a"), None)
        waiting = asyncio.create_task(worker.enter(wish("b"), None))
        await asyncio.sleep(0.05)
        one.hub.stop()
        grant = await asyncio.wait_for(waiting, 5)

    assert grant.deployment == 0


@pytest.mark.parametrize("workers", [1, 2, 4])
async def test_a_rate_limit_is_exact_however_many_ask(workers: int) -> None:
    """Ten times the limit from all workers: in every second, as many start as may; and none of it is lost."""
    limit, seconds = 40, 3
    started: list[float] = []
    async with main(slots=1000) as one:
        desks = [await one.worker() for _ in range(workers)]

        async def ask(number: int) -> None:
            worker, limits = desks[number % workers], Limits(calls_per_second=limit)
            grant = await worker.enter(wish(f"c{number}", limits, patience_s=600.0), None)
            started.append(entered[number] + grant.waited_s)
            worker.leave(f"c{number}", 30)

        entered = _entries(one)
        asking = [asyncio.create_task(ask(number)) for number in range(10 * limit)]
        await asyncio.sleep(seconds + 0.5)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        started.sort()

    assert max(_in_any_second(started)) <= limit + 1
    assert sum(1 for at in started if at - started[0] < seconds) >= 0.99 * limit * seconds


def _in_any_second(times: Sequence[float]) -> list[int]:
    return [sum(1 for other in times if at <= other < at + 1.0) for at in times]


def _entries(one: Main) -> dict[int, float]:
    """When each call came to the desk, by the desk's own clock."""
    came: dict[int, float] = {}
    enter = one.desk.enter

    async def noting(asked: Wish, on_place: object) -> object:
        came[int(asked.call_id[1:])] = time.monotonic()
        return await enter(asked, on_place)  # type: ignore[arg-type]

    one.desk.enter = noting  # type: ignore[method-assign,assignment]
    return came


async def test_a_workers_call_takes_its_slot_along() -> None:
    async with main() as m:
        m.desk._slots = lambda model: [1, 1]
        worker = await m.worker()
        assert (await worker.enter(wish("a"), None)).deployment == 0
        worker.move("a", 1)
        worker.move("nobody", 1)

        assert (await worker.enter(wish("b"), None)).deployment == 0
        worker.leave("a", 1)
        assert (await worker.enter(wish("c"), None)).deployment == 1
