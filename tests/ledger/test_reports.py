"""Reports: what the database and the journals say together, at any moment of the feeder's work."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from ledger_entries import BEGAN, entry
from ledger_world import FOREVER, same

from scibox.core import sums as arithmetic
from scibox.core.entries import Entry
from scibox.core.sums import DAY_S, Scope, Sums
from scibox.core.types import Ending, Usage
from scibox.ledger.feeder import Feeder
from scibox.ledger.journal import Journal
from scibox.ledger.reports import Reports
from scibox.store.entries import EntryStore, Mark

MONTH = Scope(BEGAN, BEGAN + 30 * DAY_S)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def feeder(folder: Path, store: EntryStore) -> Feeder:
    return Feeder(folder, store, lambda event: None, keep_s=1e12)


@pytest.fixture
def reports(folder: Path, store: EntryStore) -> Reports:
    return Reports(folder, store)


def test_what_is_fed_and_what_is_not_yet_count_once(folder: Path, feeder: Feeder, reports: Reports) -> None:
    journal = Journal(folder, lambda event: None, segment_bytes=4096)
    wanted: dict[arithmetic.Group, Sums] = {}
    for number in range(60):
        one = entry(number, opened_at=BEGAN + number * 7000.0)
        journal.ended(one)
        wanted.setdefault(arithmetic.group(one, ("owner", "day")), Sums()).add(arithmetic.of(one))
        if number % 17 == 0:
            feeder.feed()
        found = dict(reports.sums(MONTH, ("owner", "day")).rows)
        assert set(found) == set(wanted)
        assert all(same(found[group], wanted[group]) for group in wanted)
    assert reports.unfed(MONTH) == 60 - 52
    feeder.let_go()
    journal.close()


def test_a_report_while_the_feeder_works_misses_nothing_and_doubles_nothing(
    folder: Path, feeder: Feeder, reports: Reports
) -> None:
    """Ever more calls are recorded, fed, and their segments deleted, while reports are made."""
    journal = Journal(folder, lambda event: None, segment_bytes=8192)
    stop = threading.Event()
    written = 0

    def feed() -> None:
        while not stop.is_set():
            feeder.feed()

    working = threading.Thread(target=feed)
    working.start()
    try:
        for _ in range(60):
            for _ in range(7):
                journal.ended(entry(written))
                written += 1
            report = reports.sums(FOREVER, ())
            assert report.behind_bytes == 0
            assert report.rows[0][1].calls == written
    finally:
        stop.set()
        working.join()
        feeder.let_go()
        journal.close()


def test_whole_hours_count_and_the_filters_hold(folder: Path, feeder: Feeder, reports: Reports) -> None:
    journal = Journal(folder, lambda event: None)
    some = [entry(number, opened_at=BEGAN + number * 1800.0) for number in range(48)]
    for one in some:
        journal.ended(one)
    scope = Scope(BEGAN + 5400, BEGAN + 9000, ("team-1", "team-2"), (), ("m1",))
    for is_fed in (False, True):
        if is_fed:
            feeder.feed()
        rows = reports.sums(scope, ("owner", "model", "hour")).rows
        wanted = [one for one in some[2:6] if one.owner in scope.owners and one.model in scope.models]
        assert sum(sums.calls for _, sums in rows) == len(wanted)
        assert {group[2] for group, _ in rows} <= {BEGAN + 3600, BEGAN + 7200}
    feeder.let_go()
    journal.close()


def test_quotas_begin_with_what_the_day_and_the_month_have_used(
    folder: Path, feeder: Feeder, reports: Reports
) -> None:
    now = BEGAN + 9 * DAY_S + 5000.0
    journal = Journal(folder, lambda event: None)

    def call(number: int, at: float, tokens: int, **more: object) -> Entry:
        return entry(number, opened_at=at, usage=Usage(tokens - 1, 1), **more)

    journal.ended(call(1, BEGAN - 1.0, 10_000, owner="a", key_id="k", model="m"))  # the month before
    journal.ended(call(2, BEGAN, 1000, owner="a", key_id="k", model="m"))
    feeder.feed()
    journal.ended(call(3, now - 4999.0, 100, owner="a", key_id="k", model="n", outcome=Ending.CLIENT_GONE))
    journal.ended(call(4, now, 10, owner="b", key_id="l", model="m"))

    assert reports.sums_of_period(now).tokens == {
        "owner:a": (100, 1100),
        "owner:b": (10, 10),
        "key:k": (100, 1100),
        "key:l": (10, 10),
        "model:m": (10, 1010),
        "model:n": (100, 100),
        "model:m owner:a": (0, 1000),
        "model:n owner:a": (100, 100),
        "model:m owner:b": (10, 10),
    }
    feeder.let_go()
    journal.close()


def test_the_last_failures_come_from_both_places(folder: Path, feeder: Feeder, reports: Reports) -> None:
    journal = Journal(folder, lambda event: None)
    for number in range(12):
        failed = {} if number % 2 else {"outcome": Ending.UPSTREAM_ERROR, "code": "upstream_timeout"}
        journal.ended(entry(number, owner="a" if number % 4 == 0 else "b", **failed))
        if number == 6:
            feeder.feed()

    assert [call.request_id for call in reports.failed("a", 2)] == [entry(8).request_id, entry(4).request_id]
    assert [call.request_id for call in reports.failed(None, 9)] == [
        entry(number).request_id for number in (10, 8, 6, 4, 2, 0)
    ]
    assert reports.failed("nobody", 9) == []
    feeder.let_go()
    journal.close()


def test_a_journal_that_is_far_behind_is_said_and_not_read(
    folder: Path, store: EntryStore, reports: Reports
) -> None:
    journal = Journal(folder, lambda event: None, segment_bytes=1024)
    for number in range(200):
        journal.ended(entry(number))
    report = reports.sums(MONTH, ())

    assert report.rows == ()
    assert report.behind_bytes > 20_000
    assert store.marks("any") == {}
    journal.close()
    assert Mark(1, 0) < Mark(1, 1) < Mark(2, 0)
