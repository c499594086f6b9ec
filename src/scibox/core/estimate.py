"""How long the calls of a queue will probably wait: who would be picked when, if things go on as they are.

Slots come free in the order in which their calls will probably end; each goes to the call whose turn it is
then. A call holds its slot for its expected cost times what a unit of cost has taken lately. A limit that
parks calls lets them go on when it said, and from then on at the rate that it is.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator

from .limits import Verdict
from .parking import Spot
from .turns import Flow, Line, Turns, Waiting

LEARNED = 0.05  # how much of the pace each ended call makes up: the last twenty or so
OVERDUE = 0.5  # a call that has run longer than expected is expected to run for half as long again


class Pace:
    """What a unit of cost (a weighted LLM token) takes, in seconds of a slot."""

    def __init__(self) -> None:
        self._calls = 0
        self._hold_s = 0.0
        self._cost = 0.0

    def learn(self, hold_s: float, cost: float) -> None:
        """A call has held its slot for so long; `cost` is what it was in the end."""
        self._calls += 1
        part = max(LEARNED, 1 / self._calls)
        self._hold_s += part * (hold_s - self._hold_s)
        self._cost += part * (cost - self._cost)

    def hold_s(self, cost: float) -> float:
        """How long a call of that cost will hold its slot; 0.0 while nothing is known."""
        return self._hold_s * cost / self._cost if self._cost else self._hold_s

    @property
    def mean_hold_s(self) -> float:
        """How long the last calls held their slots."""
        return self._hold_s

    def rest_s(self, call: Waiting, now: float) -> float:
        """How long a running call will hold its slot yet."""
        run_s = now - call.picked_at
        return max(self.hold_s(call.charged) - run_s, OVERDUE * run_s)


class _Walker:
    """An owner's calls in the order of its turns, while a walk picks them."""

    __slots__ = ("blocked_by", "counter", "flow", "lines", "rank")

    def __init__(self, flow: Flow, rank: int, lines: Iterable[Line], blocked_by: Verdict | None) -> None:
        self.flow = flow
        self.rank = rank
        self.counter = flow.counter
        self.blocked_by = blocked_by
        self.lines = deque(iter(line.calls.values()) for line in lines)

    def next(self) -> Waiting | None:
        """Its next call; None: there is none any more."""
        while self.lines:
            line = self.lines.popleft()
            if (call := next(line, None)) is not None:
                self.lines.append(line)
                return call
        return None


def walk(
    ranks: Iterable[Turns], running: Iterable[Waiting], slots: int, pace: Pace, now: float
) -> Iterator[tuple[Waiting, float]]:
    """Every waiting call with the seconds until it starts, in that order. O(n log n).

    Nothing is changed. A blocked key counts as an owner of its own here. Calls that still come are not
    foreseen.
    """
    free = [pace.rest_s(call, now) for call in running]
    free += [0.0] * (slots - len(free))
    heapq.heapify(free)
    ready: list[tuple[int, float, int, int, _Walker]] = []
    parked: list[tuple[float, int, _Walker]] = []
    for number, walker in enumerate(_walkers(ranks, parked, pace, now)):
        ready.append((walker.rank, walker.counter, walker.flow.last_turn, number, walker))
    heapq.heapify(ready)
    number = len(ready) + len(parked)
    while (ready or parked) and slots > 0:
        at_s = heapq.heappop(free)
        if not ready:
            at_s = max(at_s, parked[0][0])
        while parked and parked[0][0] <= at_s:
            _, _, walker = heapq.heappop(parked)
            number += 1
            heapq.heappush(ready, (walker.rank, walker.counter, 0, number, walker))
        _, _, _, _, walker = heapq.heappop(ready)
        call = walker.next()
        if call is None:
            heapq.heappush(free, at_s)
            continue
        yield call, at_s
        number += 1
        cost = walker.flow.turns.cost(call)
        walker.counter += cost / walker.flow.weight
        hold_s = pace.hold_s(cost)
        heapq.heappush(free, at_s + hold_s)
        if walker.blocked_by is None:
            heapq.heappush(ready, (walker.rank, walker.counter, number, number, walker))
        else:
            heapq.heappush(parked, (at_s + gap_s(walker.blocked_by, call, hold_s), number, walker))


def _walkers(
    ranks: Iterable[Turns], parked: list[tuple[float, int, _Walker]], pace: Pace, now: float
) -> Iterator[_Walker]:
    """The walkers of all owners that wait; those that are blocked go to `parked`."""
    for rank, turns in enumerate(ranks):
        for flow in turns.flows.values():
            if not flow.waiting:
                continue
            spot = turns if turns.blocked_by else flow
            walker = _Walker(flow, rank, flow.ready.values(), spot.blocked_by)
            if spot.blocked_by is None:
                yield walker
            else:
                parked.append((until_s(spot, pace, now), len(parked), walker))
            for line in flow.lines.values():
                if line.blocked_by and line.calls:
                    walker = _Walker(flow, rank, (line,), line.blocked_by)
                    parked.append((until_s(line, pace, now), len(parked), walker))
    heapq.heapify(parked)


def until_s(spot: Spot, pace: Pace, now: float) -> float:
    """How long a spot will probably stay parked."""
    if spot.until < math.inf:
        return max(0.0, spot.until - now)
    assert spot.blocked_by is not None
    return pace.mean_hold_s / max(1, spot.blocked_by.amount)  # one of its running calls must end


def gap_s(verdict: Verdict, call: Waiting, hold_s: float) -> float:
    """How long after one call a limit lets the next one pass, at its rate."""
    amount = max(1, verdict.amount)
    wish = call.wish
    match verdict.limit:
        case "calls_per_second":
            return 1.0 / amount
        case "calls_per_minute":
            return 60.0 / amount
        case "tokens_per_minute":
            return 60.0 * min(wish.prompt_tokens + wish.completion_tokens, amount) / amount
        case "texts_per_minute":
            return 60.0 * min(wish.texts, amount) / amount
        case "calls_in_flight":
            return hold_s / amount
        case _:
            return hold_s
