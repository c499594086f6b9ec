"""The feeder: moves the journals of all processes of this data folder into the database, exactly once.

What has been read is noted in the transaction that inserts it; after any end of this process the segments
are read again from their start, and the database leaves out what it has. A segment is deleted when all of it
is in the database and no call that it opened still runs. A call that a dead process has left open gets the
outcome `interrupted`. One process feeds at a time; another that shares the folder stands by.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scibox.core.entries import Entry, Opened
from scibox.core.events import Emit, Notice
from scibox.core.types import Ending, Usage
from scibox.store.entries import EntryStore, Mark, Origin
from scibox.store.sql import DatabaseAway

from . import segments as journals
from .files import take
from .segments import Segment

PERIOD_S = 1.0
RETRY_S = 2.0  # while the database is away: it must be noticed within 10 s that it is back (PROMISES R3)
START = Mark(0, 0)
SWEEP_S = 60.0  # between two looks for entries that are too old
STEP_S = 0.05  # between two steps of a sweep: it is never in a hurry


@dataclass(slots=True)
class _Reader:
    """How far the journal of a process was read, and the calls that were open there."""

    mark: Mark = START
    opens: dict[str, tuple[int, Opened]] = field(default_factory=dict)  # with the number of the segment


class Feeder:
    """Feeds `store` from `folder`, on a thread of its own. `now` is Unix time; entries stay for `keep_s`."""

    def __init__(
        self,
        folder: Path,
        store: EntryStore,
        emit: Emit,
        *,
        keep_s: float,
        now: Callable[[], float] = time.time,
        period_s: float = PERIOD_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._folder = folder
        self._store = store
        self._emit = emit
        self.keep_s = keep_s
        self._now = now
        self._period_s = period_s
        self._retry_s = retry_s
        self._readers: dict[str, _Reader] = {}
        self._lock: int | None = None
        self._warned: set[tuple[str, int]] = set()
        self._swept_at = -1e9
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scibox-feeder", daemon=True)
        self.trouble: str | None = None  # why nothing is fed now, in words
        self.trouble_since = 0.0  # Unix seconds

    def start(self) -> None:
        """Feed until `stop`. The thread is a daemon's: a database that hangs must not hold the process."""
        self._thread.start()

    async def stop(self, within_s: float) -> None:
        """Feed what is there, if that can be done so soon; the rest waits for the next start."""
        self._stopping.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, within_s)

    def feed(self) -> int:
        """Feed all that is in the journals now; how many entries were new. `DatabaseAway`, `OSError`."""
        if self._lock is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = take(self._folder / "feeder.lock")
            self._readers.clear()  # what another has done since is not known here
        if self._lock is None:
            return 0
        # Who is dead is asked first, then what is there: of a dead process that is all it has ever written.
        known = journals.processes(self._folder)
        dead = {process for process in known if not journals.is_alive(self._folder, process)}
        inserted = 0
        for process, segments in journals.by_process(self._folder).items():
            inserted += self._feed_process(process, segments, is_alive=process not in dead)
            dead.discard(process)
        for process in dead:  # they have left nothing
            journals.forget(self._folder, process)
        return inserted

    def let_go(self) -> None:
        """Let another process feed."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def sweep(self) -> int:
        """Remove some of the entries that are too old; how many."""
        return self._store.remove_before(self._now() - self.keep_s)

    def _run(self) -> None:
        while not self._stopping.wait(self._step()):
            pass
        self._step(is_last=True)
        self.let_go()

    def _step(self, *, is_last: bool = False) -> float:
        """Do what there is to do; how long to wait then."""
        try:
            self.feed()
            wait_s = self._period_s
            if not is_last and self._lock is not None and time.monotonic() - self._swept_at >= SWEEP_S:
                if self.sweep():
                    wait_s = STEP_S
                else:
                    self._swept_at = time.monotonic()
        except Exception as error:  # whatever it is, calls go on, and it is tried again
            self._say_away(error)
            return self._retry_s
        if self.trouble is not None:
            self.trouble = None
            self._emit(Notice("the ledger's database is back; what the journal has kept is in it"))
        return wait_s

    def _say_away(self, error: Exception) -> None:
        if self.trouble is None:
            what = "database is away" if isinstance(error, DatabaseAway) else "journal cannot be fed"
            self._emit(
                Notice(f"the ledger's {what} ({error}); calls go on, the journal keeps them", is_warning=True)
            )
            self.trouble_since = self._now()
        self.trouble = str(error) or type(error).__name__

    def _feed_process(self, process: str, segments: Sequence[Segment], *, is_alive: bool) -> int:
        reader = self._readers.setdefault(process, _Reader())
        inserted = 0
        for index, segment in enumerate(segments):
            if segment.number < reader.mark.segment:
                continue
            has_next = index + 1 < len(segments)
            # Asked before reading: once the next one has begun, this one does not grow.
            is_left = has_next and (not is_alive or journals.has_begun(segments[index + 1]))
            inserted += self._feed_segment(process, reader, segment, is_growing=is_alive and not is_left)
            if not is_left:
                break
            reader.mark = Mark(segments[index + 1].number, 0)
        if is_alive:
            self._delete_fed(reader, segments)
        else:
            inserted += self._bury(process, reader, segments)
        return inserted

    def _feed_segment(self, process: str, reader: _Reader, segment: Segment, *, is_growing: bool) -> int:
        at = reader.mark.bytes if reader.mark.segment == segment.number else 0
        inserted = 0
        with journals.opened(segment) as descriptor:
            while (stretch := journals.read(descriptor, at, is_growing=is_growing)).end > at:
                at = stretch.end
                upto = Mark(segment.number, at)
                marked = [(Mark(segment.number, behind), record) for behind, record in stretch.records]
                entries = [(mark, record) for mark, record in marked if isinstance(record, Entry)]
                if entries:
                    inserted += self._store.add(self._origin(process), entries, upto)
                self._learn(reader, segment, [record for _, record in marked])
                reader.mark = upto
                self._warn(segment, at, stretch.lost_bytes)
            if not is_growing:
                self._warn(segment, at, journals.torn_bytes(descriptor, at))
        return inserted

    def _learn(self, reader: _Reader, segment: Segment, records: Sequence[Opened | Entry]) -> None:
        """Which calls are open now."""
        for record in records:
            if isinstance(record, Opened):
                reader.opens[record.request_id] = (segment.number, record)
            else:
                reader.opens.pop(record.request_id, None)

    def _delete_fed(self, reader: _Reader, segments: Sequence[Segment]) -> None:
        """From the first on, as far as nothing is needed: an end is never kept without its beginning."""
        needed = min([reader.mark.segment, *(number for number, _ in reader.opens.values())])
        for segment in segments:
            if segment.number >= needed:
                break
            self._remove(segment)

    def _bury(self, process: str, reader: _Reader, segments: Sequence[Segment]) -> int:
        """A dead process: what it left open was interrupted, and its files are no longer needed."""
        inserted = 0
        if reader.opens:
            entries = [_interrupted(opened) for _, opened in reader.opens.values()]
            inserted = self._store.close(self._origin(process), entries, reader.mark)
        for segment in segments:
            self._remove(segment)
        journals.forget(self._folder, process)
        self._readers.pop(process, None)
        return inserted

    def _remove(self, segment: Segment) -> None:
        segment.path.unlink(missing_ok=True)

    def _origin(self, process: str) -> Origin:
        return Origin(journals.node_id(self._folder), process)

    def _warn(self, segment: Segment, at: int, lost_bytes: int) -> None:
        name = segment.path.name
        if lost_bytes and (name, at) not in self._warned:
            self._warned.add((name, at))
            self._emit(
                Notice(f"{lost_bytes} bytes of the journal {name} are damaged, left out", is_warning=True)
            )


def _interrupted(opened: Opened) -> Entry:
    """The entry of a call whose process died: of its tokens only the estimate is known."""
    return Entry(
        request_id=opened.request_id,
        opened_at=opened.opened_at,
        key_id=opened.key_id,
        owner=opened.owner,
        model=opened.model,
        kind=opened.kind,
        endpoint=opened.endpoint,
        outcome=Ending.INTERRUPTED,
        code="interrupted",
        usage=Usage(prompt_tokens=opened.prompt_tokens),
        is_estimate=True,
        texts=opened.texts,
        attempts=1,
    )
