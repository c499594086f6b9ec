"""What the other nodes had taken of each window when the server last said so; who goes alone counts it.

Their units are assumed to pass evenly over the window; what they take from then on is their own share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from scibox.core.admission import Allowance, Subject
from scibox.core.limits import Moment
from scibox.core.sharing import share

from .shares import WINDOWS

_LENGTH_S = dict(zip(WINDOWS, (1.0, 60.0, 60.0, 60.0), strict=True))
_MOST = 4_096  # subjects; then those that say nothing any more are forgotten


class Others:
    """By subject and limit."""

    def __init__(self) -> None:
        self._taken: dict[str, tuple[float, dict[str, int]]] = {}

    def hear(self, server: Sequence[Allowance], own: Sequence[Allowance], at: Moment) -> None:
        """What remains of the same limits by the server and by what this node itself has admitted."""
        own_left = {(left.subject, left.limit): left.remaining for left in own}
        for left in server:
            if left.limit in _LENGTH_S:
                self._note(left.subject, left.limit, own_left[left.subject, left.limit] - left.remaining, at)

    def hear_full(self, subject: str, limit: str, own_left: int, at: Moment) -> None:
        """The server says that nothing remains of it."""
        if limit in _LENGTH_S:
            self._note(subject, limit, own_left, at)

    def share(self, subject: Subject, nodes: int, at: Moment) -> Subject:
        """What this node admits alone: its share, and no more than the others had left of the limit."""
        own = share(subject, nodes)
        heard_at, taken = self._taken.get(subject.name, (0.0, {}))
        for limit, units in taken.items():
            amount, rest = getattr(subject.limits, limit), self._rest(limit, units, at.clock - heard_at)
            if amount and rest:
                least = min(getattr(own.limits, limit), max(1, amount - rest))
                own = Subject(own.name, replace(own.limits, **{limit: least}))
        return own

    def _note(self, subject: str, limit: str, units: int, at: Moment) -> None:
        heard_at, taken = self._taken.get(subject, (at.clock, {}))
        if heard_at != at.clock:
            taken = {of: self._rest(of, n, at.clock - heard_at) for of, n in taken.items()}
        taken[limit] = max(0, units)
        self._taken[subject] = (at.clock, taken)
        if len(self._taken) > _MOST:
            self._taken = {
                name: (since, of) for name, (since, of) in self._taken.items() if at.clock - since < 60
            }

    @staticmethod
    def _rest(limit: str, units: int, age_s: float) -> int:
        return math.ceil(units * max(0.0, 1 - age_s / _LENGTH_S[limit]))
