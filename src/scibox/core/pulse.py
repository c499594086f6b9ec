"""How a replica is: its calls in flight, how fast it is beside its peers, whether it answers at all.

Speeds are compared for comparable work. A long prompt takes longer to its first chunk and a long answer to
its last, so each measurement is set against what the same class of work took on all replicas of the
deployment of late (`Norms`); the replica's `slowness` is the average of these ratios, geometric, for times
to first chunks are skewed. A call that still waits counts as well: the replica is at least as slow as that.
So one that hangs is found out before it has answered anything.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, TypeVar

from .breaker import Breaker

if TYPE_CHECKING:
    from .routing import Choice

M = TypeVar("M")  # what the router knows of a replica beside its pulse

NORM_OVER_S = 30.0  # what peers took so long ago still counts for the norm
SLOWNESS_OVER_S = 2.0  # and so long ago for the replica: a change shows within the 5 s that are promised
PRIOR = 0.25  # measurements that say "as its peers"; else the first one would decide alone
LEAST_RATIO, MOST_RATIO = 1 / 16, 16.0  # one measurement says no more than that
NOISE = 1.25  # less is no difference: else the one that was luckier last would get every call of a quiet time
LEAST_S = 1e-4  # shorter times are noise
OVERDUE = 2.0  # times the norm until a call that waits says something: half of them take longer than usual
SHOWN_CHUNKS = 8  # of a stream, before its pace says something


class Norms:
    """What a class of work usually takes on the replicas of a deployment, in log seconds."""

    __slots__ = ("_classes",)

    def __init__(self) -> None:
        self._classes: dict[int, list[float]] = {}  # weight, weighted sum, when

    def ratio(self, work: int, took_s: float, now: float) -> float:
        """The logarithm of how much longer it took than usual; it is part of the usual from now on."""
        took = math.log(max(took_s, LEAST_S))
        known = self._classes.get(work)
        if known is None:
            self._classes[work] = [1.0, took, now]
            return 0.0
        usual = known[1] / known[0]
        kept = math.exp(min(0.0, known[2] - now) / NORM_OVER_S)
        known[0] = known[0] * kept + 1.0
        known[1] = known[1] * kept + took
        known[2] = now
        return took - usual

    def usual_s(self, work: int) -> float:
        """Seconds it usually takes; infinite where nobody knows yet."""
        known = self._classes.get(work)
        return math.exp(known[1] / known[0]) if known is not None else math.inf


def first_work(size: int) -> int:
    """The class of what comes before a first chunk: prompts of so many bytes, within a factor of two."""
    return size.bit_length()


PACE = -1  # the class of a chunk more of a stream


def whole_work(amount: int) -> int:
    """The class of an answer in one piece, by its LLM tokens."""
    return -2 - amount.bit_length()


class Pulse(Generic[M]):
    """Of one replica, `member`. Times are monotonic seconds; `slots` is None where they are not known."""

    __slots__ = (
        "_at",
        "_bag",
        "_evidence",
        "_home",
        "_queued_at",
        "_seen_at",
        "_slow_sum",
        "_waiting",
        "begun_at",
        "breaker",
        "in_flight",
        "is_draining",
        "member",
        "norms",
        "slots",
        "slowness",
        "unread",
    )

    def __init__(self, member: M, slots: int | None = None) -> None:
        self.member = member
        self.slots = slots  # changed by `Choice.resize` only
        self.breaker = Breaker()
        self.in_flight = 0
        self.unread = 0  # bytes of the prompts whose first chunk has not come
        self.is_draining = False  # changed by `Choice.drain` only
        self.slowness = 1.0  # of late, beside its peers
        self.begun_at = -math.inf  # its last call
        self.norms = Norms()  # its own until it is one of several
        self._evidence = self._slow_sum = 0.0
        self._seen_at = -math.inf
        self._waiting: dict[Flight[M], None] = {}  # calls without a first chunk, oldest first
        self._home: Choice[M] | None = None
        self._bag: list[Pulse[M]] | None = None  # the home's list it stands in, and where
        self._at = -1
        self._queued_at = math.inf  # when the home looks at it again

    @property
    def has_room(self) -> bool:
        """Whether one call more has a slot."""
        return self.slots is None or self.in_flight < self.slots

    def begin(self, now: float, size: int = 0, tells_first: bool = True) -> Flight[M]:
        """A call goes to it (`Choice.begin` is who decides that).

        `size`: bytes of the prompt that it must read; `tells_first`: its first chunk comes when the prompt
        has been read, as in a stream of chat, and not when an answer of unknown length is complete.
        """
        flight = Flight(self, now, size, self.breaker.begin(), tells_first)
        self.in_flight += 1
        self.begun_at = now
        if tells_first:
            self._waiting[flight] = None
            self.unread += size
        if self._home is not None:
            self._home.place(self, now)
        return flight

    def slowness_at(self, now: float) -> float:
        """How many times slower than its peers it is, its oldest call that waits included."""
        if self._waiting:
            oldest = next(iter(self._waiting))
            overdue = (now - oldest.begun_at) / oldest.usual_s
            if overdue > OVERDUE and overdue > self.slowness:
                return min(overdue, MOST_RATIO)
        return self.slowness

    def measured(self, work: int, took_s: float, now: float) -> None:
        """So long a piece of work of that class took."""
        ratio = self.norms.ratio(work, took_s, now)
        ratio = min(max(ratio, _LEAST_LOG), _MOST_LOG)
        kept = math.exp(min(0.0, self._seen_at - now) / SLOWNESS_OVER_S)
        self._evidence = self._evidence * kept + 1.0
        self._slow_sum = self._slow_sum * kept + ratio
        self._seen_at = max(now, self._seen_at)
        slow = self._slow_sum / (self._evidence + PRIOR)
        self.slowness = math.exp(slow) if abs(slow) > _NOISE_LOG else 1.0

    def checked(self, is_well: bool, now: float, luck: float) -> None:
        """An active check succeeded or failed."""
        if is_well:
            self.breaker.found_well(now)
        else:
            self.breaker.failed(now, False, luck)
        self._changed(now)

    def _has_read(self, flight: Flight[M]) -> bool:
        """It waits no longer; whether it did."""
        if self._waiting.pop(flight, False) is not None:
            return False
        self.unread -= flight._size
        return True

    def _changed(self, now: float) -> None:
        if self._home is not None:
            self._home.place(self, now)


_LEAST_LOG, _MOST_LOG, _NOISE_LOG = math.log(LEAST_RATIO), math.log(MOST_RATIO), math.log(NOISE)


class Flight(Generic[M]):
    """One attempt on a replica, from its begin to exactly one of the four ends; more ends change nothing."""

    __slots__ = ("_chunks", "_first_at", "_has_ended", "_is_probe", "_pulse", "_size", "begun_at", "usual_s")

    def __init__(self, pulse: Pulse[M], now: float, size: int, is_probe: bool, tells_first: bool) -> None:
        self._pulse = pulse
        self._size = size
        self._is_probe = is_probe
        self._first_at: float | None = None
        self._chunks = 0
        self._has_ended = False
        self.begun_at = now
        self.usual_s = pulse.norms.usual_s(first_work(size)) if tells_first else math.inf

    @property
    def member(self) -> M:
        """The replica it is on."""
        return self._pulse.member

    def first_chunk(self, now: float) -> None:
        """It answers: a breaker that was half open closes, and the time to here is measured."""
        if self._first_at is not None or self._has_ended:
            return
        self._first_at = now
        if self._pulse._has_read(self):
            self._pulse.measured(first_work(self._size), now - self.begun_at, now)
        self._answers(now)

    def end(self, now: float, chunks: int = 0) -> None:
        """It has answered, well or with an error of the caller's; `chunks` (or LLM tokens) were in the
        answer.
        """
        if self._closes():
            self._measure(now, chunks)
            if self._first_at is None:
                self._answers(now)
            self._pulse._changed(now)

    def fail(self, now: float, luck: float) -> None:
        """It could not be reached, broke off, was too late, or answered with a fault of its own."""
        if self._closes():
            self._pulse.breaker.failed(now, self._is_probe, luck)
            self._pulse._changed(now)

    def refuse(self, now: float, retry_after_s: float | None) -> None:
        """It said 429, or 503 with `Retry-After`: it is busy, not broken."""
        if self._closes():
            self._pulse.breaker.refused(now, self._is_probe, retry_after_s)
            self._pulse._changed(now)

    def abandon(self, now: float, chunks: int = 0) -> None:
        """The caller left, or another attempt was first; that it waited counts where that was long."""
        waited_s = now - self.begun_at
        is_late = self._first_at is None and waited_s > OVERDUE * self.usual_s
        if self._closes():
            self._measure(now, chunks)
            if is_late:
                self._pulse.measured(first_work(self._size), waited_s, now)
            self._pulse.breaker.abandoned(self._is_probe)
            self._pulse._changed(now)

    def _closes(self) -> bool:
        if self._has_ended:
            return False
        self._has_ended = True
        self._pulse._has_read(self)
        self._pulse.in_flight -= 1
        return True

    def _answers(self, now: float) -> None:
        breaker = self._pulse.breaker
        was = breaker.state
        breaker.succeeded(now, self._is_probe)
        self._is_probe = False  # what comes later is an event of its own
        if breaker.state is not was:
            self._pulse._changed(now)

    def _measure(self, now: float, chunks: int) -> None:
        if self._first_at is not None:
            if chunks >= SHOWN_CHUNKS:
                self._pulse.measured(PACE, (now - self._first_at) / chunks, now)
        elif chunks > 0:
            self._pulse.measured(whole_work(chunks), now - self.begun_at, now)
