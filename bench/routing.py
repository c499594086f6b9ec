"""Which replica should a call go to? A discrete-event simulation of `core/routing.py`; no clock, the same figures each time.

    python bench/routing.py [SECONDS, - for all] [SEED]

A replica has slots, reads prompts one after the other (a prefix cache of bounded size saves what it has read before),
and writes the slower the more calls it has. The policies share breaker, slots and retries; only the choice differs.
Prints for each scenario and policy: time to the first token (mean, p50, p99), the mean time of a token after it, the part
of the prompts' LLM tokens that caches saved, the busiest replica's calls in flight against the mean, and what became of
a slow or dead replica. At last what a choice costs: the only figures that are measured.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from routing_rivals import POLICIES
from routing_world import BYTES_PER_TOKEN, SLOTS, Job, Server, chats, lone_prompts, one_system_prompt

from scibox.core.breaker import State
from scibox.core.pulse import Flight, Pulse
from scibox.core.routing import Choice
from scibox.core.spending import Budget

CONNECT_S = 0.001  # until a dead one is known to be dead


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
    write_s: float = 0.0
    written: int = 0
    tokens: int = 0
    cached: int = 0
    uneven: list[float] = field(default_factory=list)
    starts: list[list[int]] = field(default_factory=list)  # of each second: of the first replica, of all
    failed: int = 0
    retried: int = 0
    broken: int = 0

    def add(self, other: Result) -> None:
        """Another run of the same."""
        self.first_s += other.first_s
        self.uneven += other.uneven
        self.starts = [
            [a + b for a, b in zip(*two, strict=True)] for two in zip(self.starts, other.starts, strict=True)
        ]
        for name in ("write_s", "written", "tokens", "cached", "failed", "retried", "broken"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def choices(self) -> int:
        return sum(of_all for _, of_all in self.starts)

    @property
    def hit(self) -> float:
        return self.cached / max(1, self.tokens)

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
        flight = self.choice.begin(now, start, size, True, job.tried)
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
            write_s = flight.member.write_s(job, now)
            self.result.write_s += write_s
            self.result.written += job.answer
            self._at(now + write_s, self._end, flight)

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
    Scenario("200 replicas, chats", 200, chats, 2.4, seconds=40.0),
    Scenario("2,000 replicas, chats", 2_000, chats, 2.4, seconds=30.0, leaves_out=BIG),
    Scenario("4,000 replicas, no shared prefixes", 4_000, lone_prompts, 3.2, seconds=12.0, leaves_out=BIG),
]


def run(
    scenario: Scenario, policy: str, seed: int = 1, seconds: float | None = None, runs: int = 1
) -> Result:
    """So many runs, taken together."""
    result = Simulation(scenario, policy, seed, seconds).run()
    for more in range(1, runs):
        result.add(Simulation(scenario, policy, seed + more, seconds).run())
    return result


def row(scenario: Scenario, policy: str, seed: int, seconds: float | None) -> str:
    of_it = run(scenario, policy, seed, seconds, runs=5 if scenario.replicas <= 16 else 1)
    cells = [
        policy,
        f"{statistics.fmean(of_it.first_s):.3f}",
        f"{of_it.quantile(0.5):.3f}",
        f"{of_it.quantile(0.99):.2f}",
        f"{1_000 * of_it.write_s / max(1, of_it.written):.1f}",
        f"{100 * of_it.hit:.0f} %",
        f"{statistics.fmean(of_it.uneven):.2f}",
    ]
    if scenario.slow != 1.0:
        cells += [" / ".join(f"{of_it.share(a, b, scenario.replicas):.2f}" for a, b in SPANS)]
    if scenario.dies_at_s is not None:
        cells += [f"{of_it.retried}, {of_it.failed}"]
    return "| " + " | ".join(cells) + " |"


SPANS = ((10, 20), (20, 25), (25, 30), (30, 60), (60, 65), (65, 70), (70, 90))


def heading(scenario: Scenario) -> str:
    titles = ["policy", "mean s", "p50", "p99", "ms a token", "cached", "busiest / mean"]
    if scenario.slow != 1.0:
        titles.append("share of the slow one by a fair share: " + ", ".join(f"{a}-{b} s" for a, b in SPANS))
    if scenario.dies_at_s is not None:
        titles.append("retried, failed calls")
    return f"\n### {scenario.name}\n\n| " + " | ".join(titles) + " |\n|---" + "|--:" * (len(titles) - 1) + "|"


def costs() -> None:
    """Microseconds of a choice and of what ends a call, the best of five: by replicas, by the prompt's beginning."""
    print(
        "\n### What a choice costs\n\n| replicas | beginning | µs a choice | µs to first chunk and end |\n|--:|--:|--:|--:|"
    )
    for replicas, size in itertools.product((2, 16, 2_000), (0, 1_000, 4_000, 32_000)):
        best = min(cost(replicas, size) for _ in range(5))
        print(f"| {replicas:,} | {size:,} bytes | {best[0]:.1f} | {best[1]:.1f} |", flush=True)


def cost(replicas: int, size: int, calls: int = 4_000) -> tuple[float, float]:
    luck = random.Random(1)
    choice = Choice(luck.random, [Pulse(number, SLOTS) for number in range(replicas)])
    starts = [luck.randbytes(size) for _ in range(100)]
    begins_s = ends_s = 0.0
    running: deque[Flight[int]] = deque()
    for number in range(calls):
        now = number / 1_000
        before = time.perf_counter()
        flight = choice.begin(now, starts[number % 100], size)
        between = time.perf_counter()
        begins_s += between - before
        assert flight is not None
        running.append(flight)
        if len(running) > 10 * min(replicas, 8):
            between = time.perf_counter()
            oldest = running.popleft()
            oldest.first_chunk(now)
            oldest.end(now, 100)
            ends_s += time.perf_counter() - between
    return 1e6 * begins_s / calls, 1e6 * ends_s / calls


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1] != "-" else None
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    for scenario in SCENARIOS:
        print(heading(scenario))
        for policy in POLICIES:
            if policy not in scenario.leaves_out:
                print(row(scenario, policy, seed, seconds), flush=True)
    costs()


if __name__ == "__main__":
    main()
