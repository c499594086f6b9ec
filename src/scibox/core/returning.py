"""When a refused call should come again: `Retry-After` that holds what it promises (PROMISES L3)."""

from __future__ import annotations

from collections import deque

LONGEST_S = 60


class Returning:
    """Books a time for each refused call of an owner, one after the other as its queue moves."""

    def __init__(self) -> None:
        self._booked: dict[str, deque[float]] = {}

    def refuse(self, owner: str, excess_s: float, pace_s: float, now: float, luck: float) -> int:
        """Seconds (1..60) after which there will probably be room, behind those refused before.

        `excess_s`: how much longer than its patience the call would wait; `pace_s`: the time between two starts of
        this owner's calls; `luck` in 0..1 spreads those who come back.
        """
        raise NotImplementedError

    def is_expected(self, owner: str, now: float) -> bool:
        """Whether a call of this owner comes back as it was told; it should be let in, and its booking is used."""
        raise NotImplementedError
