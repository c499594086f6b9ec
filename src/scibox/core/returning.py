"""When a refused call should come again: `Retry-After` that holds what it promises (PROMISES L3)."""

from __future__ import annotations

import heapq
import math

SHORTEST_S, LONGEST_S = 1, 60
# A call may wait that is expected to start in this part of its patience, and those who come back are booked
# a little slower than the queue moves. Both are what it takes so that 99 % of them start in time; with 0.7
# and 1.0 it was 95 % (bench/fairness.py).
SURE = 0.6
SLOWER = 1.3
JITTER = 0.1  # of the time told, so that those refused together do not come back together
EARLY_S = 0.1  # clients' clocks
LATE_S = 60.0  # who has not come back so long after its time does not come
BOOKINGS = 1_000  # of one owner that are remembered
SWEEP_AT = 1_024  # owners; then those without bookings are forgotten


class _Booked:
    """The bookings of one owner."""

    __slots__ = ("dues", "room_at")

    def __init__(self) -> None:
        self.dues: list[float] = []  # a heap
        self.room_at = 0.0  # when there is room for the last one booked

    def drop_late(self, now: float) -> None:
        while self.dues and self.dues[0] < now - LATE_S:
            heapq.heappop(self.dues)


class Returning:
    """Books a time to come again for each refused call.

    The desk lets a call in whose owner `is_expected`, or which will probably start in `SURE` of its patience,
    with those of its owner that are still to come back (`ahead`) before it. Those of an owner are booked one
    after the other at the pace at which its queue moves: a fair queue has a pace for each owner. The promise
    is kept as long as no more calls of an owner were refused than can start within a minute and its patience;
    to those beyond, a minute is said.
    """

    def __init__(self) -> None:
        self._booked: dict[str, _Booked] = {}

    def refuse(self, owner: str, excess_s: float, pace_s: float, now: float, luck: float) -> int:
        """Seconds (1..60) after which there will probably be room, behind those refused before.

        `excess_s`: how much longer than `SURE` of its patience the call would wait; `pace_s`: the time
        between two starts of this owner's calls: the expected wait of one that has just come, without those
        `ahead`, by the number of its calls that wait; `luck` in 0..1 spreads those who come back.
        """
        booked = self._booked.get(owner)
        if booked is None:
            self._sweep(now)
            booked = self._booked[owner] = _Booked()
        booked.drop_late(now)
        behind = booked.room_at + SLOWER * pace_s if booked.dues else 0.0
        booked.room_at = min(max(now + excess_s, behind), now + LONGEST_S)
        wait_s = booked.room_at - now
        latest_s = LONGEST_S / (1 + JITTER)
        told_s = min(wait_s, latest_s) * (1 + JITTER * luck) + luck * (wait_s < latest_s)
        seconds = min(LONGEST_S, max(SHORTEST_S, math.ceil(told_s)))
        if len(booked.dues) < BOOKINGS:
            heapq.heappush(booked.dues, now + seconds)
        return seconds

    def is_expected(self, owner: str, now: float) -> bool:
        """Whether a call of this owner comes back as it was told: let it in. Its booking is used."""
        booked = self._booked.get(owner)
        if booked is None:
            return False
        booked.drop_late(now)
        if not booked.dues or booked.dues[0] > now + EARLY_S:
            return False
        heapq.heappop(booked.dues)
        return True

    def ahead(self, owner: str, now: float) -> int:
        """How many refused calls of an owner are still to come back; a newcomer goes behind them."""
        booked = self._booked.get(owner)
        if booked is None:
            return 0
        booked.drop_late(now)
        return len(booked.dues)

    def _sweep(self, now: float) -> None:
        if len(self._booked) >= SWEEP_AT:
            for booked in self._booked.values():
                booked.drop_late(now)
            self._booked = {owner: booked for owner, booked in self._booked.items() if booked.dues}
