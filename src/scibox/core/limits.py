"""All limits of all subjects: reserve when a call starts, settle when it has ended.

The contract is `Limiter`; `Windows` keeps it in memory. An implementation that asks somebody else (a store
that nodes share) answers later; that is why answers go to a callback. `Windows` calls it before it returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from .admission import Allowance, Subject, Wish
from .quotas import Period, Quota
from .types import NO_LIMITS, Limits
from .windows import Window


class Moment(Struct, frozen=True, gc=False):
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
    left: Sequence[Allowance] | None = None  # of what was taken, where that is known in the same moment


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


_CALLS, _TOKENS, _TEXTS = range(3)  # what a window counts: an index of what a call takes
_WINDOWS = (  # the field, the length in seconds, what it counts
    ("calls_per_second", 1.0, _CALLS),
    ("calls_per_minute", 60.0, _CALLS),
    ("tokens_per_minute", 60.0, _TOKENS),
    ("texts_per_minute", 60.0, _TEXTS),
)
_QUOTAS: tuple[tuple[str, Period], ...] = (("tokens_per_day", "day"), ("tokens_per_month", "month"))


class _Held:
    """What one subject has used."""

    __slots__ = ("allowed", "former", "in_flight", "limits", "name", "quotas", "rates", "tokens", "windows")

    def __init__(self, name: str) -> None:
        self.name = name
        self.limits = NO_LIMITS
        self.in_flight = 0
        self.allowed = math.inf  # in flight
        self.windows: dict[str, Window] = {}  # each under its field
        self.rates: tuple[tuple[Window, int, str], ...] = ()  # the same, with what they count
        self.tokens: Window | None = None  # the one that counts LLM tokens
        self.quotas: dict[str, Quota] = {}
        self.former: dict[str, Quota] = {}  # that went: a call that waited since then may bring them back

    def adopt(self, limits: Limits) -> None:
        """Take changed limits; what was used stays used."""
        self.limits = limits
        self.allowed = math.inf if limits.calls_in_flight is None else limits.calls_in_flight
        former, self.windows, rates = self.windows, {}, []
        for field, length_s, unit in _WINDOWS:
            if (amount := getattr(limits, field)) is not None:
                window = self.windows[field] = former.get(field) or Window(amount, length_s)
                window.amount = amount
                rates.append((window, unit, field))
        self.rates = tuple(rates)
        self.tokens = self.windows.get("tokens_per_minute")
        for field, period in _QUOTAS:
            if (amount := getattr(limits, field)) is not None:
                quota = self.quotas.setdefault(field, self.former.pop(field, Quota(amount, period)))
                quota.amount = amount
            elif field in self.quotas:
                self.former[field] = self.quotas.pop(field)

    def is_idle(self, at: Moment) -> bool:
        """Whether it is as if it had never been used."""
        return (
            not self.in_flight
            and all(window.remaining(at.clock) == window.amount for window in self.windows.values())
            and not any(quota.used for quota in (*self.quotas.values(), *self.former.values()))
        )

    def blocks(self, units: Units, at: Moment) -> Iterator[Verdict]:
        """The limits that a call does not fit into."""
        name = self.name
        for field, quota in self.quotas.items():
            if quota.is_used_up(at.unix):
                yield Verdict(False, name, field, quota.amount, quota.reset_s(at.unix), is_final=True)
            elif quota.is_reserved(at.unix):
                yield Verdict(False, name, field, quota.amount, None)
        if self.in_flight >= self.allowed:
            wait_s = None if self.allowed else math.inf
            yield Verdict(False, name, "calls_in_flight", int(self.allowed), wait_s, not self.allowed)
        for window, unit, field in self.rates:
            if units[unit] and (wait_s := window.wait_for(units[unit], at.clock)):
                yield Verdict(False, name, field, window.amount, wait_s, math.isinf(wait_s))

    def take(self, units: Units, at: Moment, left: list[Allowance]) -> _Taken:
        """Reserve for a call, and say in the same pass what is left."""
        self.in_flight += 1
        clock, name, taken = at.clock, self.name, 0
        for window, unit, field in self.rates:
            amount, wanted = window.amount, units[unit]
            if wanted:
                reserved = window.reserve(wanted, clock)
                if unit == _TOKENS:
                    taken = reserved
            left.append(Allowance(name, field, amount, *window.left(clock)))
        if self.allowed is not math.inf:
            self._add_flights(left)
        if not self.quotas:
            return self, self.tokens, taken, ()
        quotas = [(quota, quota.take(units[_TOKENS], at.unix)) for quota in self.quotas.values()]
        self._add_quotas(at.unix, left)
        return self, self.tokens, taken, quotas

    def add_left(self, at: Moment, left: list[Allowance]) -> None:
        """Say what is left of each limit."""
        for window, _, field in self.rates:
            left.append(Allowance(self.name, field, window.amount, *window.left(at.clock)))
        if self.allowed is not math.inf:
            self._add_flights(left)
        self._add_quotas(at.unix, left)

    def _add_flights(self, left: list[Allowance]) -> None:
        allowed = int(self.allowed)
        left.append(Allowance(self.name, "calls_in_flight", allowed, max(0, allowed - self.in_flight), 0.0))

    def _add_quotas(self, unix: float, left: list[Allowance]) -> None:
        for field, quota in self.quotas.items():
            left.append(Allowance(self.name, field, quota.amount, quota.remaining(unix), quota.reset_s(unix)))


Units = tuple[int, int, int]  # what a call takes: itself, LLM tokens, texts
# What a call has taken of a subject: of the window of LLM tokens how many, of quotas the period they are of.
_Taken = tuple[_Held, Window | None, int, Sequence[tuple[Quota, float]]]


class Content(NamedTuple):
    """What the windows of one subject hold, as it can be told to another place that counts."""

    subject: str
    windows: list[tuple[str, list[tuple[float, int]]]]  # the field; monotonic seconds and units


class Windows:
    """The limits in memory of one process; exact. A clock that steps back is taken to stand still."""

    SWEEP_AT = 1_024  # subjects; then, and whenever they have doubled since, idle ones are forgotten

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._running: dict[str, tuple[float, int, list[_Taken]]] = {}  # when, and how many tokens
        self._sweep_at = self.SWEEP_AT
        self._clock = 0.0

    def take(self, wish: Wish, at: Moment, done: Callable[[Verdict], None]) -> None:
        """Reserve from every subject of the wish, or from none."""
        if at.clock < self._clock:
            at = self._onward(at)
        self._clock = clock = at.clock
        units = (1, wish.prompt_tokens + wish.completion_tokens, wish.texts)
        known, held = self._held, []
        for subject in wish.subjects:
            of = known.get(subject.name)
            if of is None or of.limits is not subject.limits:
                of = self._find(subject, at)
            held.append(of)
            has_room = of.in_flight < of.allowed
            for window, unit, _ in of.rates:
                # It holds at most what it held when it was last touched: mostly that is answer enough.
                wanted = units[unit]
                if window.used + wanted > window.amount and wanted and not window.has_room(wanted, clock):
                    has_room = False
            if not has_room or (of.quotas and any(q.is_reserved(at.unix) for q in of.quotas.values())):
                done(self._blocked(wish, units, at))
                return
        done(Verdict(True, left=self._reserve(wish, held, units, at)))

    def count(self, wish: Wish, at: Moment) -> Sequence[Allowance]:
        """Reserve for a call that another place has admitted, whether or not there is room; what is left."""
        at = self._onward(at)
        held = [self._find(subject, at) for subject in wish.subjects]
        units = (1, wish.prompt_tokens + wish.completion_tokens, wish.texts)
        return self._reserve(wish, held, units, at)

    def settle(self, call_id: str, tokens: int | None, at: Moment) -> None:
        """A taken call has ended: give back what it did not use, charge what it used beyond."""
        running = self._running.pop(call_id, None)
        if running is None:
            return
        if at.clock < self._clock:
            at = self._onward(at)
        self._clock = at.clock
        taken_at, reserved, taken = running
        used = reserved if tokens is None else tokens
        for of, window, units, quotas in taken:
            of.in_flight -= 1
            if used != units and window is not None:
                window.settle(taken_at, units, used, at.clock)
            for quota, period in quotas:
                quota.settle(period, reserved, used, at.unix)

    def allowances(
        self, subjects: Sequence[Subject], at: Moment, done: Callable[[Sequence[Allowance]], None]
    ) -> None:
        """What is left, at once."""
        at = self._onward(at)
        left: list[Allowance] = []
        for subject in subjects:
            self._find(subject, at).add_left(at, left)
        done(left)

    def load_used(self, subject: Subject, day_tokens: int, month_tokens: int, at: Moment) -> None:
        """What the ledger says of today and this month."""
        for field, quota in self._find(subject, at).quotas.items():
            quota.load(day_tokens if field == "tokens_per_day" else month_tokens, at.unix)

    def contents(self, at: Moment) -> Iterator[Content]:
        """What all windows hold now."""
        at = self._onward(at)
        for name, of in self._held.items():
            yield Content(name, [(f, window.contents(at.clock)) for f, window in of.windows.items()])

    def reserved_tokens(self, call_id: str) -> list[tuple[float, int]]:
        """What of `contents` is a running call's: the moment and the LLM tokens in each subject's minute."""
        taken_at, _, taken = self._running[call_id]
        return [_reserved(of, window, units, taken_at) for of, window, units, _ in taken]

    def quotas_used(self, at: Moment) -> Iterator[tuple[str, str, int]]:
        """Subject, field, and what calls that have ended used of it."""
        for name, of in self._held.items():
            for field, quota in of.quotas.items():
                yield name, field, quota.used_at(at.unix)

    def _reserve(self, wish: Wish, held: list[_Held], units: Units, at: Moment) -> Sequence[Allowance]:
        left: list[Allowance] = []
        taken = [of.take(units, at, left) for of in held]
        self._running[wish.call_id] = (at.clock, units[_TOKENS], taken)
        return left

    def _onward(self, at: Moment) -> Moment:
        if at.clock < self._clock:
            return Moment(self._clock, at.unix)
        self._clock = at.clock
        return at

    def _blocked(self, wish: Wish, units: Units, at: Moment) -> Verdict:
        blocks = (
            verdict for subject in wish.subjects for verdict in self._find(subject, at).blocks(units, at)
        )
        return max(blocks, key=_gravity)

    def _find(self, subject: Subject, at: Moment) -> _Held:
        of = self._held.get(subject.name)
        if of is None:
            if len(self._held) >= self._sweep_at:
                self._forget_idle(at)
            of = self._held[subject.name] = _Held(subject.name)
        if of.limits is not subject.limits and of.limits != subject.limits:
            of.adopt(subject.limits)
        return of

    def _forget_idle(self, at: Moment) -> None:
        self._held = {name: of for name, of in self._held.items() if not of.is_idle(at)}
        self._sweep_at = max(self.SWEEP_AT, 2 * len(self._held))


def _reserved(of: _Held, window: Window | None, units: int, taken_at: float) -> tuple[float, int]:
    if window is None or of.tokens is not window:  # that limit went since, and what it held with it
        return taken_at, 0
    return window.told_at(taken_at), units


def _gravity(verdict: Verdict) -> tuple[bool, float]:
    """Final ones first, then the longest wait, then those for another call's end."""
    return verdict.is_final, -1.0 if verdict.wait_s is None else verdict.wait_s
