"""The ledger's tables of sums: how entries are counted in each of them, and how a report is read from one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from scibox.core import sums as arithmetic
from scibox.core.entries import Entry
from scibox.core.sums import CELL, DAY_S, HOUR_S, MONTH_S, Cut, Dimension, Scope, Span, Sums

from .sql import Reader, Row, Value, Writer

COUNTED = Sums.__struct_fields__
_COLUMNS: Mapping[Dimension, str] = {
    **{dimension: dimension for dimension in CELL},
    "key": "key_id",
    "day": "start",
    "hour": "start",
}
_MOST_STARTS = 1_000  # of cells that are looked up one by one: a week of hours, years of days
_WEEK_S = 7 * DAY_S


def count(db: Writer, entries: Sequence[Entry]) -> None:
    """Add them to every table of sums."""
    for cut, sums in arithmetic.by_cut(entries).items():
        names = ("width_s", "start", *_names(cut))
        more = ", ".join(f"{name} = {cut.table}.{name} + excluded.{name}" for name in COUNTED)
        places = ", ".join("?" * (len(names) + len(COUNTED)))
        db.run_many(
            f"INSERT INTO {cut.table} ({', '.join([*names, *COUNTED])}) VALUES ({places}) "  # noqa: S608
            f"ON CONFLICT ({', '.join(names)}) DO UPDATE SET {more}",
            [
                (width_s, start, *cell, *(getattr(sums[width_s, start, cell], name) for name in COUNTED))
                for width_s, start, cell in sorted(sums)
            ],
        )


def read(db: Reader, span: Span, by: Sequence[Dimension], scope: Scope) -> Iterator[Row]:
    """Rows of a span: the values of a group, and its sums; a group may come more than once.

    Hours are read week by week: a statement must end within the database's patience, on a busy machine too.
    """
    begin = span.since
    while (at := _next(db, span, begin)) is not None:
        until = min(at + _WEEK_S, span.until) if span.width_s == HOUR_S else span.until
        statement, values = select(Span(span.width_s, at, until), by, scope)
        yield from db.rows(statement, *values)
        begin = until


def _next(db: Reader, span: Span, at: int) -> int | None:
    """Where the first cell from then on begins: years without a call take no time."""
    table = arithmetic.cut_for(span.width_s, ()).table
    found = db.rows(
        f"SELECT min(start) FROM {table} WHERE width_s = ? AND start >= ? AND start < ?",  # noqa: S608
        *(span.width_s, at, span.until),
    )
    return None if found[0][0] is None else int(found[0][0])


def select(span: Span, by: Sequence[Dimension], scope: Scope) -> tuple[str, list[Value]]:
    """The query, of the coarsest cut that will do.

    Where each row is a group, nothing is grouped: that would double the time of a report of many rows. Else
    the columns are in the order of the key, which leaves little to be sorted; where they skip some of it,
    rows are first grouped by a beginning of the key, if that makes them fewer.
    """
    cut = arithmetic.cut_for(span.width_s, [*by, *_filters(scope)])
    order = ("start", *_names(cut))
    places = sorted({order.index(_COLUMNS[dimension]) for dimension in by})
    within, values = _within(span, cut, scope)
    source = f"{cut.table} WHERE {within}"
    groups = [_column(dimension, span) for dimension in by]
    if set(groups) == set(order):
        return f"SELECT {', '.join([*groups, *COUNTED])} FROM {source}", values  # noqa: S608 - constants
    deep = places[-1] + 1 if places else 1
    if len(places) < deep < len(order):
        inner = ", ".join(order[:deep])
        added = ", ".join(f"{_sum(name)} AS {name}" for name in COUNTED)
        source = f"(SELECT {inner}, {added} FROM {source} GROUP BY {inner}) AS found"  # noqa: S608
    end = f"GROUP BY {', '.join(sorted(groups, key=_rank(order)))}" if groups else "HAVING count(*) > 0"
    return f"SELECT {', '.join([*groups, *map(_sum, COUNTED)])} FROM {source} {end}", values  # noqa: S608


def where(scope: Scope) -> tuple[str, list[Value]]:
    """Of the names in a scope: more conditions, and their values."""
    text, values = "", list[Value]()
    for dimension, names in _filters(scope).items():
        text += f" AND {_COLUMNS[dimension]} IN ({', '.join('?' * len(names))})"
        values += names
    return text, values


def _within(span: Span, cut: Cut, scope: Scope) -> tuple[str, list[Value]]:
    """The rows of a scope.

    Where owners come next in the key, the cells' starts are told one by one: other owners' are not even read.
    """
    names, named = where(scope)
    starts = range(span.since, span.until, span.width_s)
    if scope.owners and cut.names[0] == "owner" and span.width_s != MONTH_S and len(starts) <= _MOST_STARTS:
        places = ", ".join("?" * len(starts))
        return f"width_s = ? AND start IN ({places}){names}", [span.width_s, *starts, *named]
    return f"width_s = ? AND start >= ? AND start < ?{names}", [span.width_s, span.since, span.until, *named]


def _filters(scope: Scope) -> dict[Dimension, tuple[str, ...]]:
    named: dict[Dimension, tuple[str, ...]] = {
        "owner": scope.owners,
        "key": scope.keys,
        "model": scope.models,
    }
    return {dimension: names for dimension, names in named.items() if names}


def _names(cut: Cut) -> tuple[str, ...]:
    return tuple(_COLUMNS[dimension] for dimension in cut.names)


def _sum(name: str) -> str:
    """PostgreSQL adds up BIGINTs to a NUMERIC, which is slow to read."""
    return f"sum({name})" if Sums.__annotations__[name] == "float" else f"CAST(sum({name}) AS BIGINT)"


def _column(dimension: Dimension, span: Span) -> str:
    is_part = dimension == "day" and span.width_s == HOUR_S
    return f"start - start % {DAY_S}" if is_part else _COLUMNS[dimension]


def _rank(order: Sequence[str]) -> Callable[[str], int]:
    return lambda group: order.index(group) if group in order else 0  # a day that is a part of `start`
