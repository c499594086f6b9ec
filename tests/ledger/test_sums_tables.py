"""The tables of sums: filled from those of every version before, and chosen so that a report reads few rows."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from ledger_entries import BEGAN, entry
from ledger_world import agree

from scibox.core import sums as arithmetic
from scibox.core.entries import Entry
from scibox.core.sums import CELL, CUTS, DAY_S, HOUR_S, LATEST, MONTH_S, Cut, Dimension, Scope, Span
from scibox.core.types import Ending
from scibox.store import sums
from scibox.store.entries import LEDGER, EntryStore, Mark, Origin
from scibox.store.sql import DatabaseAway, Reader, Row, Sql, Tables, Writer

HOURS = 48
SPANS = {
    "hour": Span(HOUR_S, BEGAN, BEGAN + HOURS * HOUR_S),
    "day": Span(DAY_S, BEGAN, BEGAN + HOURS * HOUR_S),
}
ALL = Scope(BEGAN, BEGAN + HOURS * HOUR_S)


def busy(count: int = 6_000) -> list[Entry]:
    """Calls of two days: each hour has many keys, models and outcomes."""
    return [
        entry(
            number,
            opened_at=BEGAN + number * HOURS * HOUR_S / count,
            owner=f"team-{number % 20 % 10}",
            key_id=f"key_{number % 20}",
            model=f"m{number // 7 % 4}",
            endpoint="/embeddings" if number % 3 else "/chat/completions",
            kind="embedding" if number % 3 else "chat",
            outcome=Ending.CLIENT_GONE if number % 11 == 0 else Ending.FINISHED,
        )
        for number in range(count)
    ]


def written_by_version_1(db: Writer, entries: Sequence[Entry]) -> None:
    """What the first version has in its one table of sums after these, its text as it was then."""
    for (width_s, start, cell), added in arithmetic.by_cut(entries)[CUTS[-1]].items():
        db.run(
            "INSERT INTO sums (width_s, start, owner, key_id, model, kind, endpoint, outcome, calls, "
            "prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, delivered_tokens, texts, price, "
            "queued_s, total_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(width_s, start, *cell),
            *(getattr(added, name) for name in added.__struct_fields__),
        )


def test_sums_of_version_1_are_in_every_table_and_go_on_from_there(place: str) -> None:
    some = [entry(number, opened_at=BEGAN + number * 50_000.0) for number in range(90)]
    with closing(Sql(place, Tables("ledger", LEDGER.migrations[:1]))) as old, old.writing() as db:
        written_by_version_1(db, some[:60])
        db.run("INSERT INTO journals VALUES ('node', 'p', 1, 60, 0)")
    with closing(Sql(place, LEDGER)) as new:
        store = EntryStore(new)
        agree(store, some[:60])
        put(store, some)

        agree(store, some)


def test_a_process_of_version_1_that_still_runs_can_count_nothing_where_the_new_one_would_miss_it(
    place: str,
) -> None:
    with closing(Sql(place, Tables("ledger", LEDGER.migrations[:1]))) as old:
        with old.writing() as db:
            written_by_version_1(db, [entry(1)])
        with closing(Sql(place, LEDGER)) as new:
            agree(EntryStore(new), [entry(1)])
            with pytest.raises(DatabaseAway), old.writing() as db:
                written_by_version_1(db, [entry(2)])

            agree(EntryStore(new), [entry(1)])


def test_many_weeks_of_hours_are_read_in_parts_and_empty_ones_not_at_all(place: str) -> None:
    """A clock that was wrong makes a call of the year 9999; weeks in between are not asked for."""
    far = [
        entry(number, opened_at=at) for number, at in enumerate((0.0, BEGAN, BEGAN + 30.5 * DAY_S, 2.0**60))
    ]
    statements = []

    class Watched(Reader):
        def rows(self, statement: str, *values: sums.Value) -> list[Row]:
            statements.append(statement)
            return super().rows(statement, *values)

    with closing(Sql(place, LEDGER)) as sql:
        put(EntryStore(sql), far)
        with sql.reading() as db:
            whole = Span(HOUR_S, 0, LATEST)
            rows = list(sums.read(Watched(db._link), whole, ("hour",), Scope(0, LATEST)))

    assert [row[1] for row in rows] == [1, 1, 1, 1]
    assert len(statements) == 2 * len(far) + 1


def put(store: EntryStore, entries: Sequence[Entry]) -> None:
    store.add(
        Origin("node", "p"),
        [(Mark(1, place + 1), one) for place, one in enumerate(entries)],
        Mark(1, len(entries)),
    )


class Counted:
    """A full SQLite file, and how many steps of SQLite's machine a query takes: the same on every machine."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path)

    def steps(self, statement: str, values: Sequence[sums.Value]) -> int:
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1

        self._db.set_progress_handler(step, 1)
        self._db.execute(statement, values).fetchall()
        self._db.set_progress_handler(None, 1)
        return steps

    def scan(self, span: Span) -> int:
        """The steps of one walk over all cells of a span, with the sums of each hour or day."""
        added = ", ".join(f"sum({name})" for name in sums.COUNTED)
        return self.steps(
            f"SELECT start, {added} FROM sums_of_cells WHERE width_s = ? AND start >= ? AND start < ? "
            "GROUP BY start",
            (span.width_s, span.since, span.until),
        )

    def plan(self, statement: str, values: Sequence[sums.Value]) -> list[str]:
        return [row[3] for row in self._db.execute(f"EXPLAIN QUERY PLAN {statement}", values)]

    def close(self) -> None:
        self._db.close()


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    path = tmp_path_factory.mktemp("sums") / "ledger.db"
    with closing(Sql(f"sqlite://{path}", LEDGER)) as sql:
        put(EntryStore(sql), busy())
    with closing(Counted(path)) as made:
        yield made


@pytest.mark.parametrize("by", [(), ("model",), ("endpoint", "outcome"), ("owner",)])
def test_a_report_by_hour_takes_a_fraction_of_a_walk_over_the_cells(
    counted: Counted, by: tuple[Dimension, ...]
) -> None:
    steps = counted.steps(*sums.select(SPANS["hour"], ("hour", *by), ALL))

    assert 2 * steps < counted.scan(SPANS["hour"])


def test_a_report_of_one_owner_reads_no_rows_of_others(counted: Counted) -> None:
    mine = Scope(ALL.since, ALL.until, ("team-1",))
    query = sums.select(SPANS["hour"], ("hour", "key", "model"), mine)

    everybody = sums.select(SPANS["hour"], ("hour", "key", "model"), ALL)

    assert 4 * counted.steps(*query) < counted.steps(*everybody)
    assert any("width_s=? AND start=? AND owner=?" in line for line in counted.plan(*query))


GROUPINGS = [by for size in range(7) for by in itertools.combinations(CELL, size)]


@pytest.mark.parametrize("width", ["hour", "day"])
def test_no_grouping_scans_a_whole_table(counted: Counted, width: Dimension) -> None:
    for by in GROUPINGS:
        plan = counted.plan(*sums.select(SPANS[width], (*by, width), ALL))
        assert any("USING PRIMARY KEY (width_s=? AND start>? AND start<?)" in line for line in plan), by
        assert all("sums_of" not in line for line in plan if line.startswith("SCAN")), by


def test_where_each_row_is_a_group_nothing_is_grouped(counted: Counted) -> None:
    for cut in CUTS:
        for width, span in SPANS.items():
            if span.width_s in cut.widths_s:
                statement, values = sums.select(span, (*cut.names, width), ALL)  # type: ignore[arg-type]
                assert cut.table in statement
                assert "GROUP BY" not in statement
                assert len(counted.plan(statement, values)) == 1


@pytest.mark.parametrize(
    ("width_s", "wanted", "table"),
    [
        (HOUR_S, ("hour",), "sums_of_models"),
        (HOUR_S, ("hour", "owner"), "sums_of_owners"),
        (HOUR_S, ("hour", "key"), "sums_of_cells"),
        (DAY_S, ("day", "model", "outcome"), "sums_of_models"),
        (DAY_S, ("day", "owner", "key", "model"), "sums_of_keys"),
        (DAY_S, ("day", "key", "outcome"), "sums_of_key_outcomes"),
        (DAY_S, ("day", "owner", "model", "endpoint"), "sums_of_owner_models"),
        (DAY_S, ("day", "key", "model", "outcome"), "sums_of_cells"),
        (MONTH_S, (), "sums_of_cells"),
    ],
)
def test_the_coarsest_cut_that_can_answer_is_read(
    width_s: int, wanted: tuple[Dimension, ...], table: str
) -> None:
    cut: Cut = arithmetic.cut_for(width_s, wanted)

    assert cut.table == table


def test_a_filter_needs_its_name_in_the_cut() -> None:
    statement, _ = sums.select(SPANS["hour"], ("hour",), Scope(ALL.since, ALL.until, (), ("key_1",)))

    assert "FROM sums_of_cells" in statement
