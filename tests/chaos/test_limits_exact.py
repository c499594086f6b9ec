"""PROMISES L1: limits are exact, however many processes answer: ten times the limit is asked for each time.

What was admitted is counted where it arrives, at the model server. `tests/gate/test_remote.py` counts the same
by the desk's own clock.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from counted import served
from world import IS_LONG, Told

from scibox.engines.fake_script import Script

TIMES = 10
ON_THE_WAY_S = 0.25  # how much longer than another a call may be on its way from the desk to here
WORKERS = pytest.mark.parametrize("workers", [1, 2, 4])


@WORKERS
async def test_calls_per_minute(tmp_path: Path, workers: int) -> None:
    limit = 300 if IS_LONG else 60
    async with served(tmp_path, workers, f"calls_per_minute = {limit}") as one:
        told = await one.ask(TIMES * limit, patience_s=5.0)

    assert len(one.engine.came) == limit
    assert sum(call.end == "whole" for call in told) == limit
    assert {(call.status, call.code) for call in told if call.end != "whole"} == {
        (429, "rate_limit_exceeded")
    }


@WORKERS
async def test_calls_per_second(tmp_path: Path, workers: int) -> None:
    limit, seconds = 30, 30 if IS_LONG else 4
    async with served(tmp_path, workers, f"calls_per_second = {limit}") as one:
        asking = asyncio.create_task(one.ask(TIMES * limit * (seconds // 4), patience_s=600.0))
        while not one.engine.came:
            await asyncio.sleep(0.01)
        await asyncio.sleep(seconds)
        asking.cancel()  # the others leave the queue
        await asyncio.gather(asking, return_exceptions=True)
    span_s = one.engine.came[-1] - one.engine.came[0]

    # While hundreds of calls come at once, the first of them are on their way for longer.
    assert one.engine.most_within(1.0 - ON_THE_WAY_S, after_s=1.0 - ON_THE_WAY_S) <= limit + 1
    assert len(one.engine.came) <= 1.01 * limit * (int(span_s + ON_THE_WAY_S) + 1) + 1
    assert one.engine.after(seconds - 1 + 2 * ON_THE_WAY_S) >= 0.99 * limit * (seconds - 1)


@WORKERS
async def test_calls_in_flight(tmp_path: Path, workers: int) -> None:
    limit = 8
    script = Script(first_chunk_delay_s=0.1)
    async with served(tmp_path, workers, f"calls_in_flight = {limit}", script) as one:
        told = await one.ask(TIMES * limit, patience_s=60.0)

    assert {call.end for call in told} == {"whole"}
    assert one.engine.most_at_once == limit


@WORKERS
async def test_tokens_per_minute(tmp_path: Path, workers: int) -> None:
    """A call reserves an estimate and gives back what it did not use, so it takes a few rounds."""
    limit = 600
    told: list[Told] = []
    async with served(tmp_path, workers, f"tokens_per_minute = {limit}") as one:
        while not told or any(call.end == "whole" for call in told[-60:]):
            told += await one.ask(60, patience_s=0.5)

    used = sum(sum(call.usage) for call in told if call.usage)
    assert used <= 1.01 * limit
    assert used >= 0.95 * limit  # the next call would have reserved more than is left
