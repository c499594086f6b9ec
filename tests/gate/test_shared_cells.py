"""What an emptied server of the shared limits is told of running calls is what their ends give back, to the unit."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from limiting import subject, until, wish
from servers import Server, order, valkey, valkey_program

from scibox.core.admission import Allowance, Subject
from scibox.core.events import Event
from scibox.core.limits import Moment, Verdict
from scibox.gate.shared import BEAT_S, SharedLimiter

CELL_S = 0.06  # of a window of a minute

pytestmark = pytest.mark.skipif(valkey_program() is None, reason="no valkey-server, no redis-server")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with valkey() as running:
        yield running


class Node:
    """Whose clock is shifted, so that its cells and the server's begin at other moments."""

    def __init__(self, server: Server, shift_s: float, prefix: str) -> None:
        self._server = server
        self._shift_s = shift_s
        self.prefix = prefix or f"t{time.monotonic_ns()}"
        self.limiter = SharedLimiter(
            server.url, self._hear, prefix=self.prefix, clock=self.clock, budget_s=5.0
        )
        self._running: list[str] = []

    def _hear(self, event: Event) -> None:
        """What the operator is told is asked elsewhere."""

    def clock(self) -> float:
        return time.monotonic() + self._shift_s

    def at(self, ago_s: float = 0.0) -> Moment:
        return Moment(self.clock() - ago_s, time.time())

    async def take(self, of: Subject, tokens: int, ago_s: float = 0.0) -> None:
        """As a call does whose moment was read a while ago, since it has waited for an answer."""
        wanted = wish(of, tokens=tokens)
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.limiter.take(wanted, self.at(ago_s), answer.set_result)
        assert (await asyncio.wait_for(answer, 10)).taken
        self._running.append(wanted.call_id)

    def end_all(self, tokens: int) -> None:
        for call_id in self._running:
            self.limiter.settle(call_id, tokens, self.at())

    async def left(self, of: Subject, limit: str = "tokens_per_minute") -> int:
        answer: asyncio.Future[list[Allowance]] = asyncio.get_running_loop().create_future()
        self.limiter.allowances([of], self.at(), lambda found: answer.set_result(list(found)))
        return next(a.remaining for a in await asyncio.wait_for(answer, 10) if a.limit == limit)

    async def lose_server(self) -> None:
        """It is emptied, which a node hears when it asks next."""
        await order(self._server, "FLUSHALL")
        await self.left(subject("key:other", tokens_per_minute=1))
        assert self.limiter.is_degraded

    async def until_joined(self) -> None:
        await until(lambda: not self.limiter.is_degraded)


@contextlib.asynccontextmanager
async def joined(server: Server, shift_s: float = 0.0, prefix: str = "") -> AsyncIterator[Node]:
    node = Node(server, shift_s, prefix)
    try:
        await node.limiter.start(10.0)
        assert not node.limiter.is_degraded
        yield node
    finally:
        await node.limiter.stop()


@pytest.mark.parametrize("shift_s", [n / 6 * CELL_S for n in range(6)])
async def test_all_is_given_back_wherever_the_cells_of_node_and_server_begin(
    server: Server, shift_s: float
) -> None:
    of = subject(tokens_per_minute=10_000)
    async with joined(server, shift_s) as node:
        for n in reversed(range(10)):  # over more than a cell, so that some straddle the server's boundary
            await node.take(of, 100, ago_s=n * CELL_S / 8)
        await node.take(of, 100, ago_s=5 * CELL_S)  # its answer came late: others have asked since
        await node.lose_server()
        await node.until_joined()
        assert await node.left(of) == 10_000 - 11 * 100

        node.end_all(tokens=10)

        assert await node.left(of) == 10_000 - 11 * 10


@pytest.mark.parametrize("shift_s", [n / 6 * CELL_S for n in range(6)])
async def test_calls_that_end_while_it_joins_again_give_back_too(server: Server, shift_s: float) -> None:
    of = subject(tokens_per_minute=10_000)
    async with joined(server, shift_s) as node:
        await node.take(of, 100)
        await node.lose_server()
        await node.take(of, 200)  # alone
        node.end_all(tokens=10)
        await node.until_joined()

        assert await node.left(of) == 10_000 - 2 * 10


async def test_all_is_given_back_by_a_node_whose_idea_of_the_servers_time_is_wrong(server: Server) -> None:
    of = subject(tokens_per_minute=10_000)
    async with joined(server) as node:
        await node.take(of, 200, ago_s=CELL_S)
        await node.take(of, 100, ago_s=-20 * CELL_S)  # it is put into a cell that the server has not reached
        await node.lose_server()
        await node.until_joined()
        assert await node.left(of) == 10_000 - 300
        await asyncio.sleep(2 * CELL_S)

        node.end_all(tokens=10)

        assert await node.left(of) == 10_000 - 2 * 10


async def test_what_the_server_admits_counts_though_this_nodes_own_window_is_full_yet(server: Server) -> None:
    of = subject(calls_per_second=1, tokens_per_minute=10_000)
    async with joined(server) as node:
        await node.take(of, 100)
        await asyncio.sleep(1.1)
        await node.take(of, 100, ago_s=0.5)  # this node takes it to be within the second of the first
        await node.lose_server()
        await node.until_joined()

        assert await node.left(of) == 10_000 - 200


async def test_a_call_gives_back_no_more_than_what_the_emptied_server_was_told_of_it(server: Server) -> None:
    of = subject(tokens_per_minute=1_000)
    async with joined(server) as node, joined(server, prefix=node.prefix) as other:
        await until(lambda: node.limiter.nodes == 2)
        await node.lose_server()
        await node.take(of, 1_000)  # alone: all of its share, which is half of the limit
        await node.until_joined()
        await other.take(of, 300)

        node.end_all(tokens=0)

        assert await node.left(of) == 1_000 - 300


async def test_a_connection_that_ends_when_a_beat_is_due_is_made_again(server: Server) -> None:
    async with joined(server) as node:
        lost = node.limiter._line
        assert lost is not None
        asyncio.get_running_loop().call_later(BEAT_S + 0.1, lost.close, "it ended")
        time.sleep(BEAT_S + 0.2)  # then both are heard of at once

        await until(lambda: node.limiter._line is not lost and not node.limiter.is_degraded)
