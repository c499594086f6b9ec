"""Sums over entries: which entries belong together, how they add up, and which spans of time make a range."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from msgspec import Struct

from . import quotas
from .entries import Entry

Dimension = Literal["owner", "key", "model", "kind", "endpoint", "outcome", "day", "hour"]
Group = tuple[str | int, ...]  # one value for each dimension asked for; days and hours as Unix seconds
Place = tuple[int, int, tuple[str, ...]]  # a width, where the cell begins, and its names

HOUR_S = 3600
DAY_S = 86_400
MONTH_S = 31 * DAY_S  # a name for it: months are as long as they are
WIDTHS_S = (HOUR_S, DAY_S, MONTH_S)  # sums are kept for each: a year's report need not read every hour
LATEST = 253_370_764_800  # the year 9999: no time that anything could handle comes later
CELL: tuple[Dimension, ...] = ("owner", "key", "model", "kind", "endpoint", "outcome")


class Cut(NamedTuple):
    """A table of sums that tells apart some names of a cell only, in cells of some widths."""

    table: str
    names: tuple[Dimension, ...]
    widths_s: tuple[int, ...]


# The coarsest first. A report reads one of them alone, so the time it takes is that of the rows it must show,
# and not of all cells: a month of busy hours has hundreds of thousands of these.
CUTS = (
    Cut("sums_of_models", ("model", "kind", "endpoint", "outcome"), (HOUR_S, DAY_S)),
    Cut("sums_of_owners", ("owner",), (HOUR_S,)),
    Cut("sums_of_keys", ("owner", "key", "model"), (DAY_S,)),
    Cut("sums_of_key_outcomes", ("owner", "key", "kind", "endpoint", "outcome"), (DAY_S,)),
    Cut("sums_of_owner_models", ("owner", "model", "kind", "endpoint", "outcome"), (DAY_S,)),
    Cut("sums_of_cells", CELL, WIDTHS_S),
)


class Sums(Struct, gc=False):
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
        self.calls += other.calls
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.completion_tokens += other.completion_tokens
        self.reasoning_tokens += other.reasoning_tokens
        self.delivered_tokens += other.delivered_tokens
        self.texts += other.texts
        self.price += other.price
        self.queued_s += other.queued_s
        self.total_s += other.total_s


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
    """When the hour, day or month (UTC) began in which that is."""
    return _month(int(at // DAY_S)) if width_s == MONTH_S else int(at // width_s) * width_s


def after(at: int, width_s: int) -> int:
    """The first start of an hour, day or month that is not before that."""
    begin = start(at, width_s)
    return begin if begin == at else start(begin + width_s, width_s)


@lru_cache(maxsize=1024)
def _month(day: int) -> int:
    return int(quotas.span("month", day * DAY_S)[0])


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


def cell(entry: Entry) -> tuple[str, ...]:
    """What it is counted under, beside the time."""
    return (entry.owner, entry.key_id, entry.model, entry.kind, entry.endpoint, entry.outcome.value)


def by_cut(entries: Iterable[Entry]) -> dict[Cut, dict[Place, Sums]]:
    """The sums that each cut has of them, at each width, start and names."""
    hours: dict[Place, Sums] = {}
    for entry in entries:
        place = (HOUR_S, start(entry.opened_at, HOUR_S), cell(entry))
        hours.setdefault(place, Sums()).add(of(entry))
    return {cut: _cut(hours, cut) for cut in CUTS}


def _cut(hours: Mapping[Place, Sums], cut: Cut) -> dict[Place, Sums]:
    """The same sums, with fewer names or wider."""
    chosen = [CELL.index(name) for name in cut.names]
    found: dict[Place, Sums] = {}
    for (_, at, whole), sums in hours.items():
        names = tuple([whole[index] for index in chosen])
        for width_s in cut.widths_s:
            found.setdefault((width_s, start(at, width_s), names), Sums()).add(sums)
    return found


def cut_for(width_s: int, wanted: Collection[Dimension]) -> Cut:
    """The coarsest that has cells of that width and tells these names apart."""
    names = {dimension for dimension in wanted if dimension in CELL}
    return next(cut for cut in CUTS if width_s in cut.widths_s and names.issubset(cut.names))


def group(entry: Entry, by: Iterable[Dimension]) -> Group:
    """The group of a call."""
    values: dict[Dimension, str | int] = dict(zip(CELL, cell(entry), strict=True))
    values["day"] = start(entry.opened_at, DAY_S)
    values["hour"] = start(entry.opened_at, HOUR_S)
    return tuple(values[dimension] for dimension in by)


def spans(since: int, until: int, finest_s: int) -> list[Span]:
    """The fewest cells that make up the time between two whole hours, none wider than `finest_s`."""
    pieces = [Span(HOUR_S, since, until)]
    for width_s in (DAY_S, MONTH_S):
        if width_s <= finest_s:
            pieces = [part for piece in pieces for part in _widened(piece, width_s)]
    return pieces


def _widened(piece: Span, width_s: int) -> list[Span]:
    """The same time, its middle in wider cells where whole ones fit."""
    first, last = after(piece.since, width_s), start(piece.until, width_s)
    if first >= last:
        return [piece] if piece.since < piece.until else []
    parts = (
        Span(piece.width_s, piece.since, first),
        Span(width_s, first, last),
        Span(piece.width_s, last, piece.until),
    )
    return [part for part in parts if part.since < part.until]
