"""The feeder: every call once, sums that agree, whatever is killed and whenever (PROMISES R1, R3, R5)."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

import pytest
import servers
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_entries import entry, opened
from ledger_world import FOREVER, FusedStore, World, agree, kill

from scibox.core.events import Event, Notice
from scibox.core.types import Ending
from scibox.ledger import frames
from scibox.ledger.feeder import Feeder
from scibox.ledger.journal import Journal
from scibox.store.entries import LEDGER, EntryStore
from scibox.store.sql import Sql

OPS = (
    "start",
    "open",
    "open",
    "open",
    "end",
    "end",
    "end",
    "kill",
    "torn",
    "feed",
    "feed",
    "crash",
    "away",
    "remove",
)
steps = st.lists(st.tuples(st.sampled_from(OPS), st.integers(0, 40)), max_size=60)


def live(world: World, script: list[tuple[str, int]]) -> None:
    for step, number in script:
        match step:
            case "start":
                world.start()
            case "open":
                world.open(number)
            case "end":
                world.end(number)
            case "kill":
                world.kill(number)
            case "torn":
                world.kill(number, torn=number * 7)
            case "feed":
                world.feed()
            case "crash":
                world.feed(steps=number % 7)
            case "away":
                world.store.is_away = not world.store.is_away
            case "remove":
                world.remove(number)


@settings(max_examples=60)
@given(steps)
def test_whatever_happens_each_call_is_held_once_and_the_sums_agree(script: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        sql = Sql(f"sqlite://{name}/ledger.db", LEDGER)
        world = World(Path(name) / "journal", FusedStore(sql))
        world.start()
        live(world, script)
        world.finish()
        world.check()
        sql.close()


def test_the_same_on_both_databases(sql: Sql, tmp_path: Path) -> None:
    chance = random.Random(11)
    world = World(tmp_path / "journal", FusedStore(sql))
    world.start()
    live(world, [(chance.choice(OPS), chance.randrange(40)) for _ in range(400)])
    world.finish()
    world.check()
    assert len(world.wanted) > 30


@pytest.mark.parametrize("steps", range(12))
def test_a_feeder_killed_between_any_two_steps(steps: int, sql: Sql, tmp_path: Path) -> None:
    world = World(tmp_path / "journal", FusedStore(sql))
    for _ in range(2):
        world.start()
    for number in range(24):
        world.open(number)
        world.open(number)
        world.end(number)
    world.kill(0)
    world.feed(steps=steps)
    world.remove(12)
    world.finish()
    world.check()


def test_a_journal_that_comes_back_after_its_entries_grew_old_is_not_counted_again(
    store: EntryStore, tmp_path: Path
) -> None:
    journal = Journal(tmp_path, lambda event: None)
    for number in range(5):
        journal.ended(entry(number))
    journal.close()
    [path] = tmp_path.glob("*.log")
    copy = path.read_bytes()
    feeder = Feeder(tmp_path, store, lambda event: None, keep_s=1e12)
    assert feeder.feed() == 5
    assert not path.exists()
    assert store.remove_before(2.0**40) == 5
    path.write_bytes(copy)
    assert feeder.feed() == 0
    feeder.let_go()

    assert list(store.entries(FOREVER)) == []
    agree(store, [entry(number) for number in range(5)])


def test_a_running_call_keeps_its_segment_and_is_interrupted_only_by_a_death(
    store: EntryStore, tmp_path: Path
) -> None:
    journal = Journal(tmp_path, lambda event: None, segment_bytes=1024)
    journal.opened(opened(999))
    for number in range(20):
        journal.ended(entry(number))
    feeder = Feeder(tmp_path, store, lambda event: None, keep_s=1e12)
    feeder.feed()
    assert min(tmp_path.glob("*.log")).name.endswith("-000001.log")
    assert entry(999).request_id not in {one.request_id for one in store.entries(FOREVER)}
    journal.ended(entry(999))
    feeder.feed()
    assert len(list(tmp_path.glob("*.log"))) <= 2
    kill(journal)
    feeder.feed()
    feeder.let_go()

    [last] = [one for one in store.entries(FOREVER) if one.request_id == entry(999).request_id]
    assert last.outcome is Ending.FINISHED


def test_damage_in_the_middle_loses_what_is_damaged_with_one_warning(
    store: EntryStore, tmp_path: Path
) -> None:
    journal = Journal(tmp_path, lambda event: None)
    for number in range(9):
        journal.ended(entry(number))
    [path] = [path for path in tmp_path.glob("*.log") if any(path.read_bytes())]
    before, size = (sum(len(frames.frame(entry(n))) for n in range(4)), len(frames.frame(entry(4))))
    with path.open("r+b") as stream:
        stream.seek(before + size // 2)
        stream.write(b"\0\1\2\3")
    events: list[Event] = []
    feeder = Feeder(tmp_path, store, events.append, keep_s=1e12)
    feeder.feed()
    feeder.feed()
    journal.close()
    feeder.feed()
    feeder.let_go()

    assert [one.request_id for one in store.entries(FOREVER)] == [
        entry(number).request_id for number in range(9) if number != 4
    ]
    [notice] = events
    assert isinstance(notice, Notice)
    assert notice.is_warning
    assert str(size) in notice.message


def test_two_nodes_share_one_database_and_each_call_counts_once(place: str, tmp_path: Path) -> None:
    nodes = [(tmp_path / name, Sql(place, LEDGER)) for name in ("one", "two")]
    feeders = [Feeder(folder, EntryStore(sql), lambda event: None, keep_s=1e12) for folder, sql in nodes]
    journals = [Journal(folder, lambda event: None) for folder, _ in nodes]
    for number in range(40):
        journals[number % 2].ended(entry(number))
        if number % 5 == 0:
            feeders[number % 2].feed()
    for feeder in feeders:
        feeder.feed()
        feeder.let_go()
    agree(EntryStore(nodes[0][1]), [entry(number) for number in range(40)])
    for journal in journals:
        journal.close()
    for _, sql in nodes:
        sql.close()


def test_one_feeds_a_folder_at_a_time(store: EntryStore, tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda event: None)
    journal.ended(entry(1))
    first, second = (Feeder(tmp_path, store, lambda event: None, keep_s=1e12) for _ in range(2))
    assert first.feed() == 1
    journal.ended(entry(2))
    assert second.feed() == 0
    first.let_go()
    assert second.feed() == 1
    second.let_go()
    journal.close()


def wait_until(holds: object, within_s: float = 30.0) -> None:
    give_up_at = time.monotonic() + within_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


async def test_a_database_that_is_away_at_the_start_is_fed_when_it_comes(tmp_path: Path) -> None:
    """Here a file stands where SQLite's folder should be; PostgreSQL's absence is in tests/chaos."""
    (tmp_path / "data").write_text("in the way")
    sql = Sql(f"sqlite://{tmp_path}/data/ledger.db", LEDGER)
    store, events = EntryStore(sql), list[Event]()
    journal = Journal(tmp_path / "journal", events.append)
    feeder = Feeder(tmp_path / "journal", store, events.append, keep_s=1e12, period_s=0.05, retry_s=0.1)
    feeder.start()
    for number in range(50):
        journal.ended(entry(number))
    wait_until(lambda: feeder.trouble)
    (tmp_path / "data").unlink()
    wait_until(lambda: not feeder.trouble)
    journal.close()
    await feeder.stop(30.0)

    assert [one.request_id for one in store.entries(FOREVER)] == [entry(n).request_id for n in range(50)]
    warnings = [event for event in events if isinstance(event, Notice) and event.is_warning]
    assert len(warnings) == 1
    assert {path.name for path in (tmp_path / "journal").iterdir()} == {"node", "feeder.lock"}
    sql.close()


async def test_a_stop_does_not_wait_for_a_database_that_hangs(tmp_path: Path) -> None:
    sql = Sql(f"sqlite://{tmp_path}/ledger.db", LEDGER, 20.0)
    journal = Journal(tmp_path / "journal", lambda event: None)
    feeder = Feeder(tmp_path / "journal", EntryStore(sql), lambda event: None, keep_s=1e12, period_s=0.05)
    with sql.writing():  # whoever holds the file
        journal.ended(entry(1))
        feeder.start()
        began = time.monotonic()
        await feeder.stop(0.3)
        took = time.monotonic() - began
        assert took < 10.0
        assert feeder._thread.is_alive()
    feeder._thread.join(60)
    journal.close()
    assert list((tmp_path / "journal").iterdir())
    sql.close()


async def test_old_entries_are_swept_away_and_their_sums_stay(store: EntryStore, tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda event: None)
    calls = [entry(number) for number in range(30)]
    for one in calls:
        journal.ended(one)
    journal.close()
    cut = calls[20].opened_at
    feeder = Feeder(tmp_path, store, lambda event: None, keep_s=100.0, now=lambda: cut + 100.0, period_s=0.02)
    feeder.start()
    wait_until(lambda: len(list(store.entries(FOREVER))) == 10)
    await feeder.stop(30.0)

    assert list(store.entries(FOREVER)) == calls[20:]
    agree(store, calls)


def test_a_feeder_that_is_quicker_than_the_writer_misses_nothing(store: EntryStore, tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda event: None, segment_bytes=2048)
    feeder = Feeder(tmp_path, store, lambda event: None, keep_s=1e12)
    for number in range(40):
        journal.ended(entry(number))
        assert feeder.feed() == 1
    feeder.let_go()
    journal.close()


def test_what_another_feeder_did_meanwhile_is_known(store: EntryStore, tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda event: None, segment_bytes=1024)
    journal.opened(opened(1))
    first, second = (Feeder(tmp_path, store, lambda event: None, keep_s=1e12) for _ in range(2))
    first.feed()
    first.let_go()
    for number in range(1, 9):
        journal.ended(entry(number))
    second.feed()  # and deletes where the first call has begun and ended
    second.let_go()
    store.remove_before(2.0**40)
    journal.close()
    first.feed()
    first.let_go()

    agree(store, [entry(number) for number in range(1, 9)])


async def test_postgres_away_at_the_start_then_hanging_then_started_anew(tmp_path: Path) -> None:
    port = servers.free_port()
    with servers.folder("pg") as folder:
        with servers.postgres(folder, port) as server:
            sql = Sql(servers.new_database(server.url), LEDGER, 1.0)
        store, journal = EntryStore(sql), Journal(tmp_path, lambda event: None)
        feeder = Feeder(tmp_path, store, lambda event: None, keep_s=1e12, period_s=0.05, retry_s=0.1)

        def call(first: int) -> None:
            for number in range(first, first + 20):
                journal.ended(entry(number))

        call(0)
        feeder.start()
        wait_until(lambda: feeder.trouble)
        with servers.postgres(folder, port) as server:
            wait_until(lambda: not feeder.trouble)
            server.pause()
            call(20)
            wait_until(lambda: feeder.trouble)
            server.go_on()
            wait_until(lambda: not feeder.trouble)
        call(40)
        wait_until(lambda: feeder.trouble)
        with servers.postgres(folder, port):
            wait_until(lambda: not feeder.trouble)
            call(60)
            journal.close()
            await feeder.stop(30.0)
            held = [one.request_id for one in store.entries(FOREVER)]
            assert held == [entry(number).request_id for number in range(80)]
            agree(store, [entry(number) for number in range(80)])
        sql.close()
