"""What the gate costs: CPU of authenticate + admit + settle + journal for each call, while others wait.

    python bench/gate.py [--calls 20000]

1,000 owners with a key each and limits of calls and LLM tokens per minute; so many calls wait already, and each call that ends
starts one of them, so the queue keeps its length. The entry of each goes through the real journal. Prints
microseconds of CPU (user and system, of the whole process) per call, for 10 to 10,000 waiting calls: the
median of parts of 250 calls, and a quiet part (one of ten is below). What a call costs that goes through no
gate (its task, its record, a secret by chance) is measured by itself and taken off.

Beside it: what a machine as busy as this takes for a fixed piece of work (`REFERENCE`), to compare runs by;
and the look at a whole queue, which is made once a second or less often, however many calls come.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import itertools
import random
import statistics
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
from scibox.process import quicken

OWNERS = 1_000
SLOTS = 64
WAITING = (10, 100, 1_000, 10_000)
LIMITS = Limits(calls_per_minute=1_000_000, tokens_per_minute=2_000_000_000)
CARD = ModelCard("m", "chat", "bench", 1, 8192, price=Price(0.2, 0.8))
LAST = Chunk(b"data: [DONE]\n\n", Usage(40, 60), deltas=1, is_last=True)
PIECE = Chunk(b"data: {}\n\n", deltas=1)
PIECES = 4  # chunks before the last: what each costs is measured in bench/events.py
MOST_US = 40.0
PART = 250  # calls
REFERENCE = "a thousand SHA-256 of 64 bytes"


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

    def asked(self) -> tuple[str, Call]:
        """A secret and a call, as the door has them."""
        number = next(self._numbers)
        call = Call(f"req_{number:024x}", "chat", "m", "/chat/completions", {}, stream=True, text_bytes=160)
        return self._luck.choice(self._secrets), call

    async def _come(self) -> None:
        text, call = self.asked()
        key = await self._gate.authenticate(text)
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


class Bare(Load):
    """The same calls without a gate: each waits until the next one comes."""

    def __init__(self, secrets: list[str]) -> None:
        self._secrets = secrets
        self._numbers = itertools.count()
        self._luck = random.Random(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def _come(self) -> None:
        self.asked()
        self._waiting.append(asyncio.get_running_loop().create_future())
        await self._waiting[-1]

    async def end(self) -> None:
        """The oldest one ends."""
        self._waiting.popleft().set_result(None)

    async def leave(self) -> None:
        """All of them leave."""
        while self._waiting:
            await self.end()


async def measure(load: Load, before: int, calls: int) -> tuple[float, float]:
    """Microseconds of CPU per call while so many are there before it: the median of all parts, a quiet part."""
    for _ in range(before):
        load.add()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    parts_us = []
    for _ in range(max(2, calls // PART)):
        begun = time.process_time()
        for _ in range(PART):
            load.add()
            await load.end()
            await asyncio.sleep(0)  # whose turn it is starts, the new call waits
        parts_us.append((time.process_time() - begun) / PART * 1e6)
    await load.leave()
    return statistics.median(parts_us), sorted(parts_us)[len(parts_us) // 10]


def reference_us() -> float:
    """Microseconds of CPU of a fixed piece of work."""
    text = bytes(64)
    begun = time.process_time()
    for _ in range(1_000):
        hashlib.sha256(text).hexdigest()
    return (time.process_time() - begun) * 1e6


async def look_ms(gate: Gate, desk: LocalDesk, secrets: list[str], waiting: int) -> float:
    """Milliseconds of CPU of one look at a queue of that length."""
    load = Load(gate, secrets)
    for _ in range(SLOTS + waiting):
        load.add()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    room = desk._models["m"]
    begun = time.process_time()
    for _ in range(10):
        room.look(time.monotonic())
    spent = time.process_time() - begun
    await load.leave()
    return spent / 10 * 1e3


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
        quicken()  # as the service does when it has been made
        bare_us, quiet_bare_us = await measure(Bare(secrets), SLOTS, calls)
        print(f"{'waiting':>8} {'us of CPU per call':>20} {'quiet':>8} {'reference':>10} {'look, ms':>10}")
        for waiting in WAITING:
            reference = reference_us()
            spent_us, quiet_us = await measure(Load(gate, secrets), SLOTS + waiting, calls)
            over = "  over the aim" if spent_us - bare_us > MOST_US else ""
            look = await look_ms(gate, desk, secrets, waiting)
            print(
                f"{waiting:>8} {spent_us - bare_us:>20.1f} {quiet_us - quiet_bare_us:>8.1f} {reference:>10.0f} "
                f"{look:>10.1f}{over}"
            )
        print(
            f"taken off: {bare_us:.1f} us ({quiet_bare_us:.1f}) of a call without a gate; reference: {REFERENCE}, us"
        )
        journal.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=20_000)
    uvloop.run(main(parser.parse_args().calls))
