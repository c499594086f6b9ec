"""How long the calls of a queue will probably wait: who would be picked when, if things go on as they are.

Slots come free in the order in which their calls will probably end; each goes to the call whose turn it is
then. A call holds its slot for its expected cost times what a unit of cost has taken lately. A limit that
parks calls lets them go on when it said, and from then on at the rate that it is.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from .flows import Flow, Line, Waiting
from .limits import Verdict
from .parking import Spot
from .turns import Turns

LEARNED = 0.05  # how much of the pace each ended call makes up: the last twenty or so
FORESEEN = 4  # calls yet to come that are foreseen for each one that waits
SOONER = 0.8  # the median of the first of several ends, in parts of its mean
OVERDUE = 0.5  # a call that has run longer than expected is expected to run for half as long again


class Pace:
    """What a unit of cost (a weighted LLM token) takes, in seconds of a slot."""

    def __init__(self) -> None:
        self._calls = 0
        # Nothing is known until a call has ended; a guess would be a hundredfold wrong for many models.
        self._hold_s = 0.0
        self._cost = 0.0

    def learn(self, hold_s: float, cost: float) -> None:
        """A call has held its slot for so long; `cost` is what it was in the end."""
        self._calls += 1
        part = max(LEARNED, 1 / self._calls)
        self._hold_s += part * (hold_s - self._hold_s)
        self._cost += part * (cost - self._cost)

    def hold_s(self, cost: float) -> float:
        """How long a call of that cost will hold its slot; 0.0 while nothing is known: none is refused."""
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
    """An owner's calls in the order of its turns, as a walk picks them; then those probably to come."""

    __slots__ = ("blocked_by", "comes_at_s", "counter", "flow", "gap_s", "lines", "rank", "turn")

    def __init__(
        self, flow: Flow, rank: int, lines: Iterable[Line], blocked_by: Verdict | None, now: float
    ) -> None:
        self.flow = flow
        self.rank = rank
        self.counter = flow.counter
        self.turn = flow.last_turn
        self.blocked_by = blocked_by
        self.lines = deque(iter(line.calls) for line in lines)
        silent_s = now - flow.came_at
        # When its next call comes; never if it has sent but one, or is blocked. One that is silent for longer
        # than usual is expected to be so for as long again.
        self.gap_s = max(flow.gap_s, silent_s)
        self.comes_at_s = math.inf
        if blocked_by is None:
            self.comes_at_s = flow.gap_s - silent_s if silent_s < flow.gap_s else silent_s

    def next(self) -> Waiting | None:
        """Its next call; None: there is none any more."""
        while self.lines:
            line = self.lines.popleft()
            for call in line:
                if not call.has_left:
                    self.lines.append(line)
                    return call
        return None


class _Walk:
    """One walk: who is ready, who is parked until when, and when slots come free, in seconds from now."""

    def __init__(self, ranks: Sequence[Turns], pace: Pace, now: float) -> None:
        self._ready: list[tuple[int, float, int, int, _Walker]] = []
        self._parked: list[tuple[float, int, _Walker]] = []
        self._pace = pace
        self._now = now
        self._number = 0
        self._left = 0
        self._turn = max((turns.turn for turns in ranks), default=0)
        for rank, turns in enumerate(ranks):
            self._left += turns.waiting
            for flow in turns.flows.values():
                self._add(flow, rank, turns)
        self._foreseen = FORESEEN * self._left

    def run(self, free: list[float]) -> Iterator[tuple[Waiting, float]]:
        heapq.heapify(free)
        while self._left and free:
            at_s = heapq.heappop(free)
            if not self._ready:
                at_s = max(at_s, self._parked[0][0])
            self._unpark(at_s)
            walker = heapq.heappop(self._ready)[-1]
            call = walker.next()
            if call is not None:
                self._left -= 1
                yield call, at_s
                cost = walker.flow.turns.cost(call)
            elif walker.comes_at_s <= at_s and self._foreseen:
                self._foreseen -= 1
                walker.comes_at_s += walker.gap_s
                cost = walker.flow.typical_cost
            else:
                if walker.comes_at_s < math.inf and self._foreseen:
                    self._park(walker, max(at_s, walker.comes_at_s))
                heapq.heappush(free, at_s)
                continue
            hold_s = self._pace.hold_s(cost)
            heapq.heappush(free, at_s + hold_s)
            walker.counter += cost / walker.flow.weight
            self._turn += 1
            walker.turn = self._turn
            if walker.blocked_by is None:
                self._push(walker)
            else:
                assert call is not None
                self._park(walker, at_s + gap_s(walker.blocked_by, call, hold_s))

    def _add(self, flow: Flow, rank: int, turns: Turns) -> None:
        spot = turns if turns.blocked_by else flow
        walker = _Walker(flow, rank, flow.ready, spot.blocked_by, self._now)
        if walker.lines and spot.blocked_by is None:
            self._push(walker)
        elif walker.lines:
            self._park(walker, until_s(spot, self._pace, self._now))
        elif walker.comes_at_s < math.inf:
            self._park(walker, walker.comes_at_s)
        for line in flow.lines.values():
            if line.blocked_by and line.waiting:
                walker = _Walker(flow, rank, (line,), line.blocked_by, self._now)
                self._park(walker, until_s(line, self._pace, self._now))

    def _push(self, walker: _Walker) -> None:
        self._number += 1
        heapq.heappush(self._ready, (walker.rank, walker.counter, walker.turn, self._number, walker))

    def _park(self, walker: _Walker, until: float) -> None:
        self._number += 1
        heapq.heappush(self._parked, (until, self._number, walker))

    def _unpark(self, at_s: float) -> None:
        while self._parked and self._parked[0][0] <= at_s:
            walker = heapq.heappop(self._parked)[-1]
            if self._ready and self._ready[0][0] == walker.rank:
                walker.counter = max(walker.counter, self._ready[0][1])
            self._push(walker)


def walk(
    ranks: Iterable[Turns], running: Iterable[Waiting], slots: int, pace: Pace, now: float
) -> Iterator[tuple[Waiting, float]]:
    """Every waiting call with the seconds until it starts, in that order. O(n log n). Nothing is changed.

    Owners are expected to go on sending as they did: an owner's 64th call waits for much of what others send
    until then. A blocked key counts as an owner of its own here.
    """
    free = _spread([pace.rest_s(call, now) for call in running])
    free += [0.0] * (slots - len(free))
    yield from _Walk(list(ranks), pace, now).run(free)


def _spread(rests_s: list[float]) -> list[float]:
    """When slots come free, of how long each is expected to be held: the first of many does so sooner.

    Nobody knows how long an answer becomes, so ends are about evenly spread over twice their mean, and most
    come a little sooner than on average.
    """
    rests_s.sort()
    step_s = SOONER * 2 * sum(rests_s) / (len(rests_s) * (len(rests_s) + 1) or 1)
    return [min(rest_s, step_s * number) for number, rest_s in enumerate(rests_s, 1)]


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
