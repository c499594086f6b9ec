"""What failures may cost: budgets for work that nobody asked for.

A retry or a hedge is load on replicas that may be failing because of load: each has a share of the calls,
so that it can never multiply them (PROMISES L4). A resume goes on with what a client was promised already:
it is never denied for want of a budget, only paced, so that the streams of a dead replica do not fall on
the others all at once.
"""

from __future__ import annotations

import math

from .windows import Window

WINDOW_S = 10.0  # Finagle's retry budget forgets a call after the same time
RETRY_SHARE, RETRY_LEAST = 0.2, 3  # of the calls, and always so many: few calls must be retried too
HEDGE_SHARE, HEDGE_LEAST = (
    0.05,
    1,
)  # Dean and Barroso, "The Tail at Scale": beyond the 95th percentile, 5 % more load
RESUMES_AT_ONCE = 8
RESUMES_PER_S = 8.0  # for each replica that is left


class Budget:
    """Allows extra attempts up to a `share` of the calls of the last `WINDOW_S`, or `least` if that is
    more.

    A call counts up to a thousandth of the window longer than it must (`Window`), and so does an extra
    attempt.
    """

    __slots__ = ("_calls", "_least", "_share", "_spent")

    def __init__(self, share: float = RETRY_SHARE, least: int = RETRY_LEAST) -> None:
        self._share = share
        self._least = least
        self._calls = Window(0, WINDOW_S)  # counts only; its amount is never asked
        self._spent = Window(least, WINDOW_S)

    def called(self, now: float) -> None:
        """A call has come (not one of the extra attempts)."""
        self._calls.amount = self._calls.used + 1
        self._calls.take(1, now)

    def take(self, now: float) -> bool:
        """Whether an extra attempt may be made now; it is then spent."""
        self._set_amount(now)
        return self._spent.take(1, now)

    def left(self, now: float) -> int:
        """How many extra attempts could be made now."""
        self._set_amount(now)
        return self._spent.remaining(now)

    def _set_amount(self, now: float) -> None:
        self._calls.remaining(now)  # forgets those that have passed
        self._spent.amount = max(self._least, math.floor(self._share * self._calls.used))


def hedge_budget() -> Budget:
    """For a second attempt beside a first one that is slow."""
    return Budget(HEDGE_SHARE, HEDGE_LEAST)


class Pace:
    """Gives each stream that resumes the moment when it may: `RESUMES_AT_ONCE`, then so many per second.

    No window of T seconds holds more than `RESUMES_AT_ONCE` + T times the pace. As a schedule of cells
    (GCRA, ITU-T I.371): one number, and nobody is denied.
    """

    __slots__ = ("_free_at",)

    def __init__(self) -> None:
        self._free_at = -math.inf  # when the next one could start if there were no bursts

    def start_at(self, now: float, replicas: int) -> float:
        """When a stream that wants to resume now may; `replicas`: how many are left that could take it."""
        gap_s = 1.0 / (RESUMES_PER_S * max(1, replicas))
        free_at = max(self._free_at, now)
        self._free_at = free_at + gap_s
        return max(now, free_at - (RESUMES_AT_ONCE - 1) * gap_s)
