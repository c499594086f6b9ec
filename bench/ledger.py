"""The ledger with a million entries of one month: how long reports take, and what a call costs the journal.

    python bench/ledger.py [--entries 1000000] [--place postgresql://...]

Writes them as the feeder does (without --place into an SQLite file of the moment), prints entries per second, the
best and the worst of five runs of each report and the least CPU of this process, rows of sums, bytes on disk, and
the journal's cost per call.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scibox.core.entries import Entry, Opened
from scibox.core.sums import DAY_S, HOUR_S, Dimension, Scope
from scibox.core.types import Ending, Usage
from scibox.ledger.feeder import Feeder
from scibox.ledger.journal import Journal
from scibox.ledger.reports import Reports
from scibox.store.entries import LEDGER, EntryStore, Mark, Origin
from scibox.store.sql import Sql

BEGAN = 1_793_491_200  # 2026-11-01T00:00:00Z
OWNERS, KEYS, MODELS = 50, 200, 5
BATCH = 2_000
ENDS = [Ending.FINISHED] * 95 + [Ending.CLIENT_GONE] * 3 + [Ending.UPSTREAM_ERROR] * 2


def entry(number: int, at: float, chance: random.Random) -> Entry:
    key = int(KEYS * chance.random() ** 2)  # a few keys make most of the calls
    is_chat = chance.random() < 0.7
    return Entry(
        request_id=f"req_{number:032x}",
        opened_at=at,
        key_id=f"key_{key:012x}",
        owner=f"team-{key % OWNERS}",
        model=f"model-{int(MODELS * chance.random() ** 2)}",
        kind="chat" if is_chat else "embedding",
        endpoint="/chat/completions" if is_chat else "/embeddings",
        outcome=chance.choice(ENDS),
        stream=is_chat,
        usage=Usage(chance.randrange(2000), chance.randrange(500) if is_chat else 0, 0, 0),
        texts=0 if is_chat else chance.randrange(1, 100),
        deployment=0,
        replica="http://gpu1:8000",
        attempts=1,
        queued_s=chance.random(),
        first_chunk_s=chance.random(),
        total_s=chance.random() * 20,
        price=chance.random() / 100,
    )


def fill(store: EntryStore, count: int) -> None:
    chance = random.Random(1)
    step_s = 30 * DAY_S / count
    began = time.perf_counter()
    for first in range(0, count, BATCH):
        batch = [entry(n, BEGAN + n * step_s, chance) for n in range(first, min(count, first + BATCH))]
        read = [(Mark(1, first + place + 1), one) for place, one in enumerate(batch)]
        store.add(Origin("node", "bench"), read, read[-1][0])
    took = time.perf_counter() - began
    print(f"{count} entries in {took:.0f} s: {count / took:.0f} a second (making them included)")


def timed(what: str, work: Callable[[], int]) -> None:
    times, cpu = [], []
    for _ in range(5):
        began, began_cpu = time.perf_counter(), time.thread_time()
        rows = work()
        times.append((time.perf_counter() - began) * 1000)
        cpu.append((time.thread_time() - began_cpu) * 1000)
    print(f"{what}: {min(times):.1f} to {max(times):.1f} ms, {min(cpu):.1f} of CPU, {rows} rows")


def reports(store: EntryStore, folder: Path) -> None:
    told = Reports(folder, store)
    month = Scope(BEGAN, BEGAN + 30 * DAY_S)
    ragged = Scope(BEGAN + 5 * HOUR_S, BEGAN + 30 * DAY_S - 7 * HOUR_S)
    mine = Scope(BEGAN, BEGAN + 30 * DAY_S, ("team-1",))
    asked: list[tuple[str, Scope, tuple[Dimension, ...]]] = [
        ("month, all in one", month, ()),
        ("month by owner and model", month, ("owner", "model")),
        ("month by owner, key, model, day", month, ("owner", "key", "model", "day")),
        ("month from 5:00 to 17:00 by owner", ragged, ("owner",)),
        ("month of one owner by day and model", mine, ("day", "model")),
        ("month by hour", month, ("hour",)),
        ("one day by hour and owner", Scope(BEGAN, BEGAN + DAY_S), ("hour", "owner")),
    ]
    for what, scope, by in asked:
        timed(what, lambda scope=scope, by=by: len(told.sums(scope, by).rows))  # type: ignore[misc]
    timed("what quotas begin with", lambda: len(told.sums_of_period(BEGAN + 29.5 * DAY_S).tokens))
    timed("last 20 failures of an owner", lambda: len(told.failed("team-1", 20)))


def journal(folder: Path, store: EntryStore, calls: int = 50_000) -> None:
    chance = random.Random(2)
    some = [entry(2**40 + n, BEGAN + n, chance) for n in range(calls)]
    book = Journal(folder, print)
    began = time.process_time()
    for one in some:
        book.opened(
            Opened(
                one.request_id, one.opened_at, one.key_id, one.owner, one.model, one.kind, one.endpoint, 9, 0
            )
        )
        book.ended(one)
    took = time.process_time() - began
    print(f"journal, both records of a call: {took / calls * 1e6:.1f} µs of CPU")
    book.close()
    feeder = Feeder(folder, store, print, keep_s=1e12)
    began = time.perf_counter()
    feeder.feed()
    took = time.perf_counter() - began
    feeder.let_go()
    print(f"fed {calls} of them in {took:.1f} s: {calls / took:.0f} a second")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--place", help="an empty database; without it SQLite")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sql = Sql(given.place or f"sqlite://{folder}/ledger.db", LEDGER)
        store = EntryStore(sql)
        fill(store, given.entries)
        with sql.reading() as db:
            for width, count in db.rows("SELECT width_s, count(*) FROM sums GROUP BY width_s ORDER BY 1"):
                print(f"{count} rows of sums of {width // HOUR_S} h")
        if not given.place:
            size = sum(file.stat().st_size for file in folder.glob("ledger.db*"))
            print(f"on disk: {size / 1e6:.0f} MB")
        reports(store, folder / "journal")
        journal(folder / "journal", store)
        sql.close()


if __name__ == "__main__":
    main()
