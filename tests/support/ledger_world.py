"""Processes that write journals, die and come again; feeders that are killed between any two steps; and the truth."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ledger_entries import BEGAN, entry, opened

from scibox.core import sums as arithmetic
from scibox.core.entries import Entry
from scibox.core.sums import CUTS, DAY_S, HOUR_S, LATEST, MONTH_S, Dimension, Group, Scope, Span, Sums
from scibox.core.types import Ending, Usage
from scibox.ledger import frames
from scibox.ledger.feeder import Feeder
from scibox.ledger.journal import Journal
from scibox.ledger.segments import Segment
from scibox.store.entries import EntryStore, Mark, Origin
from scibox.store.sql import DatabaseAway

FOREVER = Scope(0, LATEST)


class Killed(BaseException):
    """The process is gone in the middle of what it did."""


class Fuse:
    """Burns down at each step; at zero the process is killed. None: it never is."""

    def __init__(self) -> None:
        self.left: int | None = None

    def burn(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Killed


class FusedStore(EntryStore):
    """Kills before and after every transaction; says that it is away while it is told to."""

    fuse: Fuse
    is_away = False

    def add(self, origin: Origin, read: Sequence[tuple[Mark, Entry]], upto: Mark) -> int:
        return self._step(lambda: super(FusedStore, self).add(origin, read, upto))

    def close(self, origin: Origin, interrupted: Sequence[Entry], upto: Mark) -> int:
        return self._step(lambda: super(FusedStore, self).close(origin, interrupted, upto))

    def _step(self, work):  # type: ignore[no-untyped-def]
        if self.is_away:
            raise DatabaseAway("told so")
        self.fuse.burn()
        done = work()
        self.fuse.burn()
        return done


class FusedFeeder(Feeder):
    """Kills before and after every deletion."""

    fuse: Fuse

    def _remove(self, segment: Segment) -> None:
        self.fuse.burn()
        super()._remove(segment)
        self.fuse.burn()


def kill(journal: Journal) -> None:
    """What `kill -9` leaves of it: files as they are, the lock free."""
    for segment in (journal._segment, journal._spare):
        if segment is not None:
            os.close(segment.descriptor)
    journal._segment = journal._spare = None
    assert journal._lock is not None
    os.close(journal._lock)
    journal._lock = None


class World:
    """All of it, with what the ledger must hold in the end."""

    def __init__(self, folder: Path, store: FusedStore) -> None:
        self.folder = folder
        self.fuse = store.fuse = Fuse()
        self.store = store
        self.wanted: dict[str, Entry] = {}
        self.removed_before = 0.0
        self.number = 0
        self.running: list[tuple[Journal, dict[int, None]]] = []
        self.feeder = self._new_feeder()

    def start(self) -> None:
        """A process starts."""
        self.running.append((Journal(self.folder, lambda event: None, segment_bytes=2048), {}))

    def open(self, which: int) -> None:
        """A call starts in one of them."""
        if self.running:
            journal, calls = self.running[which % len(self.running)]
            self.number += 1
            calls[self.number] = None
            journal.opened(opened(self.number))

    def end(self, which: int) -> None:
        """A call ends, or a refused one comes and goes."""
        if self.running:
            journal, calls = self.running[which % len(self.running)]
            if calls:
                number = list(calls)[which % len(calls)]
                del calls[number]
                ended = entry(number)
            else:
                self.number += 1
                ended = entry(self.number, outcome=Ending.REFUSED, usage=Usage())
            self.wanted[ended.request_id] = ended
            journal.ended(ended)

    def kill(self, which: int, torn: int = 0) -> None:
        """One of them dies, perhaps in the middle of a write."""
        if self.running:
            journal, calls = self.running.pop(which % len(self.running))
            last = journal._segment
            if last is not None and torn:
                os.pwrite(last.descriptor, frames.frame(entry(0))[:torn], last.used_bytes)
            kill(journal)
            for number in calls:
                known = opened(number)
                self.wanted[known.request_id] = Entry(
                    request_id=known.request_id,
                    opened_at=known.opened_at,
                    key_id=known.key_id,
                    owner=known.owner,
                    model=known.model,
                    kind=known.kind,
                    endpoint=known.endpoint,
                    outcome=Ending.INTERRUPTED,
                    code="interrupted",
                    usage=Usage(known.prompt_tokens),
                    is_estimate=True,
                    attempts=1,
                )

    def feed(self, steps: int | None = None) -> None:
        """One round; killed after so many steps, the feeder starts anew and knows nothing."""
        self.fuse.left = steps
        try:
            with contextlib.suppress(DatabaseAway):
                self.feeder.feed()
        except Killed:
            self.feeder.let_go()
            self.feeder = self._new_feeder()
        self.fuse.left = None

    def remove(self, upto: int) -> None:
        """Retention: the entries of the first calls go, as far as they are fed."""
        at = entry(upto).opened_at
        self.removed_before = max(self.removed_before, at)
        while self.store.remove_before(at, 3):
            pass

    def finish(self) -> None:
        """Every process ends and everything is fed."""
        while self.running:
            self.kill(0)
        self.store.is_away = False
        self.feed()
        self.feeder.let_go()

    def check(self) -> None:
        """What must hold then: each call once, sums as they add up, nothing left on the disk."""
        held = {one.request_id: one for one in self.store.entries(FOREVER)}
        for request_id, one in self.wanted.items():
            assert request_id in held or one.opened_at < self.removed_before, one
        assert {name: held[name] for name in held} == {name: self.wanted[name] for name in held}
        agree(self.store, self.wanted.values())
        assert {path.name for path in self.folder.iterdir()} <= {"node", "feeder.lock"}

    def _new_feeder(self) -> FusedFeeder:
        feeder = FusedFeeder(self.folder, self.store, lambda event: None, keep_s=1e12)
        feeder.fuse = self.fuse
        return feeder


def agree(store: EntryStore, entries: object) -> None:
    """The sums of every cut and width are those of these entries."""
    counted = list(entries)  # type: ignore[call-overload]
    for cut in CUTS:
        for width_s in cut.widths_s:
            time: tuple[Dimension, ...] = {HOUR_S: ("hour",), DAY_S: ("day",), MONTH_S: ()}[width_s]
            by = (*cut.names, *time)
            assert arithmetic.cut_for(width_s, by) is cut
            found, _ = store.sums([Span(width_s, 0, LATEST)], by, FOREVER, "node")
            expected: dict[Group, Sums] = {}
            for one in counted:
                expected.setdefault(arithmetic.group(one, by), Sums()).add(arithmetic.of(one))
            assert set(found) == set(expected)
            for group, sums in expected.items():
                assert same(found[group], sums), (cut.table, group, found[group], sums)


def same(one: Sums, other: Sums) -> bool:
    """Counts alike; of floats the order of addition may show in the last digits."""
    return all(math.isclose(getattr(one, f), getattr(other, f), rel_tol=1e-9) for f in Sums.__struct_fields__)


def days(count: int) -> Iterator[int]:
    """The starts of the first days."""
    return (BEGAN + 86400 * day for day in range(count))
