"""PROMISES L1 over nodes, and R7 for the server that they share: away, hanging, emptied, its clock stepped."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from limiting import at, left, remaining, subject, take, until, wish
from servers import Server, free_port, order, valkey, valkey_program

from scibox.core.admission import Subject
from scibox.core.events import Event, Notice
from scibox.core.limits import Verdict
from scibox.gate.shared import SharedLimiter

pytestmark = pytest.mark.skipif(valkey_program() is None, reason="no valkey-server, no redis-server")


@pytest.fixture
def server() -> Iterator[Server]:
    with valkey() as running:
        yield running


class Node:
    """A limiter as one node has it, and what it told the operator."""

    def __init__(self, url: str, budget_s: float) -> None:
        self.told: list[str] = []
        self.limiter = SharedLimiter(url, self._hear, budget_s=budget_s)
        self.running: list[str] = []

    def _hear(self, event: Event) -> None:
        assert isinstance(event, Notice)
        self.told.append(event.message)

    async def take(self, *subjects: Subject, tokens: int = 100) -> Verdict:
        wanted = wish(*subjects, tokens=tokens)
        verdict = await take(self.limiter, wanted)
        if verdict.taken:
            self.running.append(wanted.call_id)
        return verdict

    def take_now(self, *subjects: Subject) -> Verdict:
        """As the node alone answers: before the order returns."""
        wanted = wish(*subjects)
        verdicts: list[Verdict] = []
        self.limiter.take(wanted, at(), verdicts.append)
        [verdict] = verdicts
        if verdict.taken:
            self.running.append(wanted.call_id)
        return verdict

    def end_all(self, tokens: int = 10) -> None:
        for call_id in self.running:
            self.limiter.settle(call_id, tokens, at())
        self.running.clear()

    async def until_joined(self) -> float:
        return await until(lambda: not self.limiter.is_degraded)


@contextlib.asynccontextmanager
async def nodes(url: str, count: int = 2, budget_s: float = 5.0) -> AsyncIterator[list[Node]]:
    """Nodes that know of each other. A machine that does much else is not taken for a server that is away."""
    them = [Node(url, budget_s) for _ in range(count)]
    for node in them:
        await node.limiter.start(10.0)
        assert not node.limiter.is_degraded
    await until(lambda: all(node.limiter.nodes == count for node in them))
    try:
        yield them
    finally:
        for node in them:
            await node.limiter.stop()


async def press(node: Node, of: Subject, until_s: float, taken_us: list[int]) -> None:
    """One of many that ask all the time; when the server took it stands in `taken_us`."""
    while time.monotonic() < until_s:
        wanted = wish(of)
        verdict = await take(node.limiter, wanted)
        if verdict.taken:
            now_us = node.limiter._running[wanted.call_id].now_us  # the only clock that nodes share
            assert now_us is not None
            taken_us.append(now_us)
            node.limiter.settle(wanted.call_id, 10, at())
        else:
            await asyncio.sleep(min(verdict.wait_s or 0.0, 0.02))  # ten times the limit is wanted


def most_in_a_second(taken_us: list[int]) -> int:
    taken_us.sort()
    first, most = 0, 0
    for last, moment in enumerate(taken_us):
        while taken_us[first] <= moment - 1_000_000:
            first += 1
        most = max(most, last - first + 1)
    return most


async def test_two_nodes_together_admit_what_the_limit_says(server: Server) -> None:
    limit, run_s = 100, 3.0
    of = subject(calls_per_second=limit)
    taken_us: list[int] = []
    async with nodes(server.url) as them:
        until_s = time.monotonic() + run_s
        await asyncio.gather(*(press(node, of, until_s, taken_us) for node in them for _ in range(10)))

    assert most_in_a_second(taken_us) <= limit + 1  # in any second, wherever it begins
    span_s = (taken_us[-1] - taken_us[0]) / 1e6
    assert len(taken_us) >= 0.97 * limit * int(span_s)


async def test_calls_in_flight_are_counted_over_nodes(server: Server) -> None:
    three = subject(calls_in_flight=3)
    async with nodes(server.url) as (one, other):
        verdicts = [await node.take(three) for node in (one, other, one, other)]
        assert [verdict.taken for verdict in verdicts] == [True, True, True, False]
        one.end_all()
        await until_equal(other, three, "calls_in_flight", 2)
        assert (await other.take(three)).taken


async def test_while_the_server_is_dead_each_node_admits_its_share(server: Server) -> None:
    of = subject(calls_per_minute=100, tokens_per_day=10**6)
    port = int(server.url.rsplit(":", 1)[1].split("/")[0])
    async with nodes(server.url) as them:
        for node in them:
            assert (await node.take(of)).taken
        server.kill()
        began = time.monotonic()
        verdicts = [await node.take(of) for node in them for _ in range(80)]
        assert time.monotonic() - began < 10  # not the sum of 160 timeouts
        assert all(node.limiter.is_degraded for node in them)
        admitted = sum(verdict.taken for verdict in verdicts)
        assert admitted == 2 * 49  # each its half, with what it had taken before
        assert all("1/2 on each of 2 nodes" in node.told[-1] for node in them)
        refused = next(verdict for verdict in verdicts if not verdict.taken)
        assert (refused.amount, refused.is_final) == (100, False)
        for node in them:
            node.end_all()

        with valkey(port):  # an empty one
            for node in them:
                assert await node.until_joined() < 10
            # What both have admitted is known to the new server: nothing opened.
            assert await remaining(them[0].limiter, of, "calls_per_minute") == 0
            assert await remaining(them[1].limiter, of, "tokens_per_day") == 10**6 - 100 * 10


async def test_a_node_that_goes_alone_counts_what_the_others_had_taken(server: Server) -> None:
    of = subject(calls_per_minute=100)
    async with nodes(server.url) as (one, other):
        for _ in range(98):
            assert (await one.take(of)).taken
        assert (await other.take(of)).taken
        server.kill()
        verdicts = [await node.take(of) for node in (one, other) for _ in range(60)]
        assert all(node.limiter.is_degraded for node in (one, other))

    # Of the other's a hundredth passes in 0.6 s, as if it had been taken evenly: this machine may be slow.
    assert sum(verdict.taken for verdict in verdicts) <= 10


async def test_a_hanging_server_delays_nobody_and_leaves_nothing_behind(server: Server) -> None:
    of = subject(calls_in_flight=50, tokens_per_minute=10**6, calls_per_minute=1_000, tokens_per_day=10**6)
    async with nodes(server.url, budget_s=0.25) as them:
        for node in them:
            for _ in range(5):
                assert (await node.take(of)).taken
        server.pause()
        for node in them:
            assert (await node.take(of)).taken  # within 10 s
            for _ in range(9):  # but for the first of each node nobody waits at all
                assert node.take_now(of).taken
        for node in them:
            assert node.limiter.is_degraded
            node.end_all()
        await asyncio.sleep(1.5)  # until the connection is given up
        server.go_on()
        for node in them:
            assert await node.until_joined() < 10

        found = await left(them[0].limiter, of)
        assert found["key:one", "calls_in_flight"].remaining == 50
        assert found["key:one", "tokens_per_day"].remaining == 10**6 - 30 * 10
        # The first take of each node was under way: it may count twice for a minute.
        assert 1_000 - 32 <= found["key:one", "calls_per_minute"].remaining <= 1_000 - 30


async def test_a_short_pause_is_bridged_without_a_new_connection(server: Server) -> None:
    of = subject(calls_in_flight=5, calls_per_minute=100)
    async with nodes(server.url, budget_s=0.25) as (one, other):
        server.pause()
        assert (await one.take(of)).taken
        await asyncio.sleep(0.3)
        server.go_on()
        await one.until_joined()
        await other.until_joined()

        await until_equal(other, of, "calls_in_flight", 4)
        await until_equal(other, of, "calls_per_minute", 99)  # the late one was undone
        one.end_all()
        assert await remaining(one.limiter, of, "calls_in_flight") == 5


async def test_an_emptied_server_opens_no_limit(server: Server) -> None:
    of = subject(calls_per_minute=10, calls_in_flight=10, tokens_per_minute=2_000, tokens_per_month=10**6)
    async with nodes(server.url) as (one, other):
        one.limiter.load_used(of, 0, 5_000, at())
        for node in (one, other):
            for _ in range(5):
                assert (await node.take(of)).taken
        await until_equal(one, of, "calls_per_minute", 0)
        await order(server, "FLUSHALL")
        verdicts = [await node.take(of) for _ in range(5) for node in (one, other)]
        assert not any(verdict.taken for verdict in verdicts)
        for node in (one, other):
            assert await node.until_joined() < 10
        assert not (await one.take(of)).taken

        found = await left(other.limiter, of)
        assert found["key:one", "calls_per_minute"].remaining == 0
        assert found["key:one", "calls_in_flight"].remaining == 0
        assert found["key:one", "tokens_per_minute"].remaining == 1_000
        assert found["key:one", "tokens_per_month"].remaining == 10**6 - 5_000 - 1_000
        one.end_all(tokens=10)
        other.end_all(tokens=10)
        await until_equal(other, of, "calls_in_flight", 10)
        await until_equal(one, of, "tokens_per_minute", 2_000 - 100)
        await until_equal(one, of, "tokens_per_month", 10**6 - 5_000 - 100)


async def test_what_a_node_used_alone_counts_once_though_the_ledger_has_it_too(server: Server) -> None:
    of = subject(tokens_per_month=10_000)
    async with nodes(server.url, count=1, budget_s=0.25) as (one,):
        server.pause()
        assert (await one.take(of)).taken
        await until(lambda: one.limiter.is_degraded)
        one.end_all(tokens=70)
        one.limiter.load_used(of, 0, 4_000 + 70, at())
        assert await remaining(one.limiter, of, "tokens_per_month") == 10_000 - 4_070
        server.go_on()
        await one.until_joined()

        await until_equal(one, of, "tokens_per_month", 10_000 - 4_070)


async def test_a_dead_node_holds_nothing_for_long(server: Server) -> None:
    of = subject(calls_in_flight=4, tokens_per_day=1_000)
    async with nodes(server.url) as (one, other):
        for _ in range(2):
            assert (await one.take(of)).taken
        other.limiter.load_used(of, 100, 0, at())
        assert one.limiter._task is not None
        one.limiter._task.cancel()  # it beats no more, as if it were killed
        async with asyncio.timeout(60):
            while await remaining(other.limiter, of, "calls_in_flight") < 4:
                await asyncio.sleep(0.1)
        assert await remaining(other.limiter, of, "tokens_per_day") == 900
        await until(lambda: other.limiter.nodes == 1)

        # It was only asleep: it joins again with what it holds then, and with what ended in its sleep.
        one.end_all()
        assert (await one.take(of)).taken
        assert one.limiter.is_degraded
        one.limiter._task = asyncio.create_task(one.limiter._keep())
        await one.until_joined()
        await until_equal(other, of, "calls_in_flight", 3)
        one.end_all()
        await until_equal(other, of, "calls_in_flight", 4)
        await until_equal(other, of, "tokens_per_day", 1_000 - 100 - 30)


@pytest.mark.parametrize("step_s", [-3_600, 3_600])
async def test_a_step_of_the_servers_clock_neither_opens_nor_blocks(server: Server, step_s: int) -> None:
    of = subject(calls_per_minute=2, calls_per_second=2)
    async with nodes(server.url, count=1) as (node,):
        for _ in range(2):
            assert (await node.take(of)).taken
        before = int(await order(server, "HGET", "{scibox}:meta", "real"))
        await order(server, "HSET", "{scibox}:meta", "real", str(before - step_s * 10**6))
        blocked = await node.take(of)
        assert (blocked.taken, blocked.limit) == (False, "calls_per_minute")
        assert blocked.wait_s is not None
        assert 45 < blocked.wait_s < 61
        quick = subject("key:quick", calls_per_second=1)
        assert (await node.take(quick)).taken
        await asyncio.sleep(1.1)
        assert (await node.take(quick)).taken


async def test_a_node_starts_without_the_server_and_joins_when_it_comes() -> None:
    port = free_port()
    node = Node(f"redis://127.0.0.1:{port}/0", 0.25)
    of = subject(calls_per_minute=3)
    await node.limiter.start(0.2)
    try:
        assert node.limiter.is_degraded
        assert "limits hold on this node alone" in node.told[0]
        assert [(await node.take(of)).taken for _ in range(4)] == [True, True, True, False]
        with valkey(port):
            assert await node.until_joined() < 10
            assert not (await node.take(of)).taken
            assert await remaining(node.limiter, of, "calls_per_minute") == 0
    finally:
        await node.limiter.stop()


async def test_all_keys_are_the_prefixs_and_pass_by_themselves(server: Server) -> None:
    of = subject(
        calls_per_minute=9, calls_per_second=9, tokens_per_minute=900, calls_in_flight=9, tokens_per_day=900
    )
    async with nodes(server.url) as (one, _):
        await one.take(of)
        keys = await order(server, "KEYS", "*")
        assert len(keys) >= 9
        for key in keys:
            assert key.startswith(b"{scibox}:")
            assert int(await order(server, "PTTL", key)) != -1, key  # -1: never, -2: it has passed meanwhile


async def test_load_goes_on_while_the_server_comes_and_goes(server: Server) -> None:
    of = subject(calls_in_flight=40, calls_per_second=200, tokens_per_minute=10**7, tokens_per_day=10**9)
    ended = 0

    async def work(node: Node, until_s: float) -> None:
        nonlocal ended
        while time.monotonic() < until_s:
            wanted = wish(of)
            verdict = await take(node.limiter, wanted)  # within 10 s, whatever happens
            if verdict.taken:
                await asyncio.sleep(0.01)
                node.limiter.settle(wanted.call_id, 7, at())
                ended += 1
            else:
                await asyncio.sleep(min(verdict.wait_s or 0.0, 0.05))

    async with nodes(server.url, budget_s=0.25) as them:
        until_s = time.monotonic() + 5
        load = [asyncio.create_task(work(node, until_s)) for node in them for _ in range(10)]
        for disturb_s in (0.4, 1.4, 0.1):
            await asyncio.sleep(0.4)
            server.pause()
            await asyncio.sleep(disturb_s)
            server.go_on()
        await asyncio.sleep(0.3)
        await order(server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.gather(*load)
        for node in them:
            await node.until_joined()

        assert ended > 100
        await until_equal(them[0], of, "calls_in_flight", 40)
        await until_equal(them[1], of, "tokens_per_day", 10**9 - 7 * ended)

        load = [asyncio.create_task(work(node, time.monotonic() + 2)) for node in them for _ in range(10)]
        await asyncio.sleep(0.5)
        await order(server, "FLUSHALL")
        await asyncio.gather(*load)
        for node in them:
            await node.until_joined()
        await until_equal(them[0], of, "calls_in_flight", 40)
        missing = await remaining(them[1].limiter, of, "tokens_per_day") - (10**9 - 7 * ended)
        assert 0 <= missing <= 7 * 40  # calls of the other node that ended in the last moment


async def until_equal(node: Node, of: Subject, limit: str, amount: int) -> None:
    """What another node tells (settles, its leases) is under way for a moment, on a connection of its own."""
    found = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            while (found := await remaining(node.limiter, of, limit)) != amount:
                await asyncio.sleep(0.02)
    assert found == amount
