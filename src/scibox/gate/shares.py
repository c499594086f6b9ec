"""Limits and verdicts in the words of shared.lua. Plain arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from scibox.core import quotas
from scibox.core.admission import Allowance, Subject, Wish
from scibox.core.limits import Moment, Verdict
from scibox.core.types import Limits

WINDOWS = ("calls_per_second", "calls_per_minute", "tokens_per_minute", "texts_per_minute")
QUOTAS = ("tokens_per_day", "tokens_per_month")
FIELDS = (*WINDOWS, "calls_in_flight", *QUOTAS)
CELL_US = (1_000, 60_000, 60_000, 60_000)  # of the windows
TOKENS = 2  # the index of the window that counts LLM tokens

_PERIODS: tuple[quotas.Period, ...] = ("day", "month")
_NEVER = -1


class Held(NamedTuple):
    """LLM tokens that a subject's window holds for a running call, in that cell of the server."""

    subject: str
    cell: int
    units: int


class Running:
    """A call that was taken, by the server at `now_us` of its clock or by this node alone.

    `held`: what the server's windows hold for it; None: the server does not know of it.
    """

    __slots__ = ("at", "held", "now_us", "periods", "subjects", "tokens")

    def __init__(self, wish: Wish, at: Moment, now_us: int | None = None) -> None:
        self.subjects = wish.subjects
        self.tokens = wish.prompt_tokens + wish.completion_tokens
        self.at = at
        self.now_us = now_us
        self.held: list[Held] | None = None
        self.periods = period_names(at)
        if now_us is not None:
            self.hold(now_us // CELL_US[TOKENS])

    def hold(self, cell: int) -> None:
        """All that it reserved is in that cell of the server."""
        self.held = self.reserved(cell)

    def reserved(self, cell: int) -> list[Held]:
        """What it reserved, as if in that cell."""
        return [
            Held(subject.name, cell, min(self.tokens, amount))
            for subject in self.subjects
            if (amount := subject.limits.tokens_per_minute) is not None
        ]

    def quotas(self) -> list[str]:
        """The keys of the quotas that it takes from."""
        return [
            f"{period}:{subject.name}"
            for subject in self.subjects
            for period, amount in zip(self.periods, amounts(subject.limits)[5:], strict=True)
            if amount >= 0
        ]

    def flights(self) -> list[str]:
        """The subjects whose calls in flight are limited."""
        return [subject.name for subject in self.subjects if subject.limits.calls_in_flight is not None]


@lru_cache(maxsize=8_192)
def amounts(limits: Limits) -> tuple[int, ...]:
    """In the order of FIELDS; -1: no limit."""
    return tuple(-1 if (amount := getattr(limits, field)) is None else amount for field in FIELDS)


def told(subjects: Sequence[Subject]) -> list[tuple[str | int, ...]]:
    """Subjects as the server reads them."""
    return [(subject.name, *amounts(subject.limits)) for subject in subjects]


def period_names(at: Moment) -> tuple[str, str]:
    """What the quotas of that UTC day and month are called: "d2026-11-24", "m2026-11"."""
    return _names(int(at.unix // 86_400))


@lru_cache(maxsize=64)
def _names(day: int) -> tuple[str, str]:
    moment = datetime.fromtimestamp(day * 86_400, UTC)
    return f"d{moment:%Y-%m-%d}", f"m{moment:%Y-%m}"


def verdict(subject: Subject, field: int, wait_us: int, at: Moment, *, is_final: bool) -> Verdict:
    """Which limit of a subject blocks a call, and until when."""
    name = FIELDS[field]
    if name in QUOTAS and is_final:
        wait_s = quotas.span(_PERIODS[QUOTAS.index(name)], at.unix)[1] - at.unix
    else:
        wait_s = math.inf if wait_us == _NEVER else wait_us / 1e6
    return Verdict(False, subject.name, name, amounts(subject.limits)[field], wait_s, is_final)


def allowances(subjects: Sequence[Subject], left: Sequence[tuple[int, int]], at: Moment) -> list[Allowance]:
    """What the server says is left of each limit."""
    limits = [
        (subject, field, amount)
        for subject in subjects
        for field, amount in zip(FIELDS, amounts(subject.limits), strict=True)
        if amount >= 0
    ]
    return [
        Allowance(subject.name, field, amount, remaining, _reset_s(field, reset_us, at))
        for (subject, field, amount), (remaining, reset_us) in zip(limits, left, strict=True)
    ]


def _reset_s(field: str, reset_us: int, at: Moment) -> float:
    if field in QUOTAS:
        return quotas.span(_PERIODS[QUOTAS.index(field)], at.unix)[1] - at.unix
    return reset_us / 1e6
