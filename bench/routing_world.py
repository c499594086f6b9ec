"""The world of `bench/routing.py`: calls that share beginnings of prompts or do not, and replicas that answer them."""

from __future__ import annotations

import bisect
import heapq
import itertools
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from scibox.core.prefixes import MOST_BYTES
from scibox.core.pulse import Flight

PREFILL_PER_S, OVERHEAD_S = 5_000.0, 0.02  # LLM tokens of a replica; what a call costs beside
CHUNK_S, BATCH = 0.02, 32  # a token of a lone call; so many calls at once take twice as long for each
SLOTS = 32
CACHE_TOKENS = 200_000
BYTES_PER_TOKEN = 4


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
