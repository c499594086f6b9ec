"""A second attempt beside a first one that is slow: the first chunk of either is the answer.

For models that ask for it (`hedge_after_s`), with a budget of its own (`core/spending.py`); the loser ends
at once, its connection with it. Never for calls that nobody waits for.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine

from scibox.core.pulse import Flight
from scibox.core.spending import Budget, hedge_budget

from .answer import Answer
from .attempts import Way
from .replica import Replica

REMEMBERED = 100  # times to first chunks of a model, of which all but 5 are quicker than the 95th percentile
LEAST = 20  # of them, before they say something

Try = Callable[[Way, Flight[Replica], int], Coroutine[None, None, Answer | None]]
Running = asyncio.Task[Answer | None]


class Hedges:
    """Of all models."""

    def __init__(self) -> None:
        self._budgets: defaultdict[str, Budget] = defaultdict(hedge_budget)
        self._took_s: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))

    async def first(
        self, way: Way, flight: Flight[Replica], attempt: Try, clock: Callable[[], float]
    ) -> Answer | None:
        """What `attempt` would give, of whichever replica answers first; None: all have failed."""
        name, began_at = way.route.card.name, clock()
        self._budgets[name].called(began_at)
        running: dict[Running, Flight[Replica]] = {
            asyncio.create_task(attempt(way, flight, way.attempts.deployment)): flight
        }
        answer: Answer | None = None
        try:
            delay_s: float | None = self._delay_s(way)
            while running and answer is None:
                done, _ = await asyncio.wait(running, timeout=delay_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    delay_s = None
                    second = self._second(way, flight, clock())
                    if second is not None:
                        task = asyncio.create_task(attempt(way, second, way.attempts.deployment))
                        running[task] = second
                for task in done:
                    del running[task]
                    answer = _either(answer, task.result())
        finally:
            await _end(running)
        if answer is not None:
            self._took_s[name].append(clock() - began_at)
            way.witness.answers(way.attempts.deployment, answer.flight.member.name)
        return answer

    def _delay_s(self, way: Way) -> float:
        """As is configured, or so long that 95 % of the calls have their first chunk, if that is longer."""
        took = self._took_s[way.route.card.name]
        usual_s = sorted(took)[len(took) * 95 // 100] if len(took) >= LEAST else 0.0
        return max(way.route.hedge_after_s or 0.0, usual_s)

    def _second(self, way: Way, flight: Flight[Replica], now: float) -> Flight[Replica] | None:
        budget = self._budgets[way.route.card.name]
        if not budget.left(now):
            return None
        way.attempts.begun(flight)
        second = way.attempts.beside(now)
        if second is not None:
            budget.take(now)
        return second


def _either(one: Answer | None, other: Answer | None) -> Answer | None:
    """One of two that came at once; the other is let go."""
    if one is not None and other is not None:
        _drop(other)
    return one or other


def _drop(answer: Answer) -> None:
    answer.flight.abandon(answer.flight.begun_at)
    answer.close()


async def _end(running: dict[Running, Flight[Replica]]) -> None:
    """Nobody waits for these any more."""
    for task in running:
        task.cancel()
    for left in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(left, Answer):  # it was there already
            _drop(left)
