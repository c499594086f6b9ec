"""What calls cost: sums from the database, and from the journals of this data folder what is not there yet.

The files of the journals are opened before the database is asked how far they were read: so nothing is missed
or counted twice while the feeder works and deletes. What other nodes have not fed yet is not in the sums.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scibox.core import sums as arithmetic
from scibox.core.admission import of_key, of_model, of_owner
from scibox.core.entries import Entry
from scibox.core.sums import DAY_S, HOUR_S, MONTH_S, Dimension, Group, Scope, Sums
from scibox.core.types import Ending
from scibox.store.entries import EntryStore, Failed, Mark

from . import segments as journals
from .segments import Segment

MOST_SEGMENTS = 64  # that a report reads: more wait only after the database was away for long
Held = list[tuple[Segment, int]]


@dataclass(frozen=True, slots=True)
class Report:
    """The sums of each group, in order; `behind_bytes` of journals are not in them."""

    rows: tuple[tuple[Group, Sums], ...]
    behind_bytes: int = 0


@dataclass(frozen=True, slots=True)
class OfPeriod:
    """LLM tokens of a day and of its month, of those who have used any; `behind_bytes` as of `Report`."""

    tokens: Mapping[str, tuple[int, int]]
    behind_bytes: int = 0


class Reports:
    """Reads `store` and the journals in `folder`. Methods block, and raise `DatabaseAway`."""

    def __init__(self, folder: Path, store: EntryStore, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._store = store
        self._now = now

    def sums(self, scope: Scope, by: Sequence[Dimension]) -> Report:
        """The sums of each group, over whole hours."""
        scope = scope.in_hours()
        spans = arithmetic.spans(scope.since, self._end(scope.until), _finest(by))
        with self._held() as held:
            found, marks = self._store.sums(spans, by, scope, self._node)
            entries, behind_bytes = _unfed(held, marks)
        for entry in entries:
            if scope.has(entry):
                found.setdefault(arithmetic.group(entry, by), Sums()).add(arithmetic.of(entry))
        return Report(tuple(sorted(found.items(), key=lambda row: row[0])), behind_bytes)

    def failed(self, owner: str | None, limit: int) -> list[Failed]:
        """The last calls (of an owner) that did not finish, the newest first."""
        with self._held() as held:
            found, marks = self._store.failed(owner, limit, self._node)
            entries, _ = _unfed(held, marks)
        found += [_failed(entry) for entry in entries if _has_failed(entry, owner)]
        return sorted(found, key=lambda call: call.opened_at, reverse=True)[:limit]

    def entries(self, scope: Scope) -> Iterator[Entry]:
        """The entries of a scope in the database, the oldest first; never many of them in memory."""
        return self._store.entries(scope)

    def unfed(self, scope: Scope) -> int:
        """How many calls of a scope are in the journals only."""
        with self._held() as held:
            entries, _ = _unfed(held, self._store.marks(self._node))
        return sum(map(scope.has, entries))

    def sums_of_period(self, now: float) -> OfPeriod:
        """What every subject of limits has used in this day and this month (UTC)."""
        tokens: dict[str, tuple[int, int]] = {}
        behind_bytes = 0
        for place, width_s in enumerate((DAY_S, MONTH_S)):
            begin = arithmetic.start(now, width_s)
            whole = Scope(begin, arithmetic.after(begin + 1, width_s))
            report = self.sums(whole, ("owner", "key", "model"))
            behind_bytes = max(behind_bytes, report.behind_bytes)
            for (owner, key, model), sums in report.rows:
                used = [0, 0]
                used[place] = sums.prompt_tokens + sums.completion_tokens
                for subject in (
                    of_owner(str(owner)),
                    of_key(str(key)),
                    of_model(str(model)),
                    of_model(str(model), str(owner)),
                ):
                    day, month = tokens.get(subject, (0, 0))
                    tokens[subject] = (day + used[0], month + used[1])
        return OfPeriod(tokens, behind_bytes)

    def _end(self, until: int) -> int:
        """Nothing comes from the future: so the month that is under way may be read as a whole."""
        now = self._now()
        return until if until < now else max(until, arithmetic.after(int(now) + 1, MONTH_S))

    @property
    def _node(self) -> str:
        return journals.node_id(self._folder)

    @contextlib.contextmanager
    def _held(self) -> Iterator[Held]:
        """The segments in which anything stands, open."""
        with contextlib.ExitStack() as stack:
            held: Held = []
            for segments in journals.by_process(self._folder).values():
                for segment in segments:
                    if len(held) <= MOST_SEGMENTS:
                        held.append((segment, stack.enter_context(journals.opened(segment))))
            yield held


def _unfed(held: Held, marks: Mapping[str, Mark | None]) -> tuple[list[Entry], int]:
    """The entries behind the marks, or how many bytes there would be to read."""
    rest: list[tuple[Segment, int, int]] = []
    for segment, descriptor in held:
        mark = marks.get(segment.process, Mark(0, 0))
        if mark is not None and segment.number >= mark.segment:
            at = mark.bytes if segment.number == mark.segment else 0
            rest.append((segment, descriptor, at))
    if len(held) > MOST_SEGMENTS:
        return [], sum(os.fstat(descriptor).st_size - at for _, descriptor, at in rest)
    entries: list[Entry] = []
    for _, descriptor, begin in rest:
        at = begin
        while (stretch := journals.read(descriptor, at, is_growing=True)).end > at:
            at = stretch.end
            entries += [record for _, record in stretch.records if isinstance(record, Entry)]
    return entries, 0


def _finest(by: Sequence[Dimension]) -> int:
    """The widest cells that still tell these groups apart."""
    return HOUR_S if "hour" in by else DAY_S if "day" in by else MONTH_S


def _has_failed(entry: Entry, owner: str | None) -> bool:
    return entry.outcome is not Ending.FINISHED and (owner is None or entry.owner == owner)


def _failed(entry: Entry) -> Failed:
    return Failed(
        entry.request_id,
        entry.opened_at,
        entry.key_id,
        entry.model,
        entry.endpoint,
        entry.outcome.value,
        entry.code,
    )
