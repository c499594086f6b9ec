"""Several calls answered as one: the choices of a call, or the prompts of a list, each an attempt of its own.

llama-server counts one of the choices that it is asked for at once, and one call with `n` of 128 would have
all its slots: so each choice is a call, a few at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from typing import TypeVar

from scibox.core.types import Call, Chunk
from scibox.wire import sse
from scibox.wire.merging import Merger

AT_ONCE = 4  # half of the slots that an engine has by default
AHEAD = 4  # events that wait for a slow reader, for all the answers together

T = TypeVar("T")
Answer = Callable[[Call], AsyncGenerator[Chunk, None]]


async def merged(calls: Sequence[Call], answer: Answer, *, group: int = 0) -> AsyncGenerator[Chunk, None]:
    """The answers of all the calls as chunks of one, choice i from call i.

    `calls` differ in their prompts every `group` calls (0: never). The first error ends all of them.
    """
    merger = Merger(len(calls), group or len(calls))
    if not calls[0].stream:
        yield merger.whole(await _whole(calls, answer))
        return
    queue: asyncio.Queue[tuple[int, Chunk] | None] = asyncio.Queue(AHEAD)
    running = asyncio.create_task(_fill(queue, calls, answer))
    try:
        while (item := await queue.get()) is not None:
            index, chunk = item
            event = merger.event(index, chunk)
            if event or chunk.usage:
                usage = merger.usage if chunk.usage else None
                yield Chunk(event, usage, chunk.headers, deltas=chunk.deltas)
        await running
        yield Chunk(merger.ending(with_usage=calls[0].wants_usage), merger.usage)
        yield Chunk(sse.DONE, is_last=True)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await running


async def _fill(
    queue: asyncio.Queue[tuple[int, Chunk] | None], calls: Sequence[Call], answer: Answer
) -> None:
    """Put the chunks of all the calls into the queue, and None at the end, good or bad."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def run(index: int, call: Call) -> None:
        async with slots, aclosing(answer(call)) as chunks:
            async for chunk in chunks:
                await queue.put((index, chunk))

    try:
        await _together([run(index, call) for index, call in enumerate(calls)])
    except Exception:  # not when cancelled: then nobody reads any more
        await queue.put(None)
        raise
    await queue.put(None)


async def _whole(calls: Sequence[Call], answer: Answer) -> list[Chunk]:
    slots = asyncio.Semaphore(AT_ONCE)

    async def run(call: Call) -> Chunk:
        async with slots, aclosing(answer(call)) as chunks:
            [chunk] = [chunk async for chunk in chunks]
            return chunk

    return await _together([run(call) for call in calls])


async def _together(waits: Sequence[Coroutine[None, None, T]]) -> list[T]:
    """All the results; the first error cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(wait) for wait in waits]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
