"""What a limit costs that nodes share: take and settle on a server beside in memory.

    python bench/shared.py [valkey://host:port/0]

Without an address it starts the valkey-server or redis-server of this machine. Both run the same wishes: a key and
an owner with limits of calls a second and a minute, LLM tokens a minute, calls in flight and a quota of the day.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import sys
import time
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from limiting import at, subject, take, wish
from servers import valkey

from scibox.core.limits import Limiter, Windows
from scibox.gate.shared import SharedLimiter

CALLS = 5_000
OWNERS = 1_000
ROOM = {"calls_per_second": 10**6, "calls_per_minute": 10**7, "tokens_per_minute": 10**9,
        "calls_in_flight": 10**6, "tokens_per_day": 10**12}  # fmt: skip
SUBJECTS = [(subject(f"key:{n}", **ROOM), subject(f"owner:{n}", **ROOM)) for n in range(OWNERS)]


async def one_by_one(limiter: Limiter) -> list[float]:
    """Seconds of each take; nothing else is under way."""
    took = []
    for number in range(CALLS):
        wanted = wish(*SUBJECTS[number % OWNERS])
        began = time.perf_counter()
        await take(limiter, wanted)
        took.append(time.perf_counter() - began)
        limiter.settle(wanted.call_id, 20, at())
    return took


async def together(limiter: Limiter, at_once: int) -> tuple[float, float]:
    """Calls a second, and the microseconds of CPU of this process that each costs."""
    began, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)

    async def work(worker: int) -> None:
        for number in range(worker, CALLS, at_once):
            wanted = wish(*SUBJECTS[number % OWNERS])
            await take(limiter, wanted)
            limiter.settle(wanted.call_id, 20, at())

    await asyncio.gather(*(work(worker) for worker in range(at_once)))
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
    return CALLS / (time.perf_counter() - began), spent / CALLS * 1e6


async def measure(name: str, limiter: Limiter) -> None:
    took = sorted(await one_by_one(limiter))
    median, p99 = statistics.median(took) * 1e6, took[int(0.99 * len(took))] * 1e6
    per_s, cpu_us = await together(limiter, 50)
    print(f"{name:12} {median:9.0f} {p99:9.0f} {per_s:12.0f} {cpu_us:10.0f}")


async def main(url: str) -> None:
    print(f"{'':12} {'take, us':>9} {'p99, us':>9} {'50: calls/s':>12} {'CPU us':>10}")
    await measure("in memory", Windows())
    limiter = SharedLimiter(url, lambda event: None, prefix=f"bench{time.time_ns()}", budget_s=5.0)
    await limiter.start(5.0)
    assert not limiter.is_degraded, "the server is not there"
    await measure("on a server", limiter)
    await limiter.stop()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        uvloop.run(main(sys.argv[1]))
    else:
        with valkey() as server:
            uvloop.run(main(server.url))
