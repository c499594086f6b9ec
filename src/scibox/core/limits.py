"""All limits of all subjects: reserve when a call starts, settle when it has ended.

The contract is `Limiter`; `Windows` keeps it in memory. An implementation that asks somebody else (a store
that nodes share) answers later; that is why answers go to a callback. `Windows` calls it before it returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from .admission import Allowance, Subject, Wish
from .quotas import Period, Quota
from .types import NO_LIMITS, Limits
from .windows import Window


class Moment(NamedTuple):
    """One reading of both clocks: monotonic seconds for rates, Unix seconds for quotas."""

    clock: float
    unix: float


class Verdict(NamedTuple):
    """Whether everything was taken; else nothing was, and which limit of which subject blocks.

    Of several that block it is the one that does so longest. `wait_s`: try again after so many seconds; None:
    when a call of that subject has ended (it is worth a try then in any case, since calls give back what they
    did not use). `is_final`: waiting does not help before the day or month ends (`wait_s`), or ever
    (infinite: the limit is 0).
    """

    taken: bool
    subject: str = ""
    limit: str = ""  # the field of `Limits`
    amount: int = 0
    wait_s: float | None = 0.0
    is_final: bool = False


TAKEN = Verdict(True)


class Limiter(Protocol):
    """Counts what subjects use. No method waits, and none raises for want of the place where it counts.

    An answer goes to `done`, at once or later, exactly once, in the order of the questions; everything is
    applied in the order it was called, so that a `take` after a `settle` sees what was given back. One that
    answers later must answer all the same when the place it asks is away (from limits of its own). One that
    shares with other nodes never says `wait_s=None`, since it would not hear of their calls' ends.
    """

    def take(self, wish: Wish, at: Moment, done: Callable[[Verdict], None]) -> None:
        """Reserve for a call that could start now, from every subject of the wish, or from none.

        A call whose reservation is larger than a whole limit reserves all of it instead, so that no call is
        impossible. Limits are taken as the wish names them: changed ones hold from now on, with what was
        used.
        """

    def settle(self, call_id: str, tokens: int | None, at: Moment) -> None:
        """A taken call has ended after so many LLM tokens (None: as reserved). Harmless twice.

        What was not used is given back; calls and texts stay counted.
        """

    def allowances(
        self, subjects: Sequence[Subject], at: Moment, done: Callable[[Sequence[Allowance]], None]
    ) -> None:
        """What is left of each limit of these subjects, in the order of the fields of `Limits`."""

    def load_used(self, subject: Subject, day_tokens: int, month_tokens: int, at: Moment) -> None:
        """What the ledger says that a subject used today and this month; what is known already stays."""


_WINDOWS = (  # the field, the length in seconds, what it counts
    ("calls_per_second", 1.0, "calls"),
    ("calls_per_minute", 60.0, "calls"),
    ("tokens_per_minute", 60.0, "tokens"),
    ("texts_per_minute", 60.0, "texts"),
)
_QUOTAS: tuple[tuple[str, Period], ...] = (("tokens_per_day", "day"), ("tokens_per_month", "month"))


class _Held:
    """What one subject has used."""

    __slots__ = ("in_flight", "limits", "quotas", "windows")

    def __init__(self) -> None:
        self.limits = NO_LIMITS
        self.in_flight = 0
        self.windows: list[tuple[str, str, Window]] = []  # the field, what it counts
        self.quotas: list[tuple[str, Quota]] = []

    def adopt(self, limits: Limits) -> None:
        """Take changed limits; what was used stays used."""
        self.limits = limits
        windows = {field: window for field, _, window in self.windows}
        self.windows = []
        for field, length_s, unit in _WINDOWS:
            if (amount := getattr(limits, field)) is not None:
                window = windows.get(field) or Window(amount, length_s)
                window.amount = amount
                self.windows.append((field, unit, window))
        quotas = dict(self.quotas)
        self.quotas = []
        for field, period in _QUOTAS:
            if (amount := getattr(limits, field)) is not None:
                quota = quotas.get(field) or Quota(amount, period)
                quota.amount = amount
                self.quotas.append((field, quota))

    def is_idle(self, at: Moment) -> bool:
        """Whether it is as if it had never been used."""
        return (
            not self.in_flight
            and all(window.remaining(at.clock) == window.amount for _, _, window in self.windows)
            and not any(quota.used for _, quota in self.quotas)
        )

    def blocks(self, name: str, units: dict[str, int], at: Moment) -> Iterator[Verdict]:
        """The limits that a call of so many units does not fit into."""
        for field, quota in self.quotas:
            if quota.is_used_up(at.unix):
                yield Verdict(False, name, field, quota.amount, quota.reset_s(at.unix), is_final=True)
            elif quota.is_reserved(at.unix):
                yield Verdict(False, name, field, quota.amount, None)
        allowed = self.limits.calls_in_flight
        if allowed is not None and self.in_flight >= allowed:
            yield Verdict(False, name, "calls_in_flight", allowed, None if allowed else math.inf, not allowed)
        for field, unit, window in self.windows:
            if wait_s := window.wait_for(units[unit], at.clock) if units[unit] else 0.0:
                yield Verdict(False, name, field, window.amount, wait_s, math.isinf(wait_s))


class Content(NamedTuple):
    """What the windows of one subject hold, as it can be told to another place that counts."""

    subject: str
    windows: list[tuple[str, list[tuple[float, int]]]]  # the field; monotonic seconds and units


class _Reservation(NamedTuple):
    """What a running call has taken."""

    at: Moment
    tokens: int
    subjects: list[_Held]
    windows: list[tuple[Window, int]]  # those of tokens, with the units taken
    quotas: list[tuple[Quota, float]]  # with the period


class Windows:
    """The limits in memory of one process; exact. A clock that steps back is taken to stand still."""

    SWEEP_AT = 1_024  # subjects; then, and whenever they have doubled since, idle ones are forgotten

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._running: dict[str, _Reservation] = {}
        self._sweep_at = self.SWEEP_AT
        self._clock = 0.0

    def take(self, wish: Wish, at: Moment, done: Callable[[Verdict], None]) -> None:
        """Reserve from every subject of the wish, or from none."""
        at = self._onward(at)
        tokens = wish.prompt_tokens + wish.completion_tokens
        units = {"calls": 1, "tokens": tokens, "texts": wish.texts}
        held = [self._find(subject, at) for subject in wish.subjects]
        blocks = [
            verdict
            for subject, of in zip(wish.subjects, held, strict=True)
            for verdict in of.blocks(subject.name, units, at)
        ]
        if blocks:
            done(max(blocks, key=_gravity))
            return
        reservation = _Reservation(at, tokens, held, [], [])
        for of in held:
            of.in_flight += 1
            for _, unit, window in of.windows:
                window.take(units[unit], at.clock)
                if unit == "tokens":
                    reservation.windows.append((window, window.clamp(tokens)))
            for _, quota in of.quotas:
                reservation.quotas.append((quota, quota.take(tokens, at.unix)))
        self._running[wish.call_id] = reservation
        done(TAKEN)

    def settle(self, call_id: str, tokens: int | None, at: Moment) -> None:
        """A taken call has ended: give back what it did not use, charge what it used beyond."""
        reservation = self._running.pop(call_id, None)
        if reservation is None:
            return
        at = self._onward(at)
        used = reservation.tokens if tokens is None else tokens
        for of in reservation.subjects:
            of.in_flight -= 1
        for window, reserved in reservation.windows:
            window.settle(reservation.at.clock, reserved, used, at.clock)
        for quota, period in reservation.quotas:
            quota.settle(period, reservation.tokens, used, at.unix)

    def allowances(
        self, subjects: Sequence[Subject], at: Moment, done: Callable[[Sequence[Allowance]], None]
    ) -> None:
        """What is left, at once."""
        at = self._onward(at)
        done([left for subject in subjects for left in self._left(subject, at)])

    def load_used(self, subject: Subject, day_tokens: int, month_tokens: int, at: Moment) -> None:
        """What the ledger says of today and this month."""
        for field, quota in self._find(subject, at).quotas:
            quota.load(day_tokens if field == "tokens_per_day" else month_tokens, at.unix)

    def contents(self, at: Moment) -> Iterator[Content]:
        """What all windows hold now."""
        at = self._onward(at)
        for name, of in self._held.items():
            yield Content(name, [(field, window.contents(at.clock)) for field, _, window in of.windows])

    def quotas_used(self, at: Moment) -> Iterator[tuple[str, str, int]]:
        """Subject, field, and what calls that have ended used of it."""
        for name, of in self._held.items():
            for field, quota in of.quotas:
                yield name, field, quota.used_at(at.unix)

    def _onward(self, at: Moment) -> Moment:
        if at.clock < self._clock:
            return Moment(self._clock, at.unix)
        self._clock = at.clock
        return at

    def _left(self, subject: Subject, at: Moment) -> Iterator[Allowance]:
        of = self._find(subject, at)
        for field, unit, window in of.windows:
            del unit
            yield Allowance(
                subject.name, field, window.amount, window.remaining(at.clock), window.reset_s(at.clock)
            )
        if (allowed := of.limits.calls_in_flight) is not None:
            yield Allowance(subject.name, "calls_in_flight", allowed, max(0, allowed - of.in_flight), 0.0)
        for field, quota in of.quotas:
            yield Allowance(
                subject.name, field, quota.amount, quota.remaining(at.unix), quota.reset_s(at.unix)
            )

    def _find(self, subject: Subject, at: Moment) -> _Held:
        of = self._held.get(subject.name)
        if of is None:
            if len(self._held) >= self._sweep_at:
                self._forget_idle(at)
            of = self._held[subject.name] = _Held()
        if of.limits is not subject.limits and of.limits != subject.limits:
            of.adopt(subject.limits)
        return of

    def _forget_idle(self, at: Moment) -> None:
        self._held = {name: of for name, of in self._held.items() if not of.is_idle(at)}
        self._sweep_at = max(self.SWEEP_AT, 2 * len(self._held))


def _gravity(verdict: Verdict) -> tuple[bool, float]:
    """Final ones first, then the longest wait, then those for another call's end."""
    return verdict.is_final, -1.0 if verdict.wait_s is None else verdict.wait_s
