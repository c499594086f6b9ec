"""Quotas: LLM tokens of a UTC day and of a UTC month.

A call may start while the quota is not used up; what is reserved for running calls counts as used until they
end. So the overshoot is at most what one call uses. A Unix clock that steps back to a period that was left
takes up that period's counter again and keeps what was used since: a step neither opens a quota nor blocks it
for longer than until the period really ends.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

Period = Literal["day", "month"]


def span(period: Period, unix: float) -> tuple[float, float]:
    """When the day or month of that moment began and will end, in Unix seconds."""
    if period == "day":
        begin = unix // 86_400 * 86_400
        return begin, begin + 86_400
    moment = datetime.fromtimestamp(unix, UTC)
    begin_at = datetime(moment.year, moment.month, 1, tzinfo=UTC)
    following = (moment.year + moment.month // 12, moment.month % 12 + 1)
    return begin_at.timestamp(), datetime(*following, 1, tzinfo=UTC).timestamp()


class Quota:
    """At most `amount` in a period. `unix` is in Unix seconds."""

    __slots__ = ("_before", "_begin", "_end", "_period", "amount", "reserved", "used")

    def __init__(self, amount: int, period: Period) -> None:
        self.amount = amount  # may be changed: what was used stays used
        self.used = 0  # by calls that have ended
        self.reserved = 0  # for calls that run
        self._period = period
        self._begin = self._end = 0.0
        self._before = (0.0, 0)  # the period before: when it began, what was used

    def is_used_up(self, unix: float) -> bool:
        """Whether no call may start until the period ends."""
        self._turn(unix)
        return self.used >= self.amount

    def is_reserved(self, unix: float) -> bool:
        """Whether no call may start until a running one has ended and perhaps given back."""
        if not self._begin <= unix < self._end:
            self._turn(unix)
        return self.used + self.reserved >= self.amount

    def take(self, units: int, unix: float) -> float:
        """Reserve units; the period they are for, to be told to `settle`."""
        if not self._begin <= unix < self._end:
            self._turn(unix)
        self.reserved += units
        return self._begin

    def settle(self, begin: float, reserved: int, used: int, unix: float) -> None:
        """A call has ended; it counts in the period in which it began, as it does in the ledger."""
        self._turn(unix)
        self.reserved -= reserved
        if begin == self._begin:
            self.used += used
        elif begin == self._before[0]:
            self._before = (begin, self._before[1] + used)

    def load(self, used: int, unix: float) -> None:
        """What the ledger says was used in this period; never less than is known here already."""
        self._turn(unix)
        self.used = max(self.used, used)

    def used_at(self, unix: float) -> int:
        """What calls that have ended used of it."""
        self._turn(unix)
        return self.used

    def remaining(self, unix: float) -> int:
        """What is left of it."""
        self._turn(unix)
        return max(0, self.amount - self.used - self.reserved)

    def reset_s(self, unix: float) -> float:
        """Seconds until the period ends."""
        self._turn(unix)
        return self._end - unix

    def _turn(self, unix: float) -> None:
        """Begin another period if it is time."""
        if self._begin <= unix < self._end:
            return
        left, used = (self._begin, self.used), self.used
        begin, self._end = span(self._period, unix)
        was_here = begin == self._before[0]
        if begin < self._begin:  # the clock stepped back
            self.used = used + (self._before[1] if was_here else 0)
        else:
            self.used, self._before = 0, left
        self._begin = begin
