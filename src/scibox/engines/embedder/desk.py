"""Runs the line: one micro-batch at a time on one thread, between the calls that wait for it.

Everything but the model's run happens on the event loop, where a function without `await` is atomic: the line
needs no lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from scibox.engines.embedder.arrays import Ids, Vectors
from scibox.engines.embedder.line import Batch, Line


class Encodes(Protocol):
    """What the desk needs of an encoder."""

    @property
    def dimensions(self) -> int:
        """The width of a vector."""

    def encode(self, texts: Sequence[Ids], length: int) -> Vectors:
        """Vectors of id lists padded to `length`."""


class _Call:
    def __init__(self, texts: Sequence[Ids], dimensions: int) -> None:
        self.texts = texts
        self.vectors: Vectors = np.empty((len(texts), dimensions), np.float32)
        self.missing = len(texts)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Desk:
    """Embeds calls in turns."""

    def __init__(self, encoder: Encodes, batch_tokens: int, max_tokens: int) -> None:
        self._encoder = encoder
        self._line = Line(batch_tokens, max_tokens)
        self._calls: dict[int, _Call] = {}
        self._last_number = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._runner: asyncio.Task[None] | None = None

    async def embed(self, texts: Sequence[Ids]) -> Vectors:
        """Vectors [texts, dimensions] in the order of the texts; on cancel, what still waits is dropped."""
        call = _Call(texts, self._encoder.dimensions)
        self._last_number += 1
        number = self._last_number
        self._calls[number] = call
        self._line.join(number, [len(text) for text in texts])
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        try:
            await call.done
        finally:
            self._line.leave(number)
            del self._calls[number]
        return call.vectors

    async def _run(self) -> None:
        """Works until nobody waits; the next call starts it again."""
        try:
            while batch := self._line.take():
                await self._run_one(batch)
        finally:
            self._runner = None

    async def _run_one(self, batch: Batch) -> None:
        loop = asyncio.get_running_loop()
        texts = [self._calls[place.call].texts[place.index] for place in batch.places]
        try:
            vectors = await loop.run_in_executor(self._thread, self._encoder.encode, texts, batch.length)
        except Exception as failure:  # whatever it is, its calls end with it and others go on
            self._fail(batch, failure)
        else:
            self._deliver(batch, vectors)

    def _deliver(self, batch: Batch, vectors: Vectors) -> None:
        for place, vector in zip(batch.places, vectors, strict=True):
            call = self._calls.get(place.call)  # gone when its client left
            if call is None:
                continue
            call.vectors[place.index] = vector
            call.missing -= 1
            if not call.missing and not call.done.done():
                call.done.set_result(None)

    def _fail(self, batch: Batch, failure: Exception) -> None:
        for number in {place.call for place in batch.places}:
            call = self._calls.get(number)
            self._line.leave(number)
            if call is not None and not call.done.done():
                call.done.set_exception(failure)
