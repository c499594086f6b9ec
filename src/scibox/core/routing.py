"""Which replica of a deployment a call goes to.

Of two replicas drawn at random, and those that have read the beginning of the prompt before, the one where
the call costs least: calls in flight and bytes that wait to be read, relative to slots, times how much
slower than its peers the replica is of late (`Pulse.slowness`). Two random choices come close to the least
loaded one of all without looking at all of them (Mitzenmacher, 2001), and do not send everybody to the same
one; latency beside calls in flight is what finds a slow machine (Wydrowski et al., "Load is not what you
should balance", NSDI'24). What was measured, and where the constants come from: docs/routing.md.

Never to one that drains or whose breaker or door is closed to calls; beyond its slots only when no other
has room.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Collection, Iterable
from typing import Generic, TypeVar

from .breaker import State
from .prefixes import LENGTHS, Prefixes, marks
from .pulse import Flight, Norms, Pulse

M = TypeVar("M")

ASSUMED_SLOTS = 16  # of a replica that does not say; only ratios matter, where none does
BYTES_PER_PLACE = 1_024.0  # so much of a prompt to read costs as much as one more call in flight
LOOKED_AT = 2  # of those that hold the beginning
LOOK_AGAIN_S = 3.0  # a slow one that has had no call for so long is looked at again
LOOK_SHARE = 0.1  # but by no more than this part of the calls that it was drawn for
CALLS_PER_PROBE = 9  # between two that are risked on one that had failed: half of what retries may cost


class Choice(Generic[M]):
    """The replicas of one deployment. A choice takes the same time among three and among thousands.

    `luck` gives numbers in 0..1, uniform. Not for several threads.
    """

    def __init__(self, luck: Callable[[], float], pulses: Iterable[Pulse[M]] = ()) -> None:
        self._luck = luck
        self._norms = Norms()
        self._prefixes: Prefixes[M] = Prefixes()
        self._pulses: set[Pulse[M]] = set()
        self._free: list[Pulse[M]] = []
        self._full: list[Pulse[M]] = []
        self._due: list[Pulse[M]] = []  # were open; a probe may go
        self._barred: list[tuple[float, int, Pulse[M]]] = []  # a heap: when to look at it again
        self._numbers = itertools.count()
        self._since_probe = CALLS_PER_PROBE
        for pulse in pulses:
            self.add(pulse, 0.0)

    def __len__(self) -> int:
        return len(self._pulses)

    @property
    def usable(self) -> int:
        """How many replicas take calls."""
        return len(self._free) + len(self._full)

    def begin(
        self,
        now: float,
        start: bytes = b"",
        size: int = 0,
        tells_first: bool = True,
        avoid: Collection[M] = (),
    ) -> Flight[M] | None:
        """The call begins on the replica that suits it best; None: none may be tried now (see `wait_s`).

        `start`: the beginning of its prompt (`prefixes.beginning`), empty where no engine caches prompts;
        `size`: bytes of the whole prompt; `tells_first`: see `Pulse.begin`; `avoid`: those that have failed
        this call.
        """
        if self._barred and self._barred[0][0] <= now:
            self._look_again(now)
        marked = marks(start) if start and len(self._pulses) > 1 else []
        self._since_probe += 1
        pulse, known = self._probe(avoid), 0
        if pulse is None:
            pulse, known = self._pick(now, marked, size, avoid)
        if pulse is None:
            return None
        if marked:
            self._prefixes.read(marked, pulse)
        return pulse.begin(now, max(size, len(start)) - known, tells_first)

    def wait_s(self, now: float) -> float:
        """Seconds until a replica may be tried; 0.0: now; infinite: when a probe that is out has its
        answer, or never.
        """
        self._look_again(now)
        if self._free or self._full or self._due:
            return 0.0
        return self._barred[0][0] - now if self._barred else math.inf

    def add(self, pulse: Pulse[M], now: float) -> None:
        """A replica more."""
        pulse.norms = self._norms
        pulse._home = self
        pulse._queued_at = math.inf
        self._pulses.add(pulse)
        self._prefixes.resize(len(self._pulses))
        self.place(pulse, now)

    def remove(self, pulse: Pulse[M]) -> None:
        """It is gone; calls in flight may still end."""
        self._pulses.discard(pulse)
        self._move(pulse, None)
        pulse._home = None
        pulse._queued_at = math.inf

    def drain(self, pulse: Pulse[M], is_draining: bool, now: float) -> None:
        """No more calls go to it; or they do again."""
        pulse.is_draining = is_draining
        self.place(pulse, now)

    def resize(self, pulse: Pulse[M], slots: int | None, now: float) -> None:
        """It has so many slots now."""
        pulse.slots = slots
        self.place(pulse, now)

    def place(self, pulse: Pulse[M], now: float) -> None:
        """Something about it has changed: where it stands now."""
        breaker = pulse.breaker
        ready_at = breaker.ready_at
        if pulse.is_draining or ready_at > now:
            self._move(pulse, None)
            if ready_at < pulse._queued_at and not pulse.is_draining:
                pulse._queued_at = ready_at
                heapq.heappush(self._barred, (ready_at, next(self._numbers), pulse))
        elif breaker.state is State.OPEN:
            self._move(pulse, self._due)
        else:
            self._move(pulse, self._free if pulse.has_room else self._full)

    @staticmethod
    def _move(pulse: Pulse[M], bag: list[Pulse[M]] | None) -> None:
        old = pulse._bag
        if old is bag:
            return
        if old is not None:  # the last one takes its place
            last = old.pop()
            if last is not pulse:
                old[pulse._at] = last
                last._at = pulse._at
        pulse._bag = bag
        if bag is not None:
            pulse._at = len(bag)
            bag.append(pulse)

    def _look_again(self, now: float) -> None:
        """Those whose time has come take calls again; others are dropped from the heap's top."""
        barred = self._barred
        while barred:
            at, _, pulse = barred[0]
            is_meant = pulse._home is self and pulse._queued_at == at
            if is_meant and at > now and at == pulse.breaker.ready_at and not pulse.is_draining:
                return
            heapq.heappop(barred)
            if is_meant:
                pulse._queued_at = math.inf
                self.place(pulse, now)

    def _probe(self, avoid: Collection[M]) -> Pulse[M] | None:
        """One that was open, now and then; at once where nothing else takes calls."""
        if not self._due or (self._since_probe <= CALLS_PER_PROBE and (self._free or self._full)):
            return None
        pulse = self._draw(self._due, avoid)
        if pulse is not None:
            self._since_probe = 0
        return pulse

    def _pick(
        self, now: float, marked: list[int], size: int, avoid: Collection[M]
    ) -> tuple[Pulse[M] | None, int]:
        """Where it costs least, and how many bytes of its prompt that one has read before."""
        one, two = self._two(self._free, avoid)
        if one is None:
            one, two = self._two(self._full, avoid)
        if one is None:
            return (self._draw(self._due, avoid) if self._due else None), 0
        holders, at = self._prefixes.longest(marked) if marked else ([], -1)
        known = self._prefixes.known(marked, at, one)
        best, cost = one, self._cost(one, size - known, now)
        if two is not None:
            known_too = self._prefixes.known(marked, at, two)
            cost_too = self._cost(two, size - known_too, now)
            worse = two
            if cost_too < cost:
                best, known, cost, worse = two, known_too, cost_too, one
            if self._wants_a_look(worse, now):
                return worse, 0
        if not holders:
            return best, known
        length, start = LENGTHS[at], int(self._luck() * len(holders))
        for step in range(min(LOOKED_AT, len(holders))):
            holder = holders[start - step]
            if holder._bag is one._bag and not (avoid and _is_in(holder.member, avoid)):
                cost_too = self._cost(holder, size - length, now)
                if cost_too < cost:
                    best, known, cost = holder, length, cost_too
        return best, known

    @staticmethod
    def _cost(pulse: Pulse[M], unread: int, now: float) -> float:
        """What a call costs there: relative, and the same unit for all replicas."""
        places = pulse.in_flight + 1 + (pulse.unread + unread) / BYTES_PER_PLACE
        return places * pulse.slowness_at(now) / (pulse.slots or ASSUMED_SLOTS)

    def _wants_a_look(self, pulse: Pulse[M], now: float) -> bool:
        return pulse.slowness > 1.0 and now - pulse.begun_at > LOOK_AGAIN_S and self._luck() < LOOK_SHARE

    def _two(self, bag: list[Pulse[M]], avoid: Collection[M]) -> tuple[Pulse[M] | None, Pulse[M] | None]:
        """Two different ones at random; None for what is not there."""
        count = len(bag)
        if avoid:
            one = self._draw(bag, avoid)
            return one, (self._draw(bag, [*avoid, one.member]) if one is not None else None)
        if count < 2:
            return (bag[0] if count else None), None
        at = int(self._luck() * count)
        beside = int(self._luck() * (count - 1))
        return bag[at], bag[beside + (beside >= at)]

    def _draw(self, bag: list[Pulse[M]], avoid: Collection[M]) -> Pulse[M] | None:
        """One at random that is not avoided."""
        count = len(bag)
        start = int(self._luck() * count)
        for step in range(min(count, len(avoid) + 1)):
            pulse = bag[(start + step) % count]
            if not _is_in(pulse.member, avoid):
                return pulse
        return None


def _is_in(member: M, members: Collection[M]) -> bool:
    """By identity: two replicas may be configured alike."""
    return any(member is other for other in members)
