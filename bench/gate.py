"""What the gate costs: CPU of authenticate + admit + settle + journal for each call, while others wait.

    python bench/gate.py [--calls 20000]

1,000 owners with a key each and limits of calls and LLM tokens per minute; so many calls wait already, and each call that ends
starts one of them, so the queue keeps its length. The entry of each goes through the real journal. Prints
microseconds of CPU (user and system, of the whole process) per call, for 10 to 10,000 waiting calls; what a
task for each call costs, which the door has anyway, is measured by itself and taken off.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import random
import tempfile
import time
from collections import deque
from pathlib import Path

import uvloop

from scibox.core import secret
from scibox.core.limits import Windows
from scibox.core.types import Call, Chunk, Key, Limits, ModelCard, Owner, Price, Usage
from scibox.gate.desk import LocalDesk
from scibox.gate.gate import Gate
from scibox.gate.keyring import KeyRing, Known
from scibox.gate.ticket import Ticket
from scibox.ledger.journal import Journal

OWNERS = 1_000
SLOTS = 64
WAITING = (10, 100, 1_000, 10_000)
LIMITS = Limits(calls_per_minute=1_000_000, tokens_per_minute=2_000_000_000)
CARD = ModelCard("m", "chat", "bench", 1, 8192, price=Price(0.2, 0.8))
LAST = Chunk(b"data: [DONE]\n\n", Usage(40, 60), deltas=1, is_last=True)
PIECE = Chunk(b"data: {}\n\n", deltas=1)
PIECES = 4  # chunks before the last: what each costs is measured in bench/events.py
MOST_US = 40.0


def made_secret(number: int) -> str:
    """The secret of an owner's key."""
    chance = random.Random(number)
    return secret.compose([chance.randrange(62) for _ in range(secret.RANDOM_CHARS)])


class Load:
    """Calls that wait in the gate, and those that run."""

    def __init__(self, gate: Gate, secrets: list[str]) -> None:
        self._gate = gate
        self._secrets = secrets
        self._numbers = itertools.count()
        self._luck = random.Random(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self.running: deque[Ticket] = deque()

    def add(self) -> None:
        """One more call comes."""
        task = asyncio.ensure_future(self._come())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _come(self) -> None:
        key = await self._gate.authenticate(self._luck.choice(self._secrets))
        number = next(self._numbers)
        call = Call(f"req_{number:024x}", "chat", "m", "/chat/completions", {}, stream=True, text_bytes=160)
        ticket = self._gate.ticket(key, call, CARD)
        await ticket.__aenter__()
        self.running.append(ticket)

    async def end(self) -> None:
        """The oldest running call ends."""
        ticket = self.running.popleft()
        ticket.tried(0, "unix:/engine.sock")
        for _ in range(PIECES):
            ticket.count(PIECE)
        ticket.count(LAST)
        await ticket.recorded()
        await ticket.__aexit__(None, None, None)

    async def leave(self) -> None:
        """All of them leave."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self.running:
            await self.end()


async def measure(gate: Gate, secrets: list[str], waiting: int, calls: int) -> float:
    """Microseconds of CPU per call while so many wait."""
    load = Load(gate, secrets)
    for _ in range(SLOTS + waiting):
        load.add()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    begun = time.process_time()
    for _ in range(calls):
        load.add()
        await load.end()
        await asyncio.sleep(0)  # whose turn it is starts, the new call waits
    spent = time.process_time() - begun
    await load.leave()
    return spent / calls * 1e6


async def task_us(calls: int) -> float:
    """Microseconds of CPU of a task that comes, waits and is woken, and of the loop's turn."""
    loop = asyncio.get_running_loop()
    waiting: deque[asyncio.Future[None]] = deque()

    async def come() -> None:
        waiting.append(loop.create_future())
        await waiting[-1]

    tasks = [asyncio.ensure_future(come()) for _ in range(SLOTS)]
    await asyncio.sleep(0)
    begun = time.process_time()
    for _ in range(calls):
        tasks.append(asyncio.ensure_future(come()))
        waiting.popleft().set_result(None)
        await asyncio.sleep(0)
    spent = time.process_time() - begun
    for future in waiting:
        future.set_result(None)
    await asyncio.gather(*tasks)
    return spent / calls * 1e6


async def main(calls: int) -> None:
    """Measure each number of waiting calls and print it."""
    secrets = [made_secret(number) for number in range(OWNERS)]
    owners = {f"owner{number}": Owner(f"owner{number}", limits=LIMITS) for number in range(OWNERS)}
    keys = {
        secret.digest(text): Key(f"key_{number}", f"owner{number}", "k", "member", text[-4:], 1.0)
        for number, text in enumerate(secrets)
    }
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder), lambda _: None)
        desk = LocalDesk(
            lambda _: (SLOTS,),
            Windows(),
            time.monotonic,
            time.time,
            queue_per_model=100_000,
            queue_per_owner=100_000,
        )
        gate = Gate(
            KeyRing(Known(keys, owners)),
            desk,
            journal,
            lambda _: None,
            clock=time.monotonic,
            now=time.time,
            patience_s=86_400.0,
        )
        bare_us = await task_us(calls)
        print(f"{'waiting':>8} {'us of CPU per call':>20}   (without {bare_us:.1f} us for a task)")
        for waiting in WAITING:
            spent_us = await measure(gate, secrets, waiting, calls) - bare_us
            print(f"{waiting:>8} {spent_us:>20.1f}{'  over the aim' if spent_us > MOST_US else ''}")
        journal.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=20_000)
    uvloop.run(main(parser.parse_args().calls))
