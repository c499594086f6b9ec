"""Which replica should a call go to? A discrete-event simulation of `core/routing.py`; no clock, the same figures each time.

    python bench/routing.py [SECONDS] [SEED]

A replica has slots, reads prompts one after the other (a prefix cache of bounded size saves what it has read before),
and writes the slower the more calls it has. The policies share breaker, slots and retries; only the choice differs.
Prints for each scenario and policy: time to the first token (mean, p50, p99), the part of the prompts' LLM tokens that
caches saved, the busiest replica's calls in flight against the mean, and what became of a slow or dead replica.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import random
import statistics
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from scibox.core.breaker import State
from scibox.core.prefixes import MOST_BYTES
from scibox.core.pulse import Flight, Pulse
from scibox.core.routing import Choice
from scibox.core.spending import Budget

PREFILL_PER_S, OVERHEAD_S = 5_000.0, 0.02  # LLM tokens of a replica; what a call costs beside
CHUNK_S, BATCH = 0.02, 32  # a token of a lone call; so many calls at once take twice as long for each
SLOTS = 32
CACHE_TOKENS = 200_000
BYTES_PER_TOKEN = 4
CONNECT_S = 0.001  # until a dead one is known to be dead


@dataclass
class Job:
    """A call: its prompt as segments (a number, LLM tokens), so that prompts share beginnings."""

    at: float
    prompt: tuple[tuple[int, int], ...]
    answer: int
    tried: list[Server] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(tokens for _, tokens in self.prompt)

    @property
    def start(self) -> bytes:
        return b"".join((b"%08d" % part) * (tokens * BYTES_PER_TOKEN // 8) for part, tokens in self.prompt)[
            :MOST_BYTES
        ]


class Server:
    """A replica: what the gateway does not see."""

    def __init__(self, slowness: Callable[[float], float] = lambda _: 1.0) -> None:
        self.slowness = slowness
        self.is_dead = False
        self.running: dict[Flight[Server], Job] = {}
        self._reads_until = 0.0
        self._cache: OrderedDict[tuple[int, ...], int] = OrderedDict()
        self._cached = 0

    def read(self, job: Job, now: float) -> tuple[float, int]:
        """When its prompt has been read, and how many LLM tokens of it the cache had."""
        hit, parts, is_hit = 0, [], True
        for part, tokens in job.prompt:
            parts.append(part)
            key = tuple(parts)
            is_hit = is_hit and key in self._cache
            if is_hit:
                hit += tokens
                self._cache.move_to_end(key)
            elif key not in self._cache:
                self._cache[key] = tokens
                self._cached += tokens
        while self._cached > CACHE_TOKENS:
            self._cached -= self._cache.popitem(last=False)[1]
        read_s = (OVERHEAD_S + (job.tokens - hit) / PREFILL_PER_S) * self.slowness(now)
        self._reads_until = max(now, self._reads_until) + read_s
        return self._reads_until, hit

    def write_s(self, job: Job, now: float) -> float:
        return job.answer * CHUNK_S * (1 + len(self.running) / BATCH) * self.slowness(now)

    def forget(self) -> None:
        self._cache.clear()
        self._cached, self._reads_until = 0, 0.0


# --- policies -------------------------------------------------------------------------------------------------


class Blind(Choice[Server]):
    """One at random."""

    def _pick(self, now: float, marked: list[int], size: int, avoid: Any) -> tuple[Pulse[Server] | None, int]:
        return (self._draw(self._free, avoid) or self._draw(self._full, avoid)) if self.usable else None, 0


class RoundRobin(Blind):
    """One after the other, those that are full left out."""

    _turn: Iterator[Pulse[Server]] | None = None

    def _pick(self, now: float, marked: list[int], size: int, avoid: Any) -> tuple[Pulse[Server] | None, int]:
        if self._turn is None:
            self._turn = itertools.cycle(sorted(self._pulses, key=lambda pulse: id(pulse.member)))
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
                ((luck.getrandbits(32), pulse) for pulse in self._pulses for _ in range(20)),
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


class Ours(Choice[Server]):
    """As it is."""


POLICIES: dict[str, tuple[type[Choice[Server]], bool]] = {  # and whether it is told the prompt's beginning
    "random": (Blind, False),
    "round robin": (RoundRobin, False),
    "least in flight of all": (Least, False),
    "two choices": (Two, False),
    "hot or cold (Prequal)": (HotCold, False),
    "ours without prefixes": (Ours, False),
    "prefix hashed, bounded load": (Hashed, True),
    "ours": (Ours, True),
}


# --- traces ---------------------------------------------------------------------------------------------------


def lone_prompts(luck: random.Random, per_s: float) -> Iterator[Job]:
    """No two prompts have a beginning in common."""
    now = 0.0
    for number in itertools.count(1):
        now += luck.expovariate(per_s)
        yield Job(
            now, ((number, 2 * int(luck.lognormvariate(5.8, 0.7))),), 1 + int(luck.lognormvariate(5.0, 0.7))
        )


def chats(luck: random.Random, per_s: float) -> Iterator[Job]:
    """Conversations of several turns below the system prompts of 50 applications, some of them popular (Zipf)."""
    apps = [(1_000_000 + app, 100 * luck.randint(1, 25)) for app in range(50)]
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(50)))
    numbers = itertools.count(2_000_000)
    turns: list[tuple[float, int, Job]] = []
    begins, mean_turns = 0.0, 5.0
    while True:
        begins += luck.expovariate(per_s / mean_turns)
        while turns and turns[0][0] <= begins:
            at, _, job = heapq.heappop(turns)
            yield job
            if luck.random() > 1 / mean_turns:
                later = at + 4.0 + luck.expovariate(1 / 8.0)
                said = (next(numbers), 2 * int(luck.uniform(50, 200)))
                grown = (*job.prompt, (next(numbers), job.answer // 2 * 2), said)
                heapq.heappush(
                    turns, (later, next(numbers), Job(later, grown, 1 + int(luck.lognormvariate(5.0, 0.7))))
                )
        app = apps[bisect.bisect(weights, luck.random() * weights[-1])]
        prompt = (app, (next(numbers), 2 * int(luck.uniform(20, 150))))
        heapq.heappush(
            turns, (begins, next(numbers), Job(begins, prompt, 1 + int(luck.lognormvariate(5.0, 0.7))))
        )


def one_system_prompt(luck: random.Random, per_s: float) -> Iterator[Job]:
    """Everybody's prompt begins with the same 2,000 LLM tokens."""
    now = 0.0
    for number in itertools.count(1):
        now += luck.expovariate(per_s)
        yield Job(now, ((9, 2_000), (100 + number, 100)), 1 + int(luck.lognormvariate(5.0, 0.7)))


# --- the simulation -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """`per_s` is of each replica; the first replica is the one to which something happens."""

    name: str
    replicas: int
    trace: Callable[[random.Random, float], Iterator[Job]]
    per_s: float
    slow: float = 1.0  # times, between the two moments
    slow_from_s: float = 20.0
    slow_until_s: float = 60.0
    dies_at_s: float | None = None  # and comes back after 20 s with an empty cache
    dead: int = 1
    seconds: float = 90.0
    leaves_out: tuple[str, ...] = ()  # policies that look at all replicas

    def slowness(self, now: float) -> float:
        return self.slow if self.slow_from_s <= now < self.slow_until_s else 1.0


@dataclass
class Result:
    first_s: list[float] = field(default_factory=list)
    tokens: int = 0
    cached: int = 0
    uneven: list[float] = field(default_factory=list)
    starts: list[list[int]] = field(default_factory=list)  # of each second: of the first replica, of all
    failed: int = 0
    retried: int = 0
    broken: int = 0
    choice_us: float = 0.0

    def quantile(self, part: float) -> float:
        return sorted(self.first_s)[int(part * (len(self.first_s) - 1))]

    def share(self, from_s: float, until_s: float, replicas: int) -> float:
        """Of the calls that began then, the first replica's, by the share of one of so many."""
        of_it, of_all = (sum(column) for column in zip(*self.starts[int(from_s) : int(until_s)], strict=True))
        return replicas * of_it / max(1, of_all)


class Simulation:
    """A trace, a gateway that chooses, and the replicas behind it."""

    def __init__(self, scenario: Scenario, policy: str, seed: int = 1, seconds: float | None = None) -> None:
        self.scenario = scenario
        self.seconds = seconds or scenario.seconds
        self.result = Result()
        luck = random.Random(seed)
        slow = [Server(scenario.slowness)] if scenario.slow != 1.0 else []
        self._servers = slow + [Server() for _ in range(scenario.replicas - len(slow))]
        make, self._tells = POLICIES[policy]
        self._luck = random.Random(seed + 1)
        self.pulses = [Pulse(server, SLOTS) for server in self._servers]
        self.choice = make(self._luck.random, self.pulses)
        self._trace = scenario.trace(luck, scenario.per_s * scenario.replicas)
        self._budget = Budget()
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._queue: deque[Job] = deque()

    def run(self) -> Result:
        self.result.starts = [[0, 0] for _ in range(int(self.seconds) + 1)]
        job = next(self._trace)
        self._at(job.at, self._come, job)
        for second in range(1, int(self.seconds)):
            self._at(second, self._look)
        if self.scenario.dies_at_s is not None:
            for server in self._servers[: self.scenario.dead]:
                self._at(self.scenario.dies_at_s, self._die, server)
                self._at(self.scenario.dies_at_s + 20, self._revive, server)
        while self._events and self._events[0][0] <= self.seconds:
            now, _, do, rest = heapq.heappop(self._events)
            do(now, *rest)
        self.result.choice_us *= 1e6 / max(1, sum(of_all for _, of_all in self.result.starts))
        return self.result

    def _at(self, when: float, do: Callable[..., None], *rest: Any) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), do, rest))

    def _come(self, now: float, job: Job) -> None:
        coming = next(self._trace)
        self._at(coming.at, self._come, coming)
        self._budget.called(now)
        self._send(now, job)

    def _send(self, now: float, job: Job) -> None:
        if not self.choice._free and not self.choice._due:
            self._queue.append(job)  # the gate's queue: no slot is free
            return
        start = job.start if self._tells else b""
        size = job.tokens * BYTES_PER_TOKEN
        before = time.perf_counter()
        flight = self.choice.begin(now, start, size, True, job.tried)
        self.result.choice_us += time.perf_counter() - before
        if flight is None:
            self.result.failed += 1
            return
        server = flight.member
        begun = self.result.starts[int(now)]
        begun[0] += server is self._servers[0]
        begun[1] += 1
        server.running[flight] = job
        if server.is_dead:
            self._at(now + CONNECT_S, self._lose, flight)
            return
        read_at, hit = server.read(job, now)
        self.result.tokens += job.tokens
        self.result.cached += hit
        self._at(read_at, self._first, flight)

    def _first(self, now: float, flight: Flight[Server]) -> None:
        job = flight.member.running.get(flight)
        if job is not None:
            flight.first_chunk(now)
            self.result.first_s.append(now - job.at)
            self._at(now + flight.member.write_s(job, now), self._end, flight)

    def _end(self, now: float, flight: Flight[Server]) -> None:
        job = flight.member.running.pop(flight, None)
        if job is not None:
            flight.end(now, job.answer)
            self._next(now)

    def _lose(self, now: float, flight: Flight[Server]) -> None:
        job = flight.member.running.pop(flight, None)
        if job is None:
            return
        has_begun = flight._first_at is not None
        flight.fail(now, self._luck.random())
        self.result.broken += has_begun
        if not has_begun:
            job.tried.append(flight.member)
            if len(job.tried) < 3 and self._budget.take(now):
                self.result.retried += 1
                self._send(now, job)
            else:
                self.result.failed += 1
        self._next(now)

    def _next(self, now: float) -> None:
        if self._queue and self.choice._free:
            self._send(now, self._queue.popleft())

    def _die(self, now: float, server: Server) -> None:
        server.is_dead = True
        server.forget()
        for flight in list(server.running):
            self._lose(now, flight)

    def _revive(self, now: float, server: Server) -> None:
        server.is_dead = False

    def _look(self, now: float) -> None:
        loads = [p.in_flight for p in self.pulses if not p.member.is_dead and p.breaker.state is State.CLOSED]
        if now >= 10 and any(loads):
            self.result.uneven.append(max(loads) / statistics.fmean(loads))


BIG = ("least in flight of all", "round robin", "prefix hashed, bounded load")
SCENARIOS = [
    Scenario("4 replicas, no shared prefixes", 4, lone_prompts, 3.2),
    Scenario("16 replicas, no shared prefixes", 16, lone_prompts, 3.2),
    Scenario("16 replicas, chats", 16, chats, 2.4),
    Scenario("16 replicas, one system prompt", 16, one_system_prompt, 3.2),
    Scenario(
        "8 replicas, no shared prefixes, one 5x slower from 20 s to 60 s", 8, lone_prompts, 2.6, slow=5.0
    ),
    Scenario("8 replicas, chats, one 5x slower from 20 s to 60 s", 8, chats, 2.0, slow=5.0),
    Scenario("8 replicas, chats, one dies at 30 s", 8, chats, 2.0, dies_at_s=30.0),
    Scenario("64 replicas, chats, a quarter dies at 30 s", 64, chats, 1.6, dies_at_s=30.0, dead=16),
    Scenario("200 replicas, chats", 200, chats, 2.4, seconds=60.0),
    Scenario("2,000 replicas, chats", 2_000, chats, 2.4, seconds=40.0, leaves_out=BIG),
    Scenario("4,000 replicas, no shared prefixes", 4_000, lone_prompts, 3.2, seconds=20.0, leaves_out=BIG),
]


def row(scenario: Scenario, policy: str, seed: int, seconds: float | None) -> str:
    run = Simulation(scenario, policy, seed, seconds).run()
    cells = [
        policy,
        f"{statistics.fmean(run.first_s):.3f}",
        f"{run.quantile(0.5):.3f}",
        f"{run.quantile(0.99):.2f}",
        f"{100 * run.cached / max(1, run.tokens):.0f} %",
        f"{statistics.fmean(run.uneven):.2f}",
    ]
    notes = []
    if scenario.slow != 1.0:
        spans = [(10, 20), (20, 25), (25, 30), (30, 60), (60, 65), (65, 75), (75, 90)]
        notes += [" / ".join(f"{run.share(a, b, scenario.replicas):.2f}" for a, b in spans)]
    if scenario.dies_at_s is not None:
        notes += [f"{run.retried} retried, {run.failed} failed"]
    cells.append("; ".join(notes))
    return "| " + " | ".join(cells) + f" | {run.choice_us:.1f} |"


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else None
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    for scenario in SCENARIOS[: int(sys.argv[3]) if len(sys.argv) > 3 else None]:
        print(
            f"\n**{scenario.name}**\n\n| policy | mean s | p50 | p99 | cached | busiest/mean | | us |\n|---|--:|--:|--:|--:|--:|---|--:|"
        )
        for policy in POLICIES:
            if policy not in scenario.leaves_out:
                print(row(scenario, policy, seed, seconds), flush=True)


if __name__ == "__main__":
    main()
