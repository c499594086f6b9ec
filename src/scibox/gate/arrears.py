"""What a node has counted by itself and the server of the shared limits has not been told yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from scibox.core.limits import Content

from .shares import WINDOWS

CHUNK = 1_000  # cells told at a time: the server does nothing else meanwhile, about a millisecond
_KEPT_S = 61.0  # no window is longer


class Units(NamedTuple):
    """Units of a subject's window: taken at a moment of this node's clock, or in a cell of the server's."""

    field: int  # its index in WINDOWS
    subject: str
    clock: float | None
    cell: int
    units: int  # less than none: given back


class Batch(NamedTuple):
    """What is told at a time; the server takes each number once, so that it may be told again."""

    number: int
    quotas: list[tuple[str, int, int]]  # the key, at least used before, used since
    windows: list[tuple[int, str, int, int]]  # the field from 1, the subject, the cell, the units


class Arrears:
    """Kept in order until the server has them."""

    def __init__(self) -> None:
        self._windows: deque[tuple[float, Units]] = deque()
        self._used: dict[str, int] = {}  # by the quota's key
        self._batches: deque[Batch] = deque()
        self._number = 0

    def add(self, units: Units, now: float) -> None:
        """Units that were taken or given back at `now`."""
        while self._windows and self._windows[0][0] < now - _KEPT_S:
            self._windows.popleft()
        self._windows.append((now, units))

    def use(self, key: str, units: int) -> None:
        """LLM tokens of a quota, of a call that has ended."""
        self._used[key] = self._used.get(key, 0) + units

    def used(self, key: str) -> int:
        """What the server does not know of a quota's use."""
        return self._used.get(key, 0) + sum(
            since for batch in self._batches for of, _, since in batch.quotas if of == key
        )

    def forget_server(self, contents: Iterable[Content]) -> None:
        """The server has lost everything: all that counts is to be told, with cells of its new clock."""
        for batch in self._batches:
            for key, _, since in batch.quotas:
                self.use(key, since)
        self._batches.clear()
        self._windows.clear()
        for content in contents:
            for field, cells in content.windows:
                for clock, units in cells:
                    self._windows.append(
                        (clock, Units(WINDOWS.index(field), content.subject, clock, 0, units))
                    )

    def batches(self, cell_of: Callable[[float, int], int], least: dict[str, int]) -> Iterator[Batch]:
        """What is to be told, oldest first; `told` says that the first one was.

        `cell_of` a moment and a field is the server's; `least` is what is known to be used of quotas.
        """
        sums: dict[tuple[int, str, int], int] = {}
        for _, (field, subject, clock, cell, units) in self._windows:
            at = (field + 1, subject, cell if clock is None else cell_of(clock, field))
            sums[at] = sums.get(at, 0) + units
        self._windows.clear()
        windows = [(*at, units) for at, units in sums.items() if units]
        quotas = [
            (key, least.get(key, 0), self._used.get(key, 0)) for key in least.keys() | self._used.keys()
        ]
        self._used.clear()
        while windows or quotas:
            self._number += 1
            self._batches.append(Batch(self._number, quotas[:CHUNK], windows[:CHUNK]))
            windows, quotas = windows[CHUNK:], quotas[CHUNK:]
        yield from tuple(self._batches)

    def told(self) -> None:
        """The server has the oldest batch."""
        self._batches.popleft()
