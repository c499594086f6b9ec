"""Many things that are due at some moment, served by one timer."""

from __future__ import annotations

import asyncio
import time

from scibox.gate.deadlines import GRAIN_S, Deadlines


class Heard:
    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self.deadlines: Deadlines[str] = Deadlines(time.monotonic, self._hear)

    def _hear(self, item: str) -> None:
        assert item not in self.at, "it is heard of once"
        self.at[item] = time.monotonic()

    async def until(self, item: str) -> None:
        async with asyncio.timeout(20):
            while item not in self.at:
                await asyncio.sleep(0.005)


async def test_none_is_heard_of_early_and_the_sooner_ones_first() -> None:
    heard, now = Heard(), time.monotonic()
    for item, delay_s in (("late", 0.4), ("soon", 0.1), ("at once", 0.0), ("between", 0.2)):
        heard.deadlines.add(item, now, delay_s)

    await heard.until("late")

    assert list(heard.at) == ["at once", "soon", "between", "late"]
    for item, delay_s in (("late", 0.4), ("soon", 0.1), ("between", 0.2)):
        assert heard.at[item] - now >= delay_s - 0.002


async def test_what_is_taken_away_before_is_not_heard_of() -> None:
    heard, now = Heard(), time.monotonic()
    due_in = heard.deadlines.add("gone", now, 0.05)
    heard.deadlines.add("there", now, 0.05)

    due_in.discard("gone")
    await heard.until("there")

    assert list(heard.at) == ["there"]


async def test_nothing_is_kept_of_what_was_taken_away_however_long_it_would_have_waited() -> None:
    deadlines, now = Heard().deadlines, time.monotonic()
    for number in range(10_000):  # a call each tenth of a second, each gone before the next one comes
        deadlines.add(str(number), now + number / 10, 3600.0).discard(str(number))

    assert len(deadlines._due) == len(deadlines._moments) == 1


async def test_a_long_wait_ends_at_most_a_grain_late() -> None:
    heard = Heard()
    for delay_s in (1.0, 3.7, 60.0, 99.0):
        heard.deadlines.add(str(delay_s), 1000.0, delay_s)

    moments = sorted(heard.deadlines._moments)

    for at, delay_s in zip(moments, (1.0, 3.7, 60.0, 99.0), strict=True):
        assert 0 <= at - (1000.0 + delay_s) <= GRAIN_S + 1e-6
