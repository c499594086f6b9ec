"""Asking a limiter, in memory or shared, as the desk does."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence

from scibox.core.admission import Allowance, Subject, Wish
from scibox.core.limits import Limiter, Moment, Verdict
from scibox.core.types import Limits

numbers = itertools.count(1)


def at() -> Moment:
    return Moment(time.monotonic(), time.time())


def subject(name: str = "key:one", **limits: int) -> Subject:
    return Subject(name, Limits(**limits))


def wish(*subjects: Subject, tokens: int = 100, texts: int = 0) -> Wish:
    prompt = tokens // 2
    more = (prompt, tokens - prompt, texts, 60.0)
    return Wish(f"req_{next(numbers)}", "one", "team", 1.0, "m", "interactive", *more, subjects)


async def take(limiter: Limiter, wanted: Wish) -> Verdict:
    answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    limiter.take(wanted, at(), answer.set_result)
    return await asyncio.wait_for(answer, 10)


async def left(limiter: Limiter, *subjects: Subject) -> dict[tuple[str, str], Allowance]:
    answer: asyncio.Future[Sequence[Allowance]] = asyncio.get_running_loop().create_future()
    limiter.allowances(subjects, at(), answer.set_result)
    return {(found.subject, found.limit): found for found in await asyncio.wait_for(answer, 10)}


async def remaining(limiter: Limiter, of: Subject, limit: str) -> int:
    return (await left(limiter, of))[of.name, limit].remaining


@contextlib.asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Generous bounds: the machine may be slow."""
    async with asyncio.timeout(seconds):
        yield


async def until(condition, seconds: float = 20.0) -> float:  # type: ignore[no-untyped-def]  # any callable
    """Wait for it; how long that was."""
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
    return time.monotonic() - began
