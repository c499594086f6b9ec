"""Results of a batch on their way to disk: left here one by one, recorded in groups by one writer."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import TypeVar

from scibox.core import batches as life
from scibox.core.batches import Batch
from scibox.core.errors import StorageUnavailable
from scibox.core.events import Emit, Notice
from scibox.store.lines import Results
from scibox.store.shelf import Shelf
from scibox.wire.stored.batches import custom_id

from .disk import Disk

T = TypeVar("T")
AGAIN_S = 2.0  # while the disk or the database is away
MOST_WAITING = 64  # results in memory before no more lines start


class Recorder:
    """Records one batch. `told` is given the stored batch and its owner's bytes after each group."""

    def __init__(
        self, batch: Batch, shelf: Shelf, disk: Disk, emit: Emit, told: Callable[[Batch, int], None]
    ) -> None:
        self.done: set[str] = set()  # custom ids that have a result
        self.completed = 0
        self.failed = 0
        self._batch = batch
        self._shelf = shelf
        self._disk = disk
        self._emit = emit
        self._told = told
        self._results = Results(
            shelf.content(batch.reserved_output_id), shelf.content(batch.reserved_error_id)
        )
        self._waiting: list[tuple[bytes, bool]] = []
        self._has_work = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_closing = False
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Learn what an earlier life of the service has recorded, and begin to write."""
        output, errors = await self._disk.run(self._results.load, custom_id)
        self.done = output | errors
        self.completed, self.failed = len(output), len(errors)
        self._writer = asyncio.create_task(self._write())

    def record(self, whose: str, line: bytes, *, is_failure: bool) -> None:
        """Leave one result, a line of JSON without its end."""
        self.done.add(whose)
        self.completed += not is_failure
        self.failed += is_failure
        self._waiting.append((line, is_failure))
        self._has_work.set()
        if len(self._waiting) >= MOST_WAITING:
            self._has_room.clear()

    async def room(self) -> None:
        """Wait while the disk does not keep up."""
        await self._has_room.wait()

    async def close(self) -> tuple[int, int]:
        """Wait until everything is recorded; the sizes of the output and the error file."""
        self._is_closing = True
        self._has_work.set()
        if self._writer is not None:
            await self._writer
        return await self._disk.run(self._results.close)

    def drop(self) -> None:
        """Give up what is not recorded: those lines will run again."""
        if self._writer is not None:
            self._writer.cancel()

    async def _write(self) -> None:
        while not (self._is_closing and not self._waiting):
            await self._has_work.wait()
            self._has_work.clear()
            group, self._waiting = self._waiting, []
            if group:
                await self._append(group)
                self._has_room.set()
                await self._tell()

    async def _append(self, group: list[tuple[bytes, bool]]) -> None:
        output, errors = (
            b"".join(line + b"\n" for line, is_failure in group if is_failure == wanted)
            for wanted in (False, True)
        )
        await persist(
            functools.partial(self._disk.run, self._results.append, output, errors),
            self._batch.batch_id,
            self._emit,
        )

    async def _tell(self) -> None:
        """Show how far the batch is; if that cannot be stored now, the next group says it too."""
        change = functools.partial(life.count, completed=self.completed, failed=self.failed)
        try:
            batch = await self._disk.run(self._shelf.change, self._batch.owner, self._batch.batch_id, change)
            stored = await self._disk.run(self._shelf.total_bytes, self._batch.owner)
        except StorageUnavailable:
            return
        self._told(batch, stored + self._results.size_bytes)


async def persist(work: Callable[[], Awaitable[T]], batch_id: str, emit: Emit) -> T:
    """Do it, again and again while disk or database are away; the log says so once."""
    is_away = False
    while True:
        try:
            result = await work()
        except StorageUnavailable as error:
            if not is_away:
                emit(Notice(f"{batch_id} waits for its storage: {error.message}", is_warning=True))
            is_away = True
            await asyncio.sleep(AGAIN_S)
        else:
            return result
