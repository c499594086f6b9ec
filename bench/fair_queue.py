"""What a call costs in the queue and the limits, by how many wait.

    python bench/fair_queue.py [CALLS]

Microseconds of CPU for one call's whole way: enter, estimate, finish of another, pick, take of two subjects'
limits, charge, settle; and milliseconds for one look at all places.
"""

from __future__ import annotations

import random
import sys
import time
from collections import deque

from scibox.core.admission import Subject, Wish
from scibox.core.fairness import FairQueue
from scibox.core.limits import Moment, Verdict, Windows
from scibox.core.types import Limits

OWNERS = 1_000
KEY = Limits(calls_per_second=1_000_000, calls_per_minute=10_000_000)
OWNER = Limits(tokens_per_minute=10**12, calls_in_flight=100_000, tokens_per_day=10**15)


def make(number: int, owner: int) -> Wish:
    subjects = (Subject(f"key:{owner}", KEY), Subject(f"owner:{owner}", OWNER))
    return Wish(f"call {number}", f"key {owner}", f"owner {owner}", 1.0, "m", "interactive",
                200, 300, 0, 60.0, subjects)  # fmt: skip


def measure(waiting: int, calls: int, with_limits: bool) -> tuple[float, float]:
    luck = random.Random(1)
    owners = min(OWNERS, waiting)
    queue, limiter, running = FairQueue("m", 32), Windows(), deque[str]()
    for number in range(waiting + 32):
        queue.enter(make(number, number % owners), 0.0)
    while (call := queue.pick(0.0)) is not None:
        running.append(call.wish.call_id)
    wishes = [make(waiting + 32 + number, luck.randrange(owners)) for number in range(calls)]
    verdicts: list[Verdict] = []
    looks = 3
    begin = time.process_time()
    for _ in range(looks):
        queue.places(0.0)
    look_ms = (time.process_time() - begin) / looks * 1e3
    now = 1.0
    begin = time.process_time()
    for wish in wishes:
        now += 0.01
        queue.enter(wish, now)
        queue.estimate(wish.call_id, now)
        ended = running.popleft()
        queue.finish(ended, 380, now)
        if with_limits:
            limiter.settle(ended, 380, Moment(now, now))
        picked = queue.pick(now)
        assert picked is not None
        if with_limits:
            limiter.take(picked.wish, Moment(now, now), verdicts.append)
        running.append(picked.wish.call_id)
        queue.charge(picked.wish.call_id, 20)
    return (time.process_time() - begin) / calls * 1e6, look_ms


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print("waiting   queue us   with limits us   all places ms")
    for waiting in (100, 1_000, 10_000, 100_000):
        plain, look_ms = measure(waiting, calls, with_limits=False)
        limited, _ = measure(waiting, calls, with_limits=True)
        print(f"{waiting:7}   {plain:8.1f}   {limited:14.1f}   {look_ms:13.1f}")


if __name__ == "__main__":
    main()
