"""Quotas go on where they were: what the ledger says of this day and month is told to the limits.

At the start, and as soon as a subject gets a quota. Rules (nothing may count twice):

- The limits count from the moment a quota is known to them; what the ledger says is a lower bound of the
  truth, so the larger of the two holds (`Limiter.load_used`).
- A worker tells the desk of a call's end before it writes the entry. So what was read is told a moment later:
  no call that is in the figures is still on its way to the desk, to be added to them.
- Calls that ended between reading and telling may be missing, and calls that ran when the quota was set, and
  those that a killed service left open: the ledger is read once more when they are in it.
- What is in journals that are too long to be read for a report is waited for.
- While the database is away the calls of this run are counted; it is asked until it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from scibox.core.admission import Subject
from scibox.core.errors import StorageUnavailable
from scibox.core.events import Emit, Notice
from scibox.core.limits import Limiter, Moment
from scibox.core.quotas import span
from scibox.ledger.reports import OfPeriod

POLL_S = 0.25  # as often as changed keys and owners are looked for
RETRY_S = 2.0  # while the database is away
AGAIN_S = 10.0  # until what is missing is in the ledger, of other nodes too
ARRIVAL_S = 0.02  # of a message to the desk that was sent already
AT_ONCE = 200  # subjects told at a time: calls go on between


class Quotas:
    """Tells `limiter` what was used. `subjects` gives those with a quota now, `used` what the ledger says."""

    def __init__(
        self,
        limiter: Limiter,
        subjects: Callable[[], Sequence[Subject]],
        used: Callable[[], Awaitable[OfPeriod]],
        emit: Emit,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._limiter = limiter
        self._subjects = subjects
        self._used = used
        self._emit = emit
        self._clock = clock
        self._now = now
        self._known: dict[str, tuple[int | None, int | None]] = {}  # the quotas of each, told once
        self._again: dict[str, float] = {}  # when each is to be told once more
        self._is_away = False

    async def start(self, within_s: float) -> None:
        """Tell what can be told before the first call comes."""
        with contextlib.suppress(TimeoutError, StorageUnavailable):
            async with asyncio.timeout(within_s):
                await self.look()

    async def run(self) -> None:
        """Follow changes, for ever."""
        while True:
            try:
                await self.look()
            except StorageUnavailable:
                self._say_away()
                await asyncio.sleep(RETRY_S)
            else:
                await asyncio.sleep(POLL_S)

    async def look(self) -> None:
        """Tell of every subject whose quota is new, and once more of those whose time it is."""
        wanted = {subject.name: subject for subject in self._subjects()}
        self._known = {name: quotas for name, quotas in self._known.items() if name in wanted}
        new = [name for name, subject in wanted.items() if self._is_new(subject)]
        due = [name for name, at in self._again.items() if at <= self._clock()]
        if not new and not due:
            return
        used = await self._read()
        told_names = [name for name in dict.fromkeys([*new, *due]) if name in wanted]
        await self._tell([wanted[name] for name in told_names], used)
        if self._is_away:
            self._is_away = False
            self._emit(Notice("what was used of quotas before is counted again"))
        for name in due:
            del self._again[name]
        for name in new if not used.behind_bytes else told_names:
            self._again[name] = self._clock() + AGAIN_S
        self._known |= {name: _quotas(wanted[name]) for name in new}

    async def _read(self) -> OfPeriod:
        """What the ledger says of the day and month that are still there when it has said it."""
        while True:
            day = span("day", self._now())
            used = await self._used()
            await asyncio.sleep(ARRIVAL_S)
            if span("day", self._now()) == day:
                return used

    async def _tell(self, subjects: Iterable[Subject], used: OfPeriod) -> None:
        for number, subject in enumerate(subjects, 1):
            if (tokens := used.tokens.get(subject.name)) is not None:
                self._limiter.load_used(subject, *tokens, Moment(self._clock(), self._now()))
            if not number % AT_ONCE:
                await asyncio.sleep(0)

    def _is_new(self, subject: Subject) -> bool:
        """Whether it has a quota now that it had not when it was told."""
        before = self._known.get(subject.name, (None, None))
        return any(
            amount is not None and known is None
            for amount, known in zip(_quotas(subject), before, strict=True)
        )

    def _say_away(self) -> None:
        if not self._is_away:
            self._is_away = True
            self._emit(
                Notice(
                    "the ledger cannot say what was used of quotas: until it can, new ones (after a start, "
                    "all) count from now on",
                    is_warning=True,
                )
            )


def _quotas(subject: Subject) -> tuple[int | None, int | None]:
    return subject.limits.tokens_per_day, subject.limits.tokens_per_month
