"""Is the queue fair, and are its estimates true? A discrete-event simulation; no clock, the same figures each time.

    python bench/fairness.py [SECONDS] [SEED]

Prints for each scenario: Jain's index of the service that backlogged owners got by weight, the widest service gap
between two of them against the bound of the paper (Sheng et al., OSDI'24: 2 max(w_p L_input, w_q M)), the light
users' waits against the time a call holds a slot, the throughput against first come first served, and the
median error of the expected waits told at entry and told each second since.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import statistics
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from msgspec import structs

from scibox.core.admission import Place, Subject, Wish
from scibox.core.fairness import FairQueue
from scibox.core.flows import Waiting
from scibox.core.limits import Moment, Verdict, Windows
from scibox.core.returning import SURE, Returning
from scibox.core.turns import INPUT_WEIGHT, OUTPUT_WEIGHT
from scibox.core.types import Limits

PREFILL_PER_S, DECODE_PER_S = 1_500.0, 30.0  # LLM tokens of one slot
SEEN_EVERY_S = 0.5  # a stream's tokens are charged this often
PROMPT, COMPLETION, RESERVED = (20, 1_200), (10, 400), 512


@dataclass(frozen=True)
class Sender:
    """An owner's way of sending: so many at a time, each after a pause; or at random so many per second."""

    owner: str
    at_once: int = 0
    pause_s: float = 0.0
    per_s: float = 0.0
    weight: float = 1.0
    scale: float = 1.0  # of the sizes
    streams: bool = True
    limits: Limits | None = None
    burst: int = 0  # all at once at the beginning, once
    patience_s: float = math.inf


@dataclass
class Job:
    """A call with its true size, and what became of it."""

    wish: Wish
    sender: Sender
    completion: int
    came_at: float
    told: list[tuple[float, float]] = field(default_factory=list)  # when, how long it would wait
    started_at: float = -1.0
    seen: int = 0
    refused: int = 0
    has_failed: bool = False

    @property
    def hold_s(self) -> float:
        return self.wish.prompt_tokens / PREFILL_PER_S + self.completion / DECODE_PER_S

    def done_at(self, now: float) -> float:
        """The service it has got, in weighted LLM tokens."""
        if self.started_at < 0 or now < self.started_at:
            return 0.0
        run_s = min(now - self.started_at, self.hold_s) - self.wish.prompt_tokens / PREFILL_PER_S
        return INPUT_WEIGHT * self.wish.prompt_tokens + OUTPUT_WEIGHT * max(0.0, run_s) * DECODE_PER_S


class Fifo:
    """First come, first served: what the fair queue is compared with."""

    def __init__(self, _: str, slots: int) -> None:
        self._free = slots
        self._calls: deque[Waiting] = deque()
        self._plain = FairQueue("", 0)

    def enter(self, wish: Wish, now: float) -> None:
        self._plain.enter(wish, now)
        self._calls.append(self._plain._waiting[wish.call_id])

    def pick(self, _: float) -> Waiting | None:
        if not self._free or not self._calls:
            return None
        self._free -= 1
        return self._calls.popleft()

    def finish(self, *_: object) -> None:
        self._free += 1

    def charge(self, *_: object) -> None: ...

    def wake(self, _: str) -> bool:
        return False

    def next_wake(self) -> None: ...

    def places(self, _: float) -> list[Place]:
        return []

    def estimate(self, *_: object) -> None: ...


class Simulation:
    """Senders, one model with slots, and the queue between them."""

    def __init__(
        self,
        senders: list[Sender],
        slots: int,
        seed: int = 1,
        make: Callable[[str, int], FairQueue | Fifo] = FairQueue,
    ) -> None:
        self.jobs: dict[str, Job] = {}
        self.slots = slots
        self.queue = make("m", slots)
        self.now = 0.0
        self.backlog: list[dict[str, tuple[bool, float]]] = []  # each second: waits?, service so far
        self._limits = Windows()
        self._returning = Returning()
        self._random = random.Random(seed)
        self._sizes = {sender.owner: random.Random(f"{seed} {sender.owner}") for sender in senders}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._served: defaultdict[str, float] = defaultdict(float)
        self._running: dict[str, Job] = {}
        self._waiting: defaultdict[str, int] = defaultdict(int)
        self._senders = senders
        self._wakes: set[float] = set()

    def run(self, seconds: float) -> Simulation:
        for sender in self._senders:
            for _ in range(sender.at_once):
                self._at(self._random.random() * 0.01, lambda sender=sender: self._send(sender))
            for number in range(sender.burst):
                self._at(60 + number * 0.02, lambda sender=sender: self._send(sender))
            if sender.per_s:
                self._at(self._random.expovariate(sender.per_s), lambda sender=sender: self._come(sender))
        self._at(1.0, self._look)
        while self._events and self._events[0][0] <= seconds:
            self.now, _, deed = heapq.heappop(self._events)
            deed()
            self._pick()
        return self

    def _at(self, when: float, deed: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._number), deed))

    def _come(self, sender: Sender) -> None:
        self._send(sender)
        self._at(self.now + self._random.expovariate(sender.per_s), lambda: self._come(sender))

    def _send(self, sender: Sender) -> None:
        sizes = self._sizes[sender.owner]
        prompt = max(1, int(sizes.randint(*PROMPT) * sender.scale))
        completion = max(1, int(sizes.randint(*COMPLETION) * sender.scale))
        number, owner = next(self._number), sender.owner
        subjects = (Subject(f"owner:{owner}", sender.limits),) if sender.limits else ()
        wish = Wish(str(number), f"key {owner}", owner, sender.weight, "m", "interactive",
                    prompt, max(RESERVED, completion), 0, 60.0, subjects)  # fmt: skip
        job = self.jobs[wish.call_id] = Job(wish, sender, completion, self.now)
        self._enter(job)

    def _enter(self, job: Job) -> None:
        owner, call_id = job.wish.owner, job.wish.call_id
        self._waiting[owner] += 1
        self.queue.enter(job.wish, self.now)
        self._pick()
        place = self.queue.estimate(call_id, self.now)
        if place is None:
            return
        job.told.append((self.now, place.eta_s))
        if job.sender.patience_s < math.inf:
            self._judge(job, place)

    def _judge(self, job: Job, place: Place) -> None:
        """As the desk does: refuse it if it would wait for too long, and it comes again when it was told."""
        owner, patience_s = job.wish.owner, job.sender.patience_s
        pace_s = place.eta_s / self._waiting[owner]
        luck = self._random.random()
        is_back = self._returning.is_expected(owner, self.now)
        ahead_s = pace_s * self._returning.ahead(owner, self.now)
        if not is_back and place.eta_s + ahead_s > SURE * patience_s:
            self.queue.remove(job.wish.call_id)
            self._waiting[owner] -= 1
            job.refused += 1
            excess_s = place.eta_s - SURE * patience_s
            after_s = self._returning.refuse(owner, excess_s, pace_s, self.now, luck)
            self._at(self.now + after_s, lambda: self._enter(job))
        else:
            self._at(self.now + patience_s, lambda: self._lose_patience(job))

    def _lose_patience(self, job: Job) -> None:
        if self.queue.remove(job.wish.call_id):
            self._waiting[job.wish.owner] -= 1
            job.has_failed = True

    def _pick(self) -> None:
        while (call := self.queue.pick(self.now)) is not None:
            verdicts: list[Verdict] = []
            wish = call.wish if isinstance(self.queue, FairQueue) else structs.replace(call.wish, subjects=())
            self._limits.take(wish, Moment(self.now, self.now), verdicts.append)
            if verdicts[0].taken:
                self._start(self.jobs[call.wish.call_id])
            else:
                assert isinstance(self.queue, FairQueue)
                self.queue.put_back(call.wish.call_id, verdicts[0], self.now)
        wake = self.queue.next_wake()
        if wake is not None and wake not in self._wakes:
            self._wakes.add(wake)
            self._at(wake, lambda: None)

    def _start(self, job: Job) -> None:
        job.started_at = self.now
        self._waiting[job.wish.owner] -= 1
        self._running[job.wish.call_id] = job
        self._at(self.now + job.hold_s, lambda: self._end(job))
        if job.sender.streams:
            self._at(self.now + SEEN_EVERY_S, lambda: self._see(job))

    def _see(self, job: Job) -> None:
        if job.wish.call_id in self._running:
            made = int((job.done_at(self.now) - INPUT_WEIGHT * job.wish.prompt_tokens) / OUTPUT_WEIGHT)
            self.queue.charge(job.wish.call_id, made - job.seen)
            job.seen = made
            self._at(self.now + SEEN_EVERY_S, lambda: self._see(job))

    def _end(self, job: Job) -> None:
        del self._running[job.wish.call_id]
        self._served[job.wish.owner] += job.done_at(self.now)
        tokens = job.wish.prompt_tokens + job.completion
        self.queue.finish(job.wish.call_id, tokens, self.now)
        self._limits.settle(job.wish.call_id, tokens, Moment(self.now, self.now))
        for subject in job.wish.subjects:
            self.queue.wake(subject.name)
        if job.sender.at_once:
            self._at(self.now + job.sender.pause_s, lambda: self._send(job.sender))

    def _look(self) -> None:
        got = dict(self._served)
        for job in self._running.values():
            got[job.wish.owner] = got.get(job.wish.owner, 0.0) + job.done_at(self.now)
        self.backlog.append(
            {
                sender.owner: (self._waiting[sender.owner] > 0, got.get(sender.owner, 0.0))
                for sender in self._senders
            }
        )
        for place in self.queue.places(self.now):
            self.jobs[place.call_id].told.append((self.now, place.eta_s))
        self._at(self.now + 1.0, self._look)

    # What came out of it.

    def bound(self) -> float:
        """The paper's: with M what all slots can hold at once."""
        longest = max(job.wish.prompt_tokens for job in self.jobs.values())
        most = max(job.wish.prompt_tokens + job.completion for job in self.jobs.values())
        return 2 * max(INPUT_WEIGHT * longest, OUTPUT_WEIGHT * most * self.slots)

    def gap(self) -> float:
        """The widest difference in service by weight of two owners in an interval in which both always waited."""
        widest = 0.0
        for first, second in itertools.combinations(self._senders, 2):
            low = high = None
            for look in self.backlog:
                (waits, mine), (waits_too, others) = look[first.owner], look[second.owner]
                if not (waits and waits_too):
                    low = high = None
                    continue
                apart = mine / first.weight - others / second.weight
                low = apart if low is None else min(low, apart)
                high = apart if high is None else max(high, apart)
                widest = max(widest, high - low)
        return widest

    def jain(self, owners: list[str]) -> float:
        """Jain's index of what owners got by weight."""
        weights = {sender.owner: sender.weight for sender in self._senders}
        shares = [self.backlog[-1][owner][1] / weights[owner] for owner in owners]
        return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))

    def throughput(self) -> float:
        """Weighted LLM tokens per second."""
        return sum(got for _, got in self.backlog[-1].values()) / len(self.backlog)

    def waits(self, owner: str) -> list[float]:
        """How long the calls of owners of that beginning waited."""
        return [
            job.started_at - job.came_at
            for job in self.jobs.values()
            if job.wish.owner.startswith(owner) and job.started_at >= 0
        ]

    def hold_s(self) -> float:
        """How long a call holds a slot on average."""
        return statistics.mean(job.hold_s for job in self.jobs.values())

    def errors(self, at_entry: bool, warm_s: float) -> list[float]:
        """Of the expected waits, in parts of the real ones, once things had gone on for a while."""
        return list(self._errors(at_entry, warm_s))

    def _errors(self, at_entry: bool, warm_s: float) -> Iterator[float]:
        for job in self.jobs.values():
            if job.started_at < 0 or job.came_at < warm_s:
                continue
            for when, told_s in job.told[:1] if at_entry else job.told[1:]:
                real_s = job.started_at - when
                if real_s > 0.25:  # less is told as "now"
                    yield abs(told_s - real_s) / real_s


def light() -> list[Sender]:
    return [Sender(f"light {number}", at_once=1, pause_s=0.5) for number in range(5)]


SCENARIOS: dict[str, tuple[list[Sender], int]] = {
    "one floods, five send one at a time, 8 slots": ([Sender("flood", at_once=64), *light()], 8),
    "one floods, five send one at a time, 2 slots": ([Sender("flood", at_once=64), *light()], 2),
    "all flood: few, many, long, not streamed": (
        [
            Sender("many", at_once=64),
            Sender("few", at_once=12),
            Sender("long", at_once=32, scale=2.5),
            Sender("whole", at_once=32, streams=False),
        ],
        4,
    ),
    "weights 1, 2, 4": (
        [Sender(f"weight {weight}", at_once=24, weight=weight) for weight in (1.0, 2.0, 4.0)],
        6,
    ),
    "random arrivals, 90 % of capacity": (
        [Sender(f"random {number}", per_s=0.9 * 8 / 7.2 / 6) for number in range(6)],
        8,
    ),
    "twenty at once under 2 calls per second, 16 slots": (
        [
            Sender("limited", at_once=20, scale=0.1, limits=Limits(calls_per_second=2)),
            Sender("other", at_once=4, scale=0.1),
        ],
        16,
    ),
}


def returners(seeds: range) -> tuple[int, int]:
    """How many calls of bursts that are larger than can start in time were refused, and how many then started.

    Bursts that can start within a minute and their patience: more than that nobody can promise.
    """
    refused = started = 0
    for seed, (size, patience_s) in itertools.product(
        seeds, ((12, 20), (16, 20), (16, 30), (20, 30), (20, 60))
    ):
        bursts = [Sender(f"burst {number}", burst=size, patience_s=patience_s) for number in range(3)]
        run = Simulation([*bursts, Sender("steady", at_once=2)], 8, seed).run(300.0)
        back = [job for job in run.jobs.values() if job.refused]
        refused += len(back)
        started += sum(job.started_at >= 0 and job.refused == 1 for job in back)
    return refused, started


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1_800.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    for name, (senders, slots) in SCENARIOS.items():
        fair = Simulation(senders, slots, seed).run(seconds)
        fifo = Simulation(senders, slots, seed, Fifo).run(seconds)
        print(f"\n{name}")
        print(f"  Jain's index             {fair.jain([sender.owner for sender in senders]):.3f}")
        print(f"  widest gap / bound       {fair.gap():.0f} / {fair.bound():.0f}")
        if not any(sender.limits for sender in senders):  # which FIFO knows nothing of
            print(f"  throughput / FIFO        {fair.throughput() / fifo.throughput():.3f}")
        if waits := fair.waits("light"):
            print(f"  light users' p95 wait    {statistics.quantiles(waits, n=20)[-1]:.2f} s")
        print(f"  a slot is held for       {fair.hold_s():.2f} s")
        for told, at_entry in (("at entry", True), ("each second", False)):
            if errors := fair.errors(at_entry, seconds / 10):
                print(f"  wait told {told:<14} {statistics.median(errors):.0%} off (median of {len(errors)})")
    refused, started = returners(range(1, 31))
    print(
        f"\nof {refused} calls refused in bursts {started / refused:.1%} started when they came back as told"
    )


if __name__ == "__main__":
    main()
