"""When a line of a batch may start: other calls come first, and batches take turns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from scibox.core.batches import may_start
from scibox.gate.gate import Gate


@dataclass(frozen=True, slots=True)
class Pace:
    """`concurrency` lines at a time; none starts while `busy_at` calls are in flight, lines included.

    A line whose model cannot answer now is tried again after each of `delays_s`.
    """

    concurrency: int = 2
    busy_at: int = 4
    delays_s: tuple[float, ...] = (1.0, 5.0, 30.0)


class Lanes:
    """As many lines as the pace allows; who has waited longest is next, so batches alternate."""

    def __init__(self, gate: Gate, pace: Pace) -> None:
        self.pace = pace
        self._gate = gate
        self._turn = asyncio.Lock()
        self._taken = 0

    async def take(self) -> None:
        """Wait until a line may start; give the lane back afterwards."""
        async with self._turn:
            while not may_start(
                self._gate.in_flight - self._gate.background,
                self._taken,
                self.pace.concurrency,
                self.pace.busy_at,
            ):
                self._gate.settled.clear()
                await self._gate.settled.wait()
            self._taken += 1

    def give(self) -> None:
        """The line has ended."""
        self._taken -= 1
        self._gate.settled.set()
