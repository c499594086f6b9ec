"""One rate limit: a sliding window in fine cells.

What is taken counts until its whole cell is older than the window, so that no window of that length, wherever
it begins, ever holds more than the amount; for that a cell's units stay up to one cell (a thousandth of the
window) longer than they must: 99.9 % of the limit is usable. The clock must be monotonic; one that steps back
all the same is taken to stand still. After a pause, however long, the window is as full as if nobody had
paused.
"""

from __future__ import annotations

import math
from collections import deque

CELLS = 1_000


class Window:
    """At most `amount` units in any `length_s` seconds. `now` is in monotonic seconds."""

    __slots__ = ("_cell_s", "_cells", "_latest", "_order", "amount", "length_s", "used")

    def __init__(self, amount: int, length_s: float) -> None:
        self.amount = amount  # may be changed: what was used stays used
        self.length_s = length_s
        self.used = 0  # in the window as it was last looked at
        self._cell_s = length_s / CELLS
        self._latest = 0
        self._cells: dict[int, int] = {}
        self._order: deque[int] = deque()  # the cells' numbers, oldest first

    def clamp(self, units: int) -> int:
        """What to reserve for a call of so many units: all of the limit at most; so no call is impossible.

        What it uses beyond is charged when it is known (`settle`), and then the next one waits longer.
        """
        return min(units, self.amount)

    def has_room(self, units: int, now: float) -> bool:
        """Whether `units` (clamped) fit now."""
        cell = int(now / self._cell_s)
        if cell > self._latest:
            self.advance(now)
        amount = self.amount
        return self.used + units <= amount or (units > amount > 0 and not self.used)

    def reserve(self, units: int, now: float) -> int:
        """Take `units` (clamped), whether or not they have room; how many were taken."""
        cell = int(now / self._cell_s)
        if cell > self._latest:
            self._latest = cell
            if self._order and self._order[0] < cell - CELLS:
                self._forget(cell - CELLS)
        else:
            cell = self._latest
        units = min(units, self.amount)
        self._add(cell, units)
        return units

    def wait_for(self, units: int, now: float) -> float:
        """Seconds until `units` (clamped) fit; 0.0: now. Infinite where the amount is 0."""
        self.advance(now)
        if self.amount <= 0:
            return math.inf
        excess = self.used + min(units, self.amount) - self.amount
        if excess <= 0:
            return 0.0
        for cell in self._order:
            excess -= self._cells[cell]
            if excess <= 0:
                return self._passes(cell, now)
        raise AssertionError("an empty window has room")

    def take(self, units: int, now: float) -> bool:
        """Take `units` (clamped) if they fit now."""
        if not self.has_room(units, now):
            return False
        self.reserve(units, now)
        return True

    def settle(self, taken_at: float, reserved: int, used: int, now: float) -> None:
        """The call has used that many of the units reserved for it (as clamped) at `taken_at`.

        The rest is given back where it was taken. More than that is charged now, when it becomes known; the
        window may then hold more than its amount, and the next call waits until that has passed.
        """
        if used > reserved:
            self._add(self.advance(now), used - reserved)
            return
        cells, taken_in = self._cells, int(taken_at / self._cell_s)
        taken_in = min(taken_in, self._latest)
        if taken_in in cells:  # else it has passed, and nothing of it counts any more
            cells[taken_in] -= reserved - used
            self.used -= reserved - used

    def remaining(self, now: float) -> int:
        """Units that could be taken now."""
        return self.left(now)[0]

    def reset_s(self, now: float) -> float:
        """Seconds until the whole amount is there again."""
        return self.left(now)[1]

    def left(self, now: float) -> tuple[int, float]:
        """Both: `remaining` and `reset_s`."""
        cell, cells = int(now / self._cell_s), self._cells
        if cell > self._latest:
            self.advance(now)
        remaining = self.amount - self.used if self.used < self.amount else 0
        last = self._latest
        if not cells.get(last):
            last = next((cell for cell in reversed(self._order) if cells[cell]), -1)
            if last < 0:
                return remaining, 0.0
        passes_s = (last + CELLS + 1.001) * self._cell_s - now  # as of `_passes`, without the call
        return remaining, passes_s if passes_s > self._cell_s / 1_000 else self._cell_s / 1_000

    def contents(self, now: float) -> list[tuple[float, int]]:
        """When (the end of each cell, so that it passes nowhere too early) how many units were taken."""
        self.advance(now)
        return [(self._end(cell), units) for cell in self._order if (units := self._cells[cell])]

    def told_at(self, taken_at: float) -> float:
        """Under which moment `contents` has what was taken then."""
        return self._end(int(taken_at / self._cell_s))

    def _end(self, cell: int) -> float:
        return (cell + 1) * self._cell_s

    def advance(self, now: float) -> int:
        """Forget the cells that have passed; the number of the present one."""
        cell = int(now / self._cell_s)
        if cell <= self._latest:
            return self._latest
        self._latest = cell
        self._forget(cell - CELLS)
        return cell

    def _forget(self, before: int) -> None:
        order, cells = self._order, self._cells
        while order and order[0] < before:
            self.used -= cells.pop(order.popleft())

    def _add(self, cell: int, units: int) -> None:
        if cell in self._cells:
            self._cells[cell] += units
        else:
            self._cells[cell] = units
            self._order.append(cell)
        self.used += units

    def _passes(self, cell: int, now: float) -> float:
        """Seconds until a cell counts no longer; a thousandth of a cell more, since quotients are rounded."""
        passes_s: float = (cell + CELLS + 1.001) * self._cell_s - now
        least_s = self._cell_s / 1_000
        return passes_s if passes_s > least_s else least_s
