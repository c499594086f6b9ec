"""Moments at which something is due, for very many things that are nearly all taken away before.

A timer of the loop for each would cost more than the rest of a call's wait: here one timer serves all that
are due within the same twentieth of a second.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

GRAIN_S = 0.05  # how late something may be; less of short delays, more of those above 100 s
_EARLY_S = 0.001  # the loop's timers


class Deadlines(Generic[Item]):
    """`on_due` hears of each item once, on the loop; whether it still matters is for that to see."""

    def __init__(self, clock: Callable[[], float], on_due: Callable[[Item], None]) -> None:
        self._clock = clock
        self._on_due = on_due
        self._due: dict[float, set[Item]] = {}  # by their moments
        self._moments: list[float] = []  # a heap
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def add(self, item: Item, now: float, delay_s: float) -> set[Item]:
        """It is due so long after `now`, unless it is discarded from this set before."""
        grain_s = GRAIN_S if 1.0 <= delay_s <= 100.0 else max(delay_s / 2_000, min(GRAIN_S, delay_s / 20))
        at = now + delay_s
        if grain_s:
            at = math.ceil(at / grain_s) * grain_s
        due = self._due.get(at)
        if due is None:
            due = self._begin(at)
        due.add(item)
        return due

    def _begin(self, at: float) -> set[Item]:
        while self._moments and not self._due[self._moments[0]]:
            del self._due[heapq.heappop(self._moments)]
        heapq.heappush(self._moments, at)
        due = self._due[at] = set()
        self._set_timer()
        return due

    def _set_timer(self) -> None:
        at = self._moments[0] if self._moments else math.inf
        if self._timer is not None:
            if self._timer_at <= at:  # it looks again then
                return
            self._timer.cancel()
            self._timer = None
        if self._moments:
            self._timer_at = at
            delay_s = max(0.0, at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        loop, latest = asyncio.get_running_loop(), self._clock() + _EARLY_S
        while self._moments and self._moments[0] <= latest:
            for item in self._due.pop(heapq.heappop(self._moments)):
                loop.call_soon(self._on_due, item)
        self._set_timer()
