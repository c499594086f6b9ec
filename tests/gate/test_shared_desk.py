"""The desk with limits that another server counts: verdicts come later, and others go on meanwhile."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from limiting import subject, until, wish
from servers import valkey, valkey_program

from scibox.core.admission import Subject, Wish
from scibox.core.limits import Limiter, Moment, Verdict, Windows
from scibox.gate.desk import LocalDesk
from scibox.gate.shared import SharedLimiter


class Later(Windows):
    """Limits in memory whose answers come when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Callable[[], None]] = []

    def take(self, wish: Wish, at: Moment, done: Callable[[Verdict], None]) -> None:
        self.held.append(lambda: Windows.take(self, wish, at, done))

    def answer(self) -> None:
        held, self.held = self.held, []
        for answer in held:
            answer()


def desk(limiter: Limiter, slots: int = 8) -> LocalDesk:
    return LocalDesk(lambda _: [slots], limiter, time.monotonic, time.time)


def of_owner(owner: str, *subjects: Subject, patience_s: float = 20.0) -> Wish:
    return msgspec.structs.replace(wish(*subjects), owner=owner, patience_s=patience_s)


async def test_verdicts_of_several_owners_are_under_way_together() -> None:
    limiter = Later()
    at_desk = desk(limiter)
    calls = [of_owner(f"owner {n}", subject(f"owner:{n}", calls_per_minute=5)) for n in range(4)]
    entering = [asyncio.create_task(at_desk.enter(call, None)) for call in calls]
    await until(lambda: len(limiter.held) == 4)
    limiter.answer()

    await asyncio.wait_for(asyncio.gather(*entering), 5)


async def test_a_call_that_leaves_before_its_verdict_holds_nothing() -> None:
    limiter = Later()
    at_desk = desk(limiter, slots=1)
    one = subject(calls_in_flight=1)
    entering = asyncio.create_task(at_desk.enter(of_owner("a", one), None))
    await until(lambda: len(limiter.held) == 1)
    entering.cancel()
    await asyncio.gather(entering, return_exceptions=True)
    limiter.answer()

    after = asyncio.create_task(at_desk.enter(of_owner("b", one), None))
    await until(lambda: bool(limiter.held))
    limiter.answer()
    await asyncio.wait_for(after, 5)


@contextlib.asynccontextmanager
async def two_desks(budget_s: float = 5.0) -> AsyncIterator[tuple[LocalDesk, LocalDesk, Callable[[], None]]]:
    if valkey_program() is None:
        pytest.skip("neither valkey-server nor redis-server is installed")
    with valkey() as server:
        limiters = [SharedLimiter(server.url, lambda event: None, budget_s=budget_s) for _ in range(2)]
        for limiter in limiters:
            await limiter.start(10.0)
        try:
            yield desk(limiters[0]), desk(limiters[1]), server.kill
        finally:
            for limiter in limiters:
                await limiter.stop()


async def test_a_call_waits_for_the_end_of_one_at_another_node() -> None:
    async with two_desks() as (one, other, _):
        single = subject("owner:team", calls_in_flight=1)
        first, second = of_owner("team", single), of_owner("team", single)
        grant = await one.enter(first, None)
        assert grant.allowances[0].remaining == 0
        waiting = asyncio.create_task(other.enter(second, None))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        free = of_owner("others")
        await asyncio.wait_for(other.enter(free, None), 5)  # another owner goes on
        one.leave(first.call_id, 10)

        assert (await asyncio.wait_for(waiting, 5)).waited_s > 0.4


async def test_calls_over_a_rate_wait_and_all_start() -> None:
    async with two_desks() as (one, other, _):
        quick = subject("owner:team", calls_per_second=5)

        async def call(at_desk: LocalDesk) -> float:
            wanted = of_owner("team", quick)
            await at_desk.enter(wanted, None)
            at_desk.leave(wanted.call_id, 10)
            return time.monotonic()

        began = time.monotonic()
        started = await asyncio.wait_for(
            asyncio.gather(*(call(at_desk) for _ in range(8) for at_desk in (one, other))), 30
        )

        assert max(started) - began >= 3.0  # 16 calls, 5 of them a second


async def test_calls_go_on_when_the_server_dies_under_them() -> None:
    async with two_desks(0.05) as (one, other, kill):
        limited = subject("owner:team", calls_in_flight=8, calls_per_second=1_000)

        async def call(at_desk: LocalDesk) -> None:
            wanted = of_owner("team", limited)
            await at_desk.enter(wanted, None)
            await asyncio.sleep(0.02)
            at_desk.leave(wanted.call_id, 10)

        load = [asyncio.create_task(call(at_desk)) for _ in range(60) for at_desk in (one, other)]
        await asyncio.sleep(0.1)
        kill()

        await asyncio.wait_for(asyncio.gather(*load), 30)  # none was refused
