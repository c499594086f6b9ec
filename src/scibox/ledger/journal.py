"""The journal: what a process has to say of its calls, in files of its own, before anything else happens.

A record is one `pwrite` into the page cache: it survives the death of this process at once, and a loss of
power after `settled` in strict mode. Rules when the disk does not take it (PROMISES R7):

- Space is reserved a segment ahead: a full disk is noticed while there is room for thousands of calls.
- What cannot be written waits in memory, in order, and is tried again. Nothing is written half: a record
  that was written in part is written again at the same place, and a reader leaves out what has no good sum.
- When `most_waiting` records wait, `check` refuses new calls; those that run are still recorded.
- In strict mode one waiting record is enough for that, and `settled` fails where one was not taken.

One event loop uses it. A process that forks opens its own afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from scibox.core.entries import Entry, Opened
from scibox.core.errors import StorageUnavailable
from scibox.core.events import Emit, Notice
from scibox.core.types import Ending

from . import frames
from .files import Files, hold

SEGMENT_BYTES = 4 * 2**20  # about 8,000 calls
MOST_WAITING = 10_000  # records, of about half a kilobyte each
RETRY_S = 0.2
PATIENCE_S = 5.0  # of `settled`, for a disk that does not take it
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(slots=True)
class _Segment:
    path: Path
    descriptor: int
    size_bytes: int
    used_bytes: int = 0


class Journal:
    """The segments of this process in `folder`. `clock` is monotonic seconds."""

    def __init__(
        self,
        folder: Path,
        emit: Emit,
        *,
        is_strict: bool = False,
        segment_bytes: int = SEGMENT_BYTES,
        most_waiting: int = MOST_WAITING,
        files: Files | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.process = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}-{secrets.token_hex(4)}"
        self._folder = folder
        self._emit = emit
        self._is_strict = is_strict
        self._segment_bytes = segment_bytes
        self._most_waiting = 1 if is_strict else most_waiting
        self._files = files or Files()
        self._clock = clock
        self._lock: int | None = None
        self._number = 0
        self._segment: _Segment | None = None
        self._spare: _Segment | None = None
        self._retired: list[int] = []  # descriptors of segments that are left, but perhaps not yet synced
        self._has_new_names = False  # in the folder, perhaps not yet synced
        self._waiting: deque[bytes] = deque()
        self._trouble: str | None = None
        self.trouble_since = 0.0  # Unix seconds
        self._tried_at = -1e9
        self._timer: asyncio.TimerHandle | None = None
        self._syncer = ThreadPoolExecutor(1, "scibox-journal") if is_strict else None
        self._group: asyncio.Future[None] | None = None
        self._syncing: asyncio.Task[None] | None = None
        self._try(self._reserve)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the disk, in words; None while all is well."""
        return self._trouble

    @property
    def waiting(self) -> int:
        """Records that the disk has not taken yet."""
        return len(self._waiting)

    def check(self) -> None:
        """Whether a new call may start: `StorageUnavailable` where it could not be recorded."""
        if self._waiting:
            self._retry()
        if len(self._waiting) >= self._most_waiting:
            raise StorageUnavailable(
                "Calls cannot be recorded now, so none are started; try again in a minute. "
                "If that lasts, tell the operator: the disk of the data folder is full or broken.",
                retry_after_s=30,
            )

    def opened(self, record: Opened) -> None:
        """A call starts at a replica."""
        self._append(frames.frame(record))

    def ended(self, entry: Entry) -> None:
        """What became of a call. One that `check` has refused is not kept: their number has no bound."""
        if self._waiting and entry.outcome is Ending.REFUSED and entry.code == StorageUnavailable.code:
            return
        self._append(frames.frame(entry))

    async def settled(self) -> None:
        """In strict mode: wait until all that was recorded is on the disk itself, or `StorageUnavailable`."""
        if self._syncer is None:
            return
        give_up_at = self._clock() + PATIENCE_S
        while self._waiting:
            if self._clock() >= give_up_at:
                raise _not_recorded(self._trouble)
            await asyncio.sleep(RETRY_S)
        if self._group is None:
            self._group = asyncio.get_running_loop().create_future()
        group = self._group
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.create_task(self._sync())
        try:
            await asyncio.shield(group)
        except OSError as error:
            raise _not_recorded(error.strerror) from error

    def close(self) -> None:
        """Give back what was reserved and let the process's lock go; the feeder takes the rest."""
        if self._waiting:
            self._try(self._write_waiting)
        if self._timer is not None:
            self._timer.cancel()
        if self._syncer is not None:
            self._syncer.shutdown()
        if self._is_strict and self._segment is not None:
            with contextlib.suppress(OSError):
                self._files.sync(self._segment.descriptor)
        if self._segment is not None:
            self._retire()
        self._close_retired()
        if self._spare is not None:
            with contextlib.suppress(OSError):
                self._files.close(self._spare.descriptor)
                self._spare.path.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
        self._segment = self._spare = self._lock = None

    def _append(self, data: bytes) -> None:
        segment = self._segment
        if self._trouble is None and segment is not None and not self._waiting:  # the good path
            at = segment.used_bytes
            end = at + len(data)
            if end <= segment.size_bytes // 2 or (self._spare is not None and end <= segment.size_bytes):
                try:
                    self._files.write(segment.descriptor, data, at)
                except OSError as error:
                    self._tried_at = self._clock()
                    self._on_failed_write(error)
                    self._complain(error)
                    self._waiting.append(data)
                else:
                    segment.used_bytes = end
                return
        if self._waiting:  # order is kept
            self._waiting.append(data)
            self._retry()
        elif not self._try(self._write, data):
            self._waiting.append(data)

    def _write(self, data: bytes) -> None:
        segment = self._segment
        if segment is None or segment.used_bytes + len(data) > segment.size_bytes:
            segment = self._advance()
        try:
            self._files.write(segment.descriptor, data, segment.used_bytes)
        except OSError as error:
            self._on_failed_write(error)
            raise
        segment.used_bytes += len(data)
        if self._spare is None and segment.used_bytes > segment.size_bytes // 2 and self._may_try():
            self._try(self._reserve)

    def _on_failed_write(self, error: OSError) -> None:
        if error.errno not in _FULL:  # this file may be broken for ever; the next one need not be
            self._retire()

    def _write_waiting(self) -> None:
        while self._waiting:
            self._write(self._waiting[0])
            self._waiting.popleft()

    def _advance(self) -> _Segment:
        """Leave the segment for the next one."""
        if self._spare is None:
            self._reserve()
        if self._segment is not None:
            self._retire()
        assert self._spare is not None
        self._segment, self._spare = self._spare, None
        return self._segment

    def _reserve(self) -> None:
        """Have an empty segment at hand."""
        if self._spare is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._lock is None:
            self._lock = hold(self._folder / f"{self.process}.lock")
        path = self._folder / f"{self.process}-{self._number + 1:06}.log"
        descriptor = self._files.create(path, self._segment_bytes)
        self._number += 1
        self._has_new_names = True
        self._spare = _Segment(path, descriptor, self._segment_bytes)

    def _retire(self) -> None:
        segment, self._segment = self._segment, None
        assert segment is not None
        with contextlib.suppress(OSError):
            if segment.used_bytes:
                self._files.trim(segment.descriptor, segment.used_bytes)
            else:
                segment.path.unlink(missing_ok=True)
        self._retired.append(segment.descriptor)
        if self._syncer is None:
            self._close_retired()

    def _close_retired(self) -> None:
        while self._retired:
            with contextlib.suppress(OSError):
                self._files.close(self._retired.pop())

    @property
    def _has_room(self) -> bool:
        """Whether a segment is there for what comes, without a new one."""
        segment = self._segment
        return self._spare is not None or (
            segment is not None and segment.used_bytes <= segment.size_bytes // 2
        )

    def _may_try(self) -> bool:
        return self._trouble is None or self._clock() - self._tried_at >= RETRY_S

    def _retry(self) -> None:
        """Try again what waits, not too often."""
        if self._may_try():
            self._try(self._write_waiting if self._waiting else self._reserve)

    def _try(self, work: Callable[..., None], *arguments: bytes) -> bool:
        """Whether the disk took it; the log hears when that changes."""
        self._tried_at = self._clock()
        try:
            work(*arguments)
        except OSError as error:
            self._complain(error)
            return False
        if self._trouble is not None and not self._waiting and self._has_room:
            self._trouble = None
            self._emit(Notice("the journal of calls can be written again; nothing was lost"))
        return True

    def _complain(self, error: OSError) -> None:
        reason = error.strerror or type(error).__name__
        if self._trouble is None:
            self._emit(
                Notice(
                    f"the journal of calls has no room ({reason}): calls go on, entries without room wait in "
                    f"memory, and from {self._most_waiting} on new calls are refused; see to {self._folder}",
                    is_warning=True,
                )
            )
            self.trouble_since = time.time()
        self._trouble = reason
        with contextlib.suppress(RuntimeError):  # without a loop the next record tries again
            if self._timer is None or self._timer.when() <= asyncio.get_running_loop().time():
                self._timer = asyncio.get_running_loop().call_later(5 * RETRY_S, self._again)

    def _again(self) -> None:
        """Try while nobody calls."""
        self._timer = None
        if self._trouble is not None:
            self._tried_at = -1e9
            self._retry()

    async def _sync(self) -> None:
        """Bring group after group to the disk; whoever comes while one is under way is in the next."""
        loop = asyncio.get_running_loop()
        while self._group is not None:
            group, self._group = self._group, None
            retired = list(self._retired)
            descriptors = [*retired, self._segment.descriptor] if self._segment else retired
            try:
                await loop.run_in_executor(self._syncer, self._sync_all, descriptors)
            except OSError as error:
                self._abandon(error, group)
                continue
            group.set_result(None)
            for descriptor in set(retired) & set(self._retired):
                self._retired.remove(descriptor)
                self._files.close(descriptor)

    def _abandon(self, error: OSError, group: asyncio.Future[None]) -> None:
        """What a failed fsync had to write may be gone for ever: tell who counts on it, use another file."""
        if self._segment is not None:
            self._retire()
        self._close_retired()
        self._complain(error)
        for waiting in (group, self._group):
            if waiting is not None:
                waiting.set_exception(error)
                waiting.exception()  # its callers may all have left
        self._group = None

    def _sync_all(self, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            self._files.sync(descriptor)
        if self._has_new_names:
            self._has_new_names = False
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _not_recorded(reason: str | None) -> StorageUnavailable:
    return StorageUnavailable(
        f"The answer could not be recorded on the disk ({reason or 'it takes too long'}), which this "
        "service is set to require (ledger.strict); try again in a minute.",
        retry_after_s=30,
    )
