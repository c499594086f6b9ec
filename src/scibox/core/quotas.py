"""Quotas: LLM tokens of a UTC day and of a UTC month.

A call may start while the quota is not used up; what is reserved for running calls counts as used until they
end. So the overshoot is at most what one call uses. A Unix clock that steps takes up the counter of a period
in which it has been before, as the ledger does; one that steps back keeps what was used since besides: a step
neither opens a quota nor blocks it for longer than until the period really ends.
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


LEFT = 3  # periods that are remembered: those between which a clock may step to and fro


class Quota:
    """At most `amount` in a period. `unix` is in Unix seconds."""

    __slots__ = ("_begin", "_carried", "_end", "_left", "_period", "amount", "reserved", "used")

    def __init__(self, amount: int, period: Period) -> None:
        self.amount = amount  # may be changed: what was used stays used
        self.used = 0  # by calls that have ended
        self.reserved = 0  # for calls that run
        self._period = period
        self._begin = self._end = 0.0
        self._carried = 0  # of what was used: in later periods, before the clock stepped back
        self._left: dict[float, int] = {}  # periods that were left: when each began, what was used in it

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
        elif begin in self._left:
            self._left[begin] += used
            if begin > self._begin:  # the clock stepped back since
                self._carried += used
                self.used += used

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
        self._left.pop(self._begin, None)
        self._left[self._begin] = self.used - self._carried
        if len(self._left) > LEFT:
            del self._left[next(iter(self._left))]
        begin, self._end = span(self._period, unix)
        self._carried = self.used if begin < self._begin else 0
        self.used = self._left.get(begin, 0) + self._carried
        self._begin = begin
