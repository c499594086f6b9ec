"""Who is not asked for a turn because a limit blocks it, until when, and whose call's end may wake it."""

from __future__ import annotations

import heapq
import math
from typing import Protocol

from .limits import Verdict


class Spot(Protocol):
    """Something that can be parked: a key's calls, an owner's, or a whole rank of a model."""

    blocked_by: Verdict | None  # None: it is not parked
    until: float  # monotonic seconds; infinite: until a call of the subject ends


class Parking:
    """The parked spots of one queue. O(log n) each."""

    def __init__(self) -> None:
        self._by_subject: dict[str, dict[int, Spot]] = {}
        self._timers: list[tuple[float, int, Spot]] = []
        self._turn = 0
        self.due_at = math.inf  # no spot's time comes before

    def park(self, spot: Spot, verdict: Verdict, now: float) -> None:
        """Leave a spot out for as long as a verdict says, or until its subject is woken."""
        if spot.blocked_by:
            self._free(spot)
        until = math.inf if verdict.wait_s is None else now + verdict.wait_s
        spot.blocked_by, spot.until = verdict, until
        self._by_subject.setdefault(verdict.subject, {})[id(spot)] = spot
        if until < math.inf:
            self._turn += 1
            heapq.heappush(self._timers, (until, self._turn, spot))
            self.due_at = min(self.due_at, until)

    def wake(self, subject: str) -> list[Spot]:
        """The spots parked for a subject, free again."""
        spots = list(self._by_subject.get(subject, {}).values())
        for spot in spots:
            self._free(spot)
        return spots

    def wake_due(self, now: float) -> list[Spot]:
        """The spots whose time has come, free again."""
        spots: list[Spot] = []
        while self._timers and self._timers[0][0] <= now:
            until, _, spot = heapq.heappop(self._timers)
            if spot.blocked_by and spot.until == until:
                self._free(spot)
                spots.append(spot)
        self.due_at = self._timers[0][0] if self._timers else math.inf
        return spots

    def next_at(self) -> float | None:
        """When the next spot's time comes; None: there is none, or only a call's end can wake them."""
        while self._timers:
            until, _, spot = self._timers[0]
            if spot.blocked_by and spot.until == until:
                return until
            heapq.heappop(self._timers)
        return None

    def _free(self, spot: Spot) -> None:
        assert spot.blocked_by is not None
        subject = spot.blocked_by.subject
        spots = self._by_subject[subject]
        del spots[id(spot)]
        if not spots:
            del self._by_subject[subject]
        spot.blocked_by = None
