"""Entries and sums on both databases: what is put in comes out, once, and the sums are those of the entries."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_entries import BEGAN, entries, entry
from ledger_world import FOREVER, agree

from scibox.core import sums as arithmetic
from scibox.core.entries import Entry
from scibox.core.sums import CELL, CUTS, DAY_S, HOUR_S, MONTH_S, Dimension, Scope
from scibox.core.types import Ending, Usage
from scibox.store.entries import EntryStore, Mark, Origin
from scibox.store.sql import Sql

HERE = Origin("node", "p")
DIMENSIONS: tuple[Dimension, ...] = (*CELL, "day", "hour")


def empty(sql: Sql) -> None:
    with sql.writing() as db:
        for table in ("entries", "journals", *(cut.table for cut in CUTS)):
            db.run(f"DELETE FROM {table}")


def put(store: EntryStore, *some: Entry, origin: Origin = HERE, at: int = 0) -> int:
    read = [(Mark(1, at + place + 1), one) for place, one in enumerate(some)]
    return store.add(origin, read, Mark(1, at + len(some)))


batches = st.lists(st.lists(entries(st.integers(0, 40)), max_size=12), max_size=6)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches, st.lists(st.booleans(), min_size=6, max_size=6))
def test_any_batches_repeated_or_not_count_each_request_once(
    sql: Sql, some: list[list[Entry]], repeats: list[bool]
) -> None:
    empty(sql)
    store = EntryStore(sql)
    wanted: dict[str, Entry] = {}
    for number, batch in enumerate(some):
        new = {one.request_id for one in batch} - set(wanted)
        for one in batch:
            wanted.setdefault(one.request_id, one)
        origin = Origin("node", f"p{number}")
        assert put(store, *batch, origin=origin) == len(new)
        if repeats[number]:
            assert put(store, *batch, origin=origin) == 0
            assert put(store, *batch, origin=Origin("other", "p")) == 0

    assert {one.request_id: one for one in store.entries(FOREVER)} == wanted
    agree(store, wanted.values())


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(entries(st.integers(0, 10**6)), max_size=40, unique_by=lambda one: one.request_id),
    st.lists(st.sampled_from(DIMENSIONS), unique=True),
    st.integers(-5, 80).map(lambda n: BEGAN + n * HOUR_S),
    st.integers(0, 80).map(lambda n: n * HOUR_S),
    st.tuples(*[st.sampled_from([(), ("a",), ("a", "команда")])] * 3),
)
def test_sums_of_any_range_by_anything_are_those_of_its_entries(
    sql: Sql,
    some: list[Entry],
    by: list[Dimension],
    since: int,
    length: int,
    named: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]],
) -> None:
    empty(sql)
    store = EntryStore(sql)
    put(store, *some)
    scope = Scope(since, since + length, *named)
    wanted: dict[arithmetic.Group, arithmetic.Sums] = {}
    for one in filter(scope.has, some):
        wanted.setdefault(arithmetic.group(one, by), arithmetic.Sums()).add(arithmetic.of(one))
    finest_s = HOUR_S if "hour" in by else DAY_S if "day" in by else MONTH_S
    spans = arithmetic.spans(scope.since, scope.until, finest_s)

    assert store.sums(spans, by, scope, "node")[0] == wanted


def test_a_batch_that_overlaps_what_was_read_counts_the_new_part_even_when_the_old_is_removed(
    store: EntryStore,
) -> None:
    put(store, entry(1), entry(2))
    store.remove_before(2.0**40)

    assert put(store, entry(1), entry(2), entry(3)) == 1
    agree(store, [entry(1), entry(2), entry(3)])


def test_after_a_close_nothing_of_that_journal_counts(store: EntryStore) -> None:
    put(store, entry(1))
    lost = entry(2, outcome=Ending.INTERRUPTED)

    assert store.close(HERE, [lost, entry(1)], Mark(1, 1)) == 1
    assert store.close(HERE, [entry(3)], Mark(1, 1)) == 0
    assert put(store, entry(4), at=100) == 0
    assert store.marks("node") == {"p": None}
    agree(store, [entry(1), lost])


def test_what_no_database_could_hold_is_bounded(store: EntryStore) -> None:
    wild = entry(1, opened_at=1e18, owner="a\0b", usage=Usage(2**70, -5, 2**63, 1), texts=2**80, code="\0")
    put(store, wild)
    [held] = store.entries(FOREVER)

    assert held.owner == "a\ufffdb"
    assert held.usage == Usage(2**40, 0, 2**40, 1)
    agree(store, [held])


def test_retention_goes_in_small_steps_from_the_oldest_and_leaves_sums(store: EntryStore) -> None:
    some = [entry(number) for number in range(10)]
    put(store, *some)

    assert [store.remove_before(some[7].opened_at, 3) for _ in range(4)] == [3, 3, 1, 0]
    assert list(store.entries(FOREVER)) == some[7:]
    agree(store, some)


def test_many_pages_of_entries_come_in_order_also_with_equal_times(store: EntryStore) -> None:
    some = [entry(number, opened_at=float(BEGAN + number // 700)) for number in range(2500)]
    put(store, *some)

    assert list(store.entries(Scope(BEGAN, BEGAN + DAY_S))) == some
    assert list(store.entries(Scope(BEGAN + 1, BEGAN + 3, owners=("team-1",)))) == [
        one for one in some[700:2100] if one.owner == "team-1"
    ]


def test_failures_are_the_owners_own_and_the_newest_first(store: EntryStore) -> None:
    some = [
        entry(number, outcome=Ending.UPSTREAM_ERROR if number % 2 else Ending.FINISHED, code="upstream_error")
        for number in range(20)
    ]
    put(store, *some)
    mine, _ = store.failed("team-1", 2, "node")
    every, _ = store.failed(None, 100, "node")

    assert [call.request_id for call in mine] == [entry(19).request_id, entry(13).request_id]
    assert (mine[0].code, mine[0].outcome, mine[0].model) == ("upstream_error", "upstream_error", "m1")
    assert [call.request_id for call in every] == [entry(n).request_id for n in range(19, 0, -2)]


def test_a_report_reads_sums_and_never_entries(store: EntryStore, sql: Sql) -> None:
    put(store, *(entry(number) for number in range(50)))
    with sql.writing() as db:
        db.run("DELETE FROM entries")
    spans = arithmetic.spans(BEGAN, BEGAN + 30 * DAY_S, MONTH_S)
    found, _ = store.sums(spans, ("owner",), Scope(BEGAN, BEGAN + 30 * DAY_S), "node")

    assert sum(sums.calls for sums in found.values()) == 50
    assert [span.width_s for span in spans] == [MONTH_S]
