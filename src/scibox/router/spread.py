"""Several pieces of one call's work at a time: all end well, or the first failure ends them all."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def spread(pieces: Iterable[T], work: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Await `work` of each piece, `at_once` at a time; pieces are taken when their turn comes."""
    waiting = iter(pieces)
    first = list(itertools.islice(waiting, 2))
    if len(first) < 2:  # nearly always, and no task is needed for it
        for piece in first:
            await work(piece)
        return
    waiting = itertools.chain(first, waiting)

    async def hand() -> None:
        for piece in waiting:
            await work(piece)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(hand())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
