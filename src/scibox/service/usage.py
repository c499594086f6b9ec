"""What callers and operators ask of the ledger, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from scibox.core.errors import OperatorError, StorageUnavailable
from scibox.core.sums import Dimension, Scope
from scibox.ledger.reports import OfPeriod, Report, Reports
from scibox.store.entries import Failed
from scibox.store.sql import DatabaseAway

T = TypeVar("T")
THREADS = 2  # of its own: a slow database must not take those that follow the keys


class Usage:
    """Reports for the door. `now` is Unix time."""

    def __init__(self, reports: Reports, now: Callable[[], float]) -> None:
        self._reports = reports
        self._threads = ThreadPoolExecutor(THREADS, "scibox-usage")
        self.now = now

    async def sums(self, scope: Scope, by: Sequence[Dimension], render: Callable[[Report], T]) -> T:
        """The sums of each group, as `render` tells them: also on the thread, since there may be many."""
        return await self._run(lambda: render(self._reports.sums(scope, by)))

    async def failed(self, owner: str | None, limit: int) -> list[Failed]:
        """The last calls (of an owner) that did not finish, the newest first."""
        return await self._run(lambda: self._reports.failed(owner, limit))

    async def of_period(self) -> OfPeriod:
        """What every subject of limits has used in this day and month: what its quotas begin with."""
        return await self._run(lambda: self._reports.sums_of_period(self.now()))

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (DatabaseAway, OSError, OperatorError) as error:
            raise StorageUnavailable(
                "Usage cannot be told now, since the ledger's database is away; calls go on and are counted. "
                "Try again in a minute.",
                retry_after_s=30,
            ) from error
