"""Other ways to choose a replica, which `bench/routing.py` compares ours with. All share breaker, slots and retries."""

from __future__ import annotations

import bisect
import itertools
import random
from collections import deque
from collections.abc import Iterator
from typing import Any

from routing_world import SLOTS, Server

from scibox.core.pulse import Pulse
from scibox.core.routing import Choice


class Blind(Choice[Server]):
    """One at random."""

    def _pick(self, now: float, marked: list[int], size: int, avoid: Any) -> tuple[Pulse[Server] | None, int]:
        return (self._draw(self._free, avoid) or self._draw(self._full, avoid)) if self.usable else None, 0


class RoundRobin(Blind):
    """One after the other, those that are full left out."""

    _turn: Iterator[Pulse[Server]] | None = None

    def _pick(self, now: float, marked: list[int], size: int, avoid: Any) -> tuple[Pulse[Server] | None, int]:
        if self._turn is None:
            self._turn = itertools.cycle(list(self._free))
        for pulse in itertools.islice(self._turn, len(self)):
            if pulse._bag is self._free and pulse.member not in avoid:
                return pulse, 0
        return super()._pick(now, marked, size, avoid)


class Least(Blind):
    """The one with the fewest calls of all."""

    def _pick(self, now: float, marked: list[int], size: int, avoid: Any) -> tuple[Pulse[Server] | None, int]:
        able = [pulse for pulse in self._free if pulse.member not in avoid]
        if not able:
            return super()._pick(now, marked, size, avoid)
        least = min(pulse.in_flight for pulse in able)
        able = [pulse for pulse in able if pulse.in_flight == least]
        return able[int(self._luck() * len(able))], 0


class Hashed(Blind):
    """Consistent hashing of the first KiB with bounded load (Mirrokni et al., 2018): next on the ring when above 1.25 of the mean."""

    _ring: list[tuple[int, Pulse[Server]]] | None = None

    def _pick(self, now: float, marked: list[int], size: int, avoid: Any) -> tuple[Pulse[Server] | None, int]:
        if self._ring is None:
            luck = random.Random(7)
            self._ring = sorted(
                ((luck.getrandbits(32), pulse) for pulse in self._free for _ in range(20)),
                key=lambda p: p[0],
            )
        most = 1.25 * (sum(pulse.in_flight for pulse in self._pulses) + 1) / len(self)
        at = bisect.bisect(
            self._ring,
            marked[min(6, len(marked) - 1)] if marked else int(self._luck() * 2**32),
            key=lambda p: p[0],
        )
        for step in range(len(self._ring)):
            pulse = self._ring[(at + step) % len(self._ring)][1]
            if pulse._bag is self._free and pulse.in_flight + 1 <= most + 1 and pulse.member not in avoid:
                return pulse, 0
        return super()._pick(now, marked, size, avoid)


class Two(Choice[Server]):
    """The less loaded of two at random."""

    @staticmethod
    def _cost(pulse: Pulse[Server], unread: int, now: float) -> float:
        return pulse.in_flight / (pulse.slots or SLOTS)

    def _wants_a_look(self, pulse: Pulse[Server], now: float) -> bool:
        return False


class HotCold(Choice[Server]):
    """Prequal's rule: of two, the one that is not hot (0.8 of the calls in flight of the last ones seen); else the quicker."""

    def __init__(self, *rest: Any) -> None:
        super().__init__(*rest)
        self._seen: deque[int] = deque(maxlen=64)
        self._hot = 0

    def _pick(self, now: float, marked: list[int], size: int, avoid: Any) -> tuple[Pulse[Server] | None, int]:
        pulse, known = super()._pick(now, marked, size, avoid)
        if pulse is not None:
            self._seen.append(pulse.in_flight)
            self._hot = sorted(self._seen)[int(0.8 * (len(self._seen) - 1))]
        return pulse, known

    def _cost(self, pulse: Pulse[Server], unread: int, now: float) -> float:  # type: ignore[override]
        if pulse.in_flight > self._hot:
            return 1e6 + pulse.in_flight
        return pulse.slowness_at(now) * (1 + pulse.in_flight * 1e-6)


class Unmeasured(Choice[Server]):
    """Ours without measured latency."""

    @staticmethod
    def _cost(pulse: Pulse[Server], unread: int, now: float) -> float:
        return Choice._cost(pulse, unread, now) / pulse.slowness_at(now)

    def _wants_a_look(self, pulse: Pulse[Server], now: float) -> bool:
        return False


POLICIES: dict[str, tuple[type[Choice[Server]], bool]] = {  # and whether it is told the prompt's beginning
    "random": (Blind, False),
    "round robin": (RoundRobin, False),
    "least in flight of all": (Least, False),
    "two choices": (Two, False),
    "hot or cold (Prequal)": (HotCold, False),
    "ours without latency and prefixes": (Unmeasured, False),
    "ours without prefixes": (Choice, False),
    "prefix hashed, bounded load": (Hashed, True),
    "ours without latency": (Unmeasured, True),
    "ours": (Choice, True),
}
