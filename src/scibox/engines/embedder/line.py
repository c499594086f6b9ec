"""Whose texts run next: pure bookkeeping, never sleeps, never runs anything.

Rules:
1. A text is padded to a length that depends on the text alone (`padded`), and only texts of one padded length
   run together. So the same text gives the same bytes alone and in any company, and padding stays small.
2. Calls take turns, one micro-batch each. A short call waits for one micro-batch of every other call, not for
   their whole work. Within a call the longest texts go first.
3. Room left in a micro-batch is given to the other calls' texts of the same padded length.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

# Steps grow with length so that padding costs at most about a tenth from 16 ids on.
STEPS = ((64, 4), (128, 8), (256, 16), (1 << 62, 32))


def padded(length: int, limit: int) -> int:
    """The length a text of `length` ids is padded to, at most `limit`."""
    step = next(step for up_to, step in STEPS if length <= up_to)
    return min(limit, -(-length // step) * step)


@dataclass(frozen=True, slots=True)
class Place:
    """One text: the number of its call and its place in the call's list."""

    call: int
    index: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts that run together, each padded to `length` ids."""

    length: int
    places: tuple[Place, ...]


class Line:
    """The texts that wait."""

    def __init__(self, batch_tokens: int, limit: int) -> None:
        self._batch_tokens = batch_tokens
        self._limit = limit
        # In order of turns; each call's texts by padded length. A call without waiting texts is not in it.
        self._calls: dict[int, dict[int, list[int]]] = {}

    def join(self, call: int, lengths: Sequence[int]) -> None:
        """A new call's texts, by their lengths in ids."""
        by_length: dict[int, list[int]] = defaultdict(list)
        for index in reversed(range(len(lengths))):  # reversed: they are taken from the end
            by_length[padded(lengths[index], self._limit)].append(index)
        if by_length:
            self._calls[call] = by_length

    def leave(self, call: int) -> None:
        """Forgets a call's waiting texts; nothing happens when there are none."""
        self._calls.pop(call, None)

    def take(self) -> Batch | None:
        """The next micro-batch, or None when nobody waits."""
        if not self._calls:
            return None
        first = next(iter(self._calls))
        length = max(self._calls[first])
        room = max(1, self._batch_tokens // length)
        places: list[Place] = []
        for call in list(self._calls):
            places += self._take_from(call, length, room - len(places))
            if len(places) == room:
                break
        if first in self._calls:
            self._calls[first] = self._calls.pop(first)  # to the end: its turn is over
        return Batch(length, tuple(places))

    def _take_from(self, call: int, length: int, room: int) -> list[Place]:
        waiting = self._calls[call].get(length, [])
        taken = [Place(call, waiting.pop()) for _ in range(min(room, len(waiting)))]
        if not waiting:
            self._calls[call].pop(length, None)
        if not self._calls[call]:
            del self._calls[call]
        return taken
