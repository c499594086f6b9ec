"""Questions to a server that must answer within a budget of time; else others do, all at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

_STANDSTILL_S = 1.0  # of this process, after which questions are answered in any case


class Question:
    """Something the server was asked. `give_up` answers without it."""

    __slots__ = ("due", "give_up", "is_answered")

    def __init__(self, due: float, give_up: Callable[[], None]) -> None:
        self.due = due
        self.give_up = give_up
        self.is_answered = False


class Questions:
    """Those that are open, in their order. `on_slow` hears when the oldest has waited too long."""

    def __init__(self, budget_s: float, on_slow: Callable[[], None]) -> None:
        self._budget_s = budget_s
        self._on_slow = on_slow
        self._open: deque[Question] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._check_at = 0.0  # when that timer is due

    def ask(self, give_up: Callable[[], None]) -> Question:
        """One more."""
        question = Question(asyncio.get_running_loop().time() + self._budget_s, give_up)
        self._open.append(question)
        if self._timer is None:
            self._look_again(question.due)
        return question

    def answered(self, question: Question) -> None:
        """The oldest has its answer."""
        assert self._open[0] is question, "answers come in the order of the questions"
        self._open.popleft()
        question.is_answered = True

    def give_up(self) -> None:
        """Answer all without the server."""
        questions, self._open = self._open, deque()
        for question in questions:
            question.is_answered = True
        for question in questions:
            question.give_up()

    def _check(self) -> None:
        """Whether the server answers in time. While it is this process that stands still it is not blamed."""
        now, self._timer = asyncio.get_running_loop().time(), None
        if not self._open:
            return
        late_s = now - self._open[0].due
        stood_still = now - self._check_at > self._budget_s / 5
        if late_s < 0:
            self._look_again(self._open[0].due)
        elif stood_still and late_s < _STANDSTILL_S:  # what came meanwhile is to be read first
            self._look_again(now + self._budget_s / 2)
        else:
            self._on_slow()

    def _look_again(self, at: float) -> None:
        self._check_at = at
        self._timer = asyncio.get_running_loop().call_at(at, self._check)
