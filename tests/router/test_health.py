"""Servers of others are looked at: those that are not there get no calls, and what comes back is asked what it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scibox.core.types import ModelCard
from scibox.engines.fake import FakeEngine
from scibox.router import health
from scibox.router.health import FAILURES, Health
from scibox.router.replica import Deployment, Replica, Route
from scibox.upstream.address import Address
from scibox.upstream.client import Client

SOON_S = 0.01


@asynccontextmanager
async def watched(*replicas: Replica, changed: list[int] | None = None) -> AsyncIterator[None]:
    """They are looked at as often as can be, until the end of the `with`."""
    told = [] if changed is None else changed
    watch = Health(Client(1.0), lambda: replicas, SOON_S, lambda: told.append(1))
    running = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(holds: object, within_s: float = 20.0) -> None:
    assert callable(holds)
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


def fake(context: int = 4096, name: str = "m") -> FakeEngine:
    return FakeEngine("http://127.0.0.1:0", name=name, context=context, owned_by="vllm")


async def test_one_that_goes_gets_no_calls_until_it_is_back() -> None:
    changed: list[int] = []
    async with fake() as engine:
        replica = Replica(Address.parse(f"{engine.address}/v1"), "m", dialect=None)
        other = Replica(Address.parse("http://127.0.0.1:9/v1"), "m", is_local=True)
        pair = Deployment((replica, other))
        async with watched(replica, changed=changed):
            await until(lambda: replica.is_known)
            assert replica.is_usable
            told = len(changed)
            await engine.stop()
            await until(lambda: replica.away)
            assert not replica.is_usable
            assert pair.in_turn()[0] is other
            assert len(changed) == told + 1
            await engine.start()
            await until(lambda: replica.is_usable)
            assert replica.ailment is None


async def test_one_look_that_fails_is_not_enough() -> None:
    async with fake() as engine:
        replica = Replica(Address.parse(f"{engine.address}/v1"), "m", dialect=None)
        await health.examine(Client(1.0), replica)
        await engine.stop()
        for failures in range(1, FAILURES):
            assert await health.examine(Client(1.0), replica, failures)
            assert replica.is_usable
        await health.examine(Client(1.0), replica, FAILURES)
        assert not replica.is_usable


async def test_what_comes_back_is_asked_anew_what_it_is() -> None:
    stated = frozenset({"slots"})
    async with fake(4096) as before:
        address = Address.parse(f"{before.address}/v1")
        replica = Replica(address, "m", dialect=None, slots=9, stated=stated)
        async with watched(replica):
            await until(lambda: replica.context == 4096)
            await before.stop()
            await until(lambda: replica.away)
            async with FakeEngine(before.address, name="m", context=512, owned_by="llamacpp"):
                await until(lambda: replica.context == 512)
                assert (replica.dialect, replica.slots) == ("llama", 9)
            await before.start()


async def test_a_server_of_another_model_is_told_of_in_words() -> None:
    async with fake(name="other") as engine:
        replica = Replica(Address.parse(f"{engine.address}/v1"), "m", dialect=None)
        await health.examine(Client(1.0), replica)

    assert replica.is_usable  # whether it serves the call after all is said by the call
    assert replica.ailment
    assert "does not list 'm', but other" in replica.ailment.words


async def test_many_are_spread_and_asked_a_few_at_a_time() -> None:
    async with fake() as engine:
        address = Address.parse(f"{engine.address}/v1")
        replicas = [Replica(address, "m", dialect=None) for _ in range(300)]
        watch = Health(Client(5.0), lambda: replicas, 3_600.0)
        at = asyncio.get_running_loop().time()
        watch.begin(at)
        tasks = [one.looking for one in watch._patients.values() if one.looking]
        most = 0
        while not all(task.done() for task in tasks):
            most = max(most, engine.in_flight)
            await asyncio.sleep(0)
        assert all(replica.is_known for replica in replicas)
        assert most <= health.AT_ONCE
        due = sorted(one.due_at - at for one in watch._patients.values())
        watch.begin(at + 3_600 * 0.7)
        assert not any(one.looking for one in watch._patients.values())
        assert due[-1] - due[0] > 3_600 * 0.3  # not all of them in the same second again


async def test_calls_that_wait_find_the_replicas_of_now() -> None:
    first, second = (Replica(Address.parse(f"http://127.0.0.1:{port}/v1"), "m") for port in (1, 2))
    route = Route(ModelCard("m", "chat", "o", 1), (Deployment((first,)),))
    with route as held:
        first.is_draining = True
        route.serve_by((Deployment((first, second)),))
        [(_, deployment)] = held.from_(0)
        assert deployment.in_turn() == [second]
        assert deployment.slots(5) == 5
