"""Sums over entries: which entries belong together, how they add up, and which spans of time make a range."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from .entries import Entry

Dimension = Literal["owner", "key", "model", "kind", "endpoint", "outcome", "day", "hour"]
Group = tuple[str | int, ...]  # one value for each dimension asked for; days and hours as Unix seconds
Cell = tuple[str, str, str, str, str, str]

HOUR_S = 3600
DAY_S = 86_400
WIDTHS_S = (HOUR_S, DAY_S)  # sums are kept for both: a year's report need not read every hour
CELL: tuple[Dimension, ...] = ("owner", "key", "model", "kind", "endpoint", "outcome")


class Sums(Struct):
    """What some calls cost together: LLM tokens, texts, money, seconds."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    delivered_tokens: int = 0
    texts: int = 0
    price: float = 0.0
    queued_s: float = 0.0
    total_s: float = 0.0

    def add(self, other: Sums) -> None:
        """Count these too."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Span(Struct, frozen=True):
    """From `since` until before `until`, in whole cells of `width_s`; Unix seconds."""

    width_s: int
    since: int
    until: int


class Scope(Struct, frozen=True):
    """Which calls: those that came from `since` until before `until`; no names: all of them."""

    since: int
    until: int
    owners: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def has(self, entry: Entry) -> bool:
        """Whether that call is one of them."""
        return (
            self.since <= entry.opened_at < self.until
            and (not self.owners or entry.owner in self.owners)
            and (not self.keys or entry.key_id in self.keys)
            and (not self.models or entry.model in self.models)
        )

    def in_hours(self) -> Scope:
        """The same in whole hours, those at its ends included."""
        until = -(-self.until // HOUR_S) * HOUR_S
        return Scope(start(self.since, HOUR_S), until, self.owners, self.keys, self.models)


def start(at: float, width_s: int) -> int:
    """When the hour or the day (UTC) began in which that is."""
    return int(at // width_s) * width_s


def of(entry: Entry) -> Sums:
    """The sums of one call."""
    usage = entry.usage
    return Sums(
        1,
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        usage.reasoning_tokens,
        entry.delivered_tokens,
        entry.texts,
        entry.price,
        entry.queued_s,
        entry.total_s,
    )


def cell(entry: Entry) -> Cell:
    """What it is counted under, beside the time."""
    return (entry.owner, entry.key_id, entry.model, entry.kind, entry.endpoint, entry.outcome.value)


def by_cell(entries: Iterable[Entry]) -> dict[tuple[int, int, Cell], Sums]:
    """The sums of each width, start and cell."""
    sums: dict[tuple[int, int, Cell], Sums] = {}
    for entry in entries:
        for width_s in WIDTHS_S:
            place = (width_s, start(entry.opened_at, width_s), cell(entry))
            sums.setdefault(place, Sums()).add(of(entry))
    return sums


def group(entry: Entry, by: Iterable[Dimension]) -> Group:
    """The group of a call."""
    values: dict[Dimension, str | int] = dict(zip(CELL, cell(entry), strict=True))
    values["day"] = start(entry.opened_at, DAY_S)
    values["hour"] = start(entry.opened_at, HOUR_S)
    return tuple(values[dimension] for dimension in by)


def spans(since: int, until: int, *, in_days: bool) -> list[Span]:
    """The fewest cells that make up the time between two whole hours; with `in_days` days where they fit."""
    first, last = -(-since // DAY_S) * DAY_S, until // DAY_S * DAY_S
    if not in_days or first >= last:
        pieces = [Span(HOUR_S, since, until)]
    else:
        pieces = [Span(HOUR_S, since, first), Span(DAY_S, first, last), Span(HOUR_S, last, until)]
    return [piece for piece in pieces if piece.since < piece.until]
