"""When a replica is left alone, and when it is tried again.

Closed: calls go to it. It opens on failures in a row, or when most of its recent calls fail; then no call
goes to it for a time that doubles with each opening up to a bound, spread by luck so that the replicas of
one failed machine are not all tried at once. After that time it is half open: exactly one call goes, and
what becomes of it decides. So the time of the next try always comes, also when every replica of a
deployment is open.

An upstream that answers 429 or 503 with `Retry-After` is not broken: its door is shut for the time it said,
and that is all (RFC 9110, 10.2.3).
"""

from __future__ import annotations

import math
from enum import Enum

FAILURES_IN_A_ROW = (
    3  # as many as may always be retried (`spending.RETRY_LEAST`): few callers, and none sees it
)
RATE_OVER_S = 10.0  # failures and successes of about so long ago count for the rate
RATE_LEAST = 10.0  # calls, of which more than `RATE` must fail: few calls say nothing about a rate
RATE = 0.5
FIRST_OPEN_S = 1.0  # a process that is restarted is back within seconds
LONGEST_OPEN_S = 30.0  # so a replica that came back is found in half a minute, at a cost of one call per 30 s
JITTER = 0.2
FORGOTTEN_AFTER_S = 60.0  # closed for so long: the next opening is a first one again
SHUT_S = 1.0  # where the upstream does not say how long
LONGEST_SHUT_S = 600.0  # a mistaken `Retry-After` must not shut a door for ever


class State(Enum):
    """Whether calls go to a replica."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"  # its one probe is on its way


class Breaker:
    """Of one replica. `now` is in monotonic seconds; `luck` in 0..1 spreads the times of those that failed
    together.

    Whoever sends a call says `begin` first, only where `is_ready`, and then exactly one of `succeeded`,
    `failed`, `refused` or `abandoned`, with what `begin` returned: calls that began before it opened say
    nothing about whether it is back.
    """

    __slots__ = (
        "_closed_at",
        "_failed",
        "_in_a_row",
        "_openings",
        "_rated_at",
        "_shut_until",
        "_total",
        "_until",
        "state",
    )

    def __init__(self) -> None:
        self.state = State.CLOSED
        self._until = 0.0  # open until then
        self._shut_until = 0.0  # the upstream asked for it
        self._in_a_row = 0
        self._openings = 0
        self._closed_at = -math.inf
        self._failed = self._total = 0.0  # of late, for the rate
        self._rated_at = 0.0

    @property
    def ready_at(self) -> float:
        """From when a call may go to it; infinite while its probe is on its way."""
        if self.state is State.HALF_OPEN:
            return math.inf
        if self.state is State.OPEN and self._until > self._shut_until:
            return self._until
        return self._shut_until

    def is_ready(self, now: float) -> bool:
        """Whether a call may go to it now."""
        return now >= self.ready_at

    def begin(self) -> bool:
        """A call goes to it, which `is_ready`; whether it is the probe."""
        if self.state is State.CLOSED:
            return False
        self.state = State.HALF_OPEN
        return True

    def succeeded(self, now: float, is_probe: bool) -> None:
        """It has answered: its first chunk is there, or an error of the caller's."""
        if is_probe and self.state is State.HALF_OPEN:
            self.state = State.CLOSED
            self._closed_at = now
            self._failed = self._total = 0.0
        if self.state is State.CLOSED:
            self._in_a_row = 0
            self._rate(now, 0.0)

    def failed(self, now: float, is_probe: bool, luck: float) -> None:
        """It could not be reached, broke off, was too late, or answered with a fault of its own."""
        if self.state is State.CLOSED:
            self._in_a_row += 1
            self._rate(now, 1.0)
            if self._in_a_row >= FAILURES_IN_A_ROW or self._fails_mostly:
                self._open(now, luck)
        elif is_probe and self.state is State.HALF_OPEN:
            self._open(now, luck)

    def refused(self, now: float, is_probe: bool, retry_after_s: float | None) -> None:
        """It lives and asks to be left alone for so long (None: it did not say)."""
        told_s = SHUT_S if retry_after_s is None else retry_after_s
        self._shut_until = max(self._shut_until, now + min(max(told_s, 0.0), LONGEST_SHUT_S))
        self.abandoned(is_probe)

    def abandoned(self, is_probe: bool) -> None:
        """The caller left before it was known whether it answers: the next call is the probe."""
        if is_probe and self.state is State.HALF_OPEN:
            self.state = State.OPEN

    def found_well(self, now: float) -> None:
        """An active check succeeded: its next call may come at once, and is still a probe."""
        self._until = min(self._until, now)

    @property
    def _fails_mostly(self) -> bool:
        return self._total >= RATE_LEAST and self._failed > RATE * self._total

    def _rate(self, now: float, failed: float) -> None:
        kept = math.exp(min(0.0, self._rated_at - now) / RATE_OVER_S)
        self._failed = self._failed * kept + failed
        self._total = self._total * kept + 1.0
        self._rated_at = max(now, self._rated_at)

    def _open(self, now: float, luck: float) -> None:
        if self.state is State.CLOSED and now - self._closed_at >= FORGOTTEN_AFTER_S:
            self._openings = 0
        open_s = min(LONGEST_OPEN_S, FIRST_OPEN_S * 2.0 ** min(self._openings, 30))
        self.state = State.OPEN
        self._until = now + open_s * (1 + JITTER * (2 * luck - 1))
        self._openings += 1
        self._in_a_row = 0
