from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from scibox.engines.embedder.arrays import Ids, Vectors
from scibox.engines.embedder.desk import Desk


class Counting:
    """An encoder whose vector says which text it was; it waits for `go` before each run when told to."""

    dimensions = 2

    def __init__(self, *, gated: bool = False) -> None:
        self.runs: list[list[int]] = []
        self.started = threading.Event()
        self.go = threading.Semaphore(0 if gated else 1_000_000)

    def encode(self, texts: Sequence[Ids], length: int) -> Vectors:
        self.started.set()
        assert self.go.acquire(timeout=10)
        if any(text[0] == 666 for text in texts):
            raise FloatingPointError("not finite")
        self.runs.append([int(text[0]) for text in texts])
        return np.array([[text[0], len(text)] for text in texts], np.float32)


def text(first: int, length: int) -> Ids:
    return np.full(length, first, np.int32)


async def test_vectors_come_back_in_the_order_of_the_texts() -> None:
    desk = Desk(Counting(), batch_tokens=64, max_tokens=512)
    lengths = [5, 300, 12, 7, 64, 1]

    vectors = await desk.embed([text(n, length) for n, length in enumerate(lengths)])

    assert vectors.tolist() == [[n, length] for n, length in enumerate(lengths)]


async def test_calls_at_the_same_time_get_their_own_vectors() -> None:
    desk = Desk(Counting(), batch_tokens=64, max_tokens=512)

    answers = await asyncio.gather(*(desk.embed([text(10 * n, 5), text(10 * n + 1, 9)]) for n in range(20)))

    assert [answer[:, 0].tolist() for answer in answers] == [[10 * n, 10 * n + 1] for n in range(20)]


async def test_a_cancelled_call_s_waiting_texts_do_not_run() -> None:
    encoder = Counting(gated=True)
    desk = Desk(encoder, batch_tokens=16, max_tokens=512)
    async with asyncio.TaskGroup() as group:
        bulk = group.create_task(desk.embed([text(1, 16) for _ in range(50)]))
        await asyncio.to_thread(encoder.started.wait, 10)
        bulk.cancel()
    encoder.go.release(2)

    await desk.embed([text(2, 16)])

    assert encoder.runs == [[1], [2]]


async def test_a_failing_run_ends_its_calls_and_no_others() -> None:
    desk = Desk(Counting(), batch_tokens=16, max_tokens=512)

    bad, good = await asyncio.gather(
        desk.embed([text(666, 16), text(1, 16)]), desk.embed([text(2, 16)]), return_exceptions=True
    )

    assert isinstance(bad, FloatingPointError)
    assert isinstance(good, np.ndarray)
    with pytest.raises(FloatingPointError):
        await desk.embed([text(666, 3)])
    assert (await desk.embed([text(3, 3)])).tolist() == [[3, 3]]
