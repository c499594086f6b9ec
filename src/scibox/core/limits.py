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


_CALLS, _TOKENS, _TEXTS = range(3)  # what windows count: the index in the units of a call
_Units = tuple[int, int, int]
_WINDOWS = (  # the field, the length in seconds, what it counts
    ("calls_per_second", 1.0, _CALLS),
    ("calls_per_minute", 60.0, _CALLS),
    ("tokens_per_minute", 60.0, _TOKENS),
    ("texts_per_minute", 60.0, _TEXTS),
)
_QUOTAS: tuple[tuple[str, Period], ...] = (("tokens_per_day", "day"), ("tokens_per_month", "month"))


MOST_FOUND = 4_096  # tuples of subjects whose counters are remembered


class _Held:
    """What one subject has used."""

    __slots__ = ("allowed", "former", "in_flight", "limits", "quotas", "rates", "tokens", "windows")

    def __init__(self) -> None:
        self.limits = NO_LIMITS
        self.in_flight = 0
        self.allowed = math.inf  # in flight
        self.windows: dict[str, Window] = {}  # each under its field
        self.rates: tuple[tuple[Window, int], ...] = ()  # the same, and which of a call's units each counts
        self.tokens: tuple[Window, ...] = ()  # those that count LLM tokens
        self.quotas: dict[str, Quota] = {}
        self.former: dict[str, Quota] = {}  # that went: a call that waited since then may bring them back

    def adopt(self, limits: Limits) -> None:
        """Take changed limits; what was used stays used."""
        self.limits = limits
        self.allowed = math.inf if limits.calls_in_flight is None else limits.calls_in_flight
        for field, length_s, _ in _WINDOWS:
            if (amount := getattr(limits, field)) is None:
                self.windows.pop(field, None)
            else:
                self.windows.setdefault(field, Window(amount, length_s)).amount = amount
        self.windows = {field: self.windows[field] for field, _, _ in _WINDOWS if field in self.windows}
        self.rates = tuple(
            (self.windows[field], unit) for field, _, unit in _WINDOWS if field in self.windows
        )
        self.tokens = tuple(window for window, unit in self.rates if unit == _TOKENS)
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

    def has_room(self, units: _Units, at: Moment) -> bool:
        """Whether a call fits into every limit."""
        if self.in_flight >= self.allowed:
            return False
        clock = at.clock
        for window, unit in self.rates:
            if units[unit] and not window.has_room(units[unit], clock):
                return False
        return not self.quotas or not any(quota.is_reserved(at.unix) for quota in self.quotas.values())

    def blocks(self, name: str, units: _Units, at: Moment) -> Iterator[Verdict]:
        """The limits that a call does not fit into."""
        for field, quota in self.quotas.items():
            if quota.is_used_up(at.unix):
                yield Verdict(False, name, field, quota.amount, quota.reset_s(at.unix), is_final=True)
            elif quota.is_reserved(at.unix):
                yield Verdict(False, name, field, quota.amount, None)
        if self.in_flight >= self.allowed:
            wait_s = None if self.allowed else math.inf
            yield Verdict(False, name, "calls_in_flight", int(self.allowed), wait_s, not self.allowed)
        for (field, _, unit), window in ((known, self.windows.get(known[0])) for known in _WINDOWS):
            if window is not None and units[unit] and (wait_s := window.wait_for(units[unit], at.clock)):
                yield Verdict(False, name, field, window.amount, wait_s, math.isinf(wait_s))

    def advance(self, at: Moment) -> None:
        """Forget what has passed of all windows."""
        for window in self.windows.values():
            window.advance(at.clock)

    def take(self, units: _Units, at: Moment) -> _Taken:
        """Reserve for a call, in windows that were just looked at."""
        self.in_flight += 1
        for window, unit in self.rates:
            if units[unit]:
                window.reserve(units[unit])
        tokens = units[_TOKENS]
        # As `reserve` has clamped them: the limit may be another one when the call ends.
        windows = [(window, window.clamp(tokens)) for window in self.tokens]
        if not self.quotas:
            return self, windows, ()
        return self, windows, [(quota, quota.take(tokens, at.unix)) for quota in self.quotas.values()]


# What a call has taken of a subject: of windows the units, of quotas the period they are of.
_Taken = tuple[_Held, Sequence[tuple[Window, int]], Sequence[tuple[Quota, float]]]


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
        # Found last for a tuple of subjects, by its id; the tuple is kept, so the id stays its own.
        self._found: dict[int, tuple[Sequence[Subject], Sequence[_Held]]] = {}
        self._sweep_at = self.SWEEP_AT
        self._clock = 0.0

    def take(self, wish: Wish, at: Moment, done: Callable[[Verdict], None]) -> None:
        """Reserve from every subject of the wish, or from none."""
        at = self._onward(at)
        tokens = wish.prompt_tokens + wish.completion_tokens
        units = 1, tokens, wish.texts
        held = self._all(wish.subjects, at)
        for of in held:
            if not of.has_room(units, at):
                done(self._blocked(wish, units, at))
                return
        self._reserve(wish, held, at)
        done(TAKEN)

    def count(self, wish: Wish, at: Moment) -> None:
        """Reserve for a call that another place has admitted, whether or not there is room."""
        at = self._onward(at)
        held = self._all(wish.subjects, at)
        for of in held:
            of.advance(at)
        self._reserve(wish, held, at)

    def settle(self, call_id: str, tokens: int | None, at: Moment) -> None:
        """A taken call has ended: give back what it did not use, charge what it used beyond."""
        running = self._running.pop(call_id, None)
        if running is None:
            return
        at = self._onward(at)
        taken_at, reserved, taken = running
        used = reserved if tokens is None else tokens
        for of, windows, quotas in taken:
            of.in_flight -= 1
            for window, units in windows:
                window.settle(taken_at, units, used, at.clock)
            for quota, period in quotas:
                quota.settle(period, reserved, used, at.unix)

    def allowances(
        self, subjects: Sequence[Subject], at: Moment, done: Callable[[Sequence[Allowance]], None]
    ) -> None:
        """What is left, at once."""
        at = self._onward(at)
        left: list[Allowance] = []
        for of, subject in zip(self._all(subjects, at), subjects, strict=True):
            self._add_left(of, subject.name, at, left)
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
        return [_reserved(of, windows, taken_at) for of, windows, _ in taken]

    def quotas_used(self, at: Moment) -> Iterator[tuple[str, str, int]]:
        """Subject, field, and what calls that have ended used of it."""
        for name, of in self._held.items():
            for field, quota in of.quotas.items():
                yield name, field, quota.used_at(at.unix)

    def _reserve(self, wish: Wish, held: Sequence[_Held], at: Moment) -> None:
        tokens = wish.prompt_tokens + wish.completion_tokens
        units = 1, tokens, wish.texts
        taken = [of.take(units, at) for of in held]
        self._running[wish.call_id] = (at.clock, tokens, taken)

    def _onward(self, at: Moment) -> Moment:
        if at.clock < self._clock:
            return Moment(self._clock, at.unix)
        self._clock = at.clock
        return at

    def _add_left(self, of: _Held, name: str, at: Moment, left: list[Allowance]) -> None:
        clock = at.clock
        for field, window in of.windows.items():
            left.append(Allowance(name, field, window.amount, *window.left(clock)))
        if (allowed := of.limits.calls_in_flight) is not None:
            left.append(Allowance(name, "calls_in_flight", allowed, max(0, allowed - of.in_flight), 0.0))
        for field, quota in of.quotas.items():
            left.append(
                Allowance(name, field, quota.amount, quota.remaining(at.unix), quota.reset_s(at.unix))
            )

    def _blocked(self, wish: Wish, units: _Units, at: Moment) -> Verdict:
        blocks = (
            verdict
            for subject in wish.subjects
            for verdict in self._find(subject, at).blocks(subject.name, units, at)
        )
        return max(blocks, key=_gravity)

    def _all(self, subjects: Sequence[Subject], at: Moment) -> Sequence[_Held]:
        """What these have used; they come as the same tuple again and again."""
        kept = self._found.get(id(subjects))
        if kept is not None and kept[0] is subjects:
            for of, subject in zip(kept[1], subjects, strict=True):
                if of.limits is not subject.limits:
                    self._find(subject, at)
            return kept[1]
        for subject in subjects:  # twice: what is there already is not forgotten as idle for what comes
            self._find(subject, at)
        held = [self._find(subject, at) for subject in subjects]
        if isinstance(subjects, tuple):
            if len(self._found) >= MOST_FOUND:
                self._found.clear()
            self._found[id(subjects)] = subjects, held
        return held

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
        self._found.clear()
        self._sweep_at = max(self.SWEEP_AT, 2 * len(self._held))


def _reserved(of: _Held, windows: Sequence[tuple[Window, int]], taken_at: float) -> tuple[float, int]:
    for window, units in windows:
        if (
            of.windows.get("tokens_per_minute") is window
        ):  # else that limit went since, and what it held with it
            return window.told_at(taken_at), units
    return taken_at, 0


def _gravity(verdict: Verdict) -> tuple[bool, float]:
    """Final ones first, then the longest wait, then those for another call's end."""
    return verdict.is_final, -1.0 if verdict.wait_s is None else verdict.wait_s
