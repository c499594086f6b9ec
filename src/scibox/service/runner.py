"""Runs the batches: takes up what is under way, cleans up, stops with the service."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter

from scibox.core.conditions import Condition
from scibox.core.errors import StorageUnavailable
from scibox.core.events import Notice

from .work import Tools, Work

WATCH_S = 5.0  # a look without a reason: another process may have changed something, or the disk is back
SWEEP_S = 600.0
AT_ONCE_PER_OWNER = 4  # batches; the others wait, oldest first


class Runner:
    """One per service. Of several services on one data folder, one runs the batches."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._works: dict[str, tuple[Work, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._is_draining = False
        self._swept_at: float | None = None
        self._trouble = Condition("batches")

    def wake(self) -> None:
        """Something about the batches has changed."""
        self._wake.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            self._wake.clear()
            try:
                if await self._tools.disk.run(self._tools.shelf.claim):
                    await self._look()
                    await self._sweep()
                self._trouble = Condition("batches")
            except Exception as error:  # whatever is wrong with batches, calls go on
                reason = error.message if isinstance(error, StorageUnavailable) else repr(error)
                words = f"They stand still: {reason}"
                if words != self._trouble.words:
                    self._tools.emit(Notice(f"batches stand still: {reason}", is_warning=True))
                    self._trouble = Condition("batches", False, words, self._tools.now())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_S):
                    await self._wake.wait()

    def conditions(self) -> list[Condition]:
        """Whether batches go on."""
        return [self._trouble]

    def drain(self) -> None:
        """Start no more lines; those that run may finish."""
        self._is_draining = True
        for work, _ in self._works.values():
            work.is_draining = True

    async def stop(self, within_s: float) -> None:
        """Give back the lines that still run, and record the results there are; waits so long at most."""
        self.drain()
        for work, _ in self._works.values():
            work.interrupt("stopped")
        tasks = [task for _, task in self._works.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        """Begin what is due, and tell those at work what has changed."""
        batches = await self._tools.disk.run(self._tools.shelf.under_way)
        if self._is_draining:
            return
        busy = Counter(work.batch.owner for work, _ in self._works.values())
        for batch in batches:
            is_ending = batch.status == "cancelling" or batch.is_late(self._tools.now())
            if batch.batch_id in self._works:
                if batch.status == "cancelling":
                    self._works[batch.batch_id][0].interrupt("cancelled")
            elif is_ending or busy[batch.owner] < AT_ONCE_PER_OWNER:
                busy[batch.owner] += 1
                work = Work(batch, self._tools)
                task = asyncio.create_task(work.run())
                self._works[batch.batch_id] = (work, task)
                task.add_done_callback(functools.partial(self._on_end, batch.batch_id))

    def _on_end(self, batch_id: str, task: asyncio.Task[None]) -> None:
        del self._works[batch_id]
        if task.cancelled():
            return
        if (error := task.exception()) is not None:  # it is taken up again at the next look
            self._tools.emit(Notice(f"{batch_id} stumbled: {error!r}", is_warning=True))
            return
        self._wake.set()

    async def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._swept_at is None or now - self._swept_at >= SWEEP_S:
            self._swept_at = now
            await self._tools.disk.run(self._tools.shelf.sweep, self._tools.now())
