"""The ledger with a million entries of one month: how long reports take, and what a call costs the journal.

    python bench/ledger.py [--entries 1000000] [--place postgresql://...]

Writes them as the feeder does (without --place into an SQLite file of the moment), and prints entries per second (of
some also with the sums of every cell alone, as the version before had them), rows of sums, bytes on disk, a month by
everything it can be grouped by: rows, the CPU of this process and the time, both the best of three, and the latest an
event loop woke while they were made and calls were fed; the memory an export of all of it takes; and the journal's
cost per call.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import random
import resource
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from scibox.core import sums as arithmetic
from scibox.core.entries import Entry, Opened
from scibox.core.sums import DAY_S, HOUR_S, Dimension, Scope
from scibox.core.types import Ending, Usage
from scibox.ledger.feeder import Feeder
from scibox.ledger.journal import Journal
from scibox.ledger.reports import Reports
from scibox.service.usage import Usage as Asked
from scibox.store.entries import LEDGER, EntryStore, Mark, Origin
from scibox.store.sql import Sql
from scibox.wire import usage as wire

BEGAN = 1_793_491_200  # 2026-11-01T00:00:00Z
OWNERS, KEYS, MODELS = 50, 200, 5
BATCH = 2_000
SPREAD = {"owner": OWNERS, "key": KEYS, "model": MODELS, "endpoint": 2, "outcome": 3, "day": 30, "hour": 720}
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
    for _ in range(3):
        began, began_cpu = time.perf_counter(), time.thread_time()
        rows = work()
        times.append((time.perf_counter() - began) * 1000)
        cpu.append((time.thread_time() - began_cpu) * 1000)
    print(f"{what:58} {rows:7} {min(cpu):8.1f} {min(times):8.1f}", flush=True)


def page(told: Reports, scope: Scope, pairs: list[tuple[str, str]]) -> int:
    """A page of the API, made and rendered."""
    asked = [("start_time", str(scope.since)), ("end_time", str(scope.until)), *pairs]
    query = wire.parse(asked, BEGAN + 30 * DAY_S, None)
    report = told.sums(query.scope, query.dimensions)
    wire.render(query, report.rows, is_complete=True)
    return len(report.rows)


def reports(store: EntryStore, folder: Path, most_rows: int) -> None:
    told = Reports(folder, store)
    month = Scope(BEGAN, BEGAN + 30 * DAY_S)
    ragged = Scope(BEGAN + 5 * HOUR_S, BEGAN + 30 * DAY_S - 7 * HOUR_S)
    mine = Scope(BEGAN, BEGAN + 30 * DAY_S, ("team-1",))
    names: tuple[Dimension, ...] = ("owner", "key", "model", "endpoint", "outcome")
    asked: list[tuple[str, Scope, tuple[Dimension, ...]]] = []
    for time_of in ((), ("day",), ("hour",)):
        for size in range(6):
            for some in itertools.combinations(names, size):
                by: tuple[Dimension, ...] = (*some, *time_of)  # type: ignore[assignment]
                asked.append((", ".join(by) or "all in one", month, by))
    asked += [
        ("from 5:00 to 17:00: owner", ragged, ("owner",)),
        ("from 5:00 to 17:00: owner, key, model, day", ragged, ("owner", "key", "model", "day")),
        ("one owner: key, model, endpoint, outcome, day", mine, (*names[1:], "day")),
        ("one owner: hour", mine, ("hour",)),
        ("one owner: key, model, hour", mine, ("key", "model", "hour")),
        ("one day: owner, hour", Scope(BEGAN, BEGAN + DAY_S), ("owner", "hour")),
    ]
    print(f"{'a month by':58} {'rows':>7} {'ms CPU':>8} {'ms':>8}")
    large: list[str] = []
    for what, scope, by in asked:
        if math.prod([SPREAD[name] for name in by if name != "owner" or "key" not in by]) > most_rows:
            large.append(what)
        else:
            timed(what, lambda scope=scope, by=by: len(told.sums(scope, by).rows))  # type: ignore[misc]
    print(f"left out (--most-rows), of more possible rows than {most_rows}: {len(large)} groupings")
    keys = [("group_by", "owner,api_key_id,model"), ("limit", "31")]
    timed("page: owner, api_key_id, model, day", lambda: page(told, month, keys))
    timed("page: hour, 168 of them", lambda: page(told, month, [("bucket_width", "1h"), ("limit", "168")]))
    timed("what quotas begin with", lambda: len(told.sums_of_period(BEGAN + 29.5 * DAY_S).tokens))
    timed("last 20 failures of an owner", lambda: len(told.failed("team-1", 20)))


async def beside(store: EntryStore, folder: Path) -> None:
    """Pages on the threads they have, while another thread feeds: who waits for whom."""
    usage = Asked(Reports(folder, store), time.time)
    month = Scope(BEGAN, BEGAN + 30 * DAY_S)
    rates = [await asyncio.to_thread(feed, store, 0, 20_000)]
    feeding = asyncio.create_task(asyncio.to_thread(feed, store, 20_000, 20_000))
    made, late = 0, [0.0]

    async def ask() -> None:
        nonlocal made
        while not feeding.done():
            await usage.sums(month, ("owner", "key", "model", "day"), lambda report: len(report.rows))
            made += 1

    asking = asyncio.create_task(ask())
    while not asking.done():
        began = time.perf_counter()
        await asyncio.sleep(0.002)
        late.append(time.perf_counter() - began - 0.002)
    rates.append(await feeding)
    usage.close()
    late.sort()
    print(
        f"fed {rates[0]:.0f} calls a second alone, {rates[1]:.0f} beside {made} reports one after the other; the "
        f"event loop woke {late[len(late) // 2] * 1e3:.1f} ms late (median), {late[-1] * 1e3:.1f} at most"
    )


def feed(store: EntryStore, first: int, count: int) -> float:
    """Calls a second, of the last day."""
    chance = random.Random(3)
    some = [entry(2**41 + first + n, BEGAN + 29 * DAY_S + n, chance) for n in range(count)]
    began = time.perf_counter()
    for at in range(0, count, BATCH):
        read = [(Mark(1, first + at + n + 1), one) for n, one in enumerate(some[at : at + BATCH])]
        store.add(Origin("node", "beside"), read, read[-1][0])
    return count / (time.perf_counter() - began)


def before(place: Callable[[], str], count: int = 40_000) -> None:
    """The cost of the sums beside those of the cells: the same entries with and without, in turns."""
    cuts, rates = arithmetic.CUTS, dict[str, list[float]]()
    for _ in range(2):
        for what, chosen in (("cells alone", cuts[-1:]), ("all sums", cuts)):
            arithmetic.CUTS = chosen  # type: ignore[misc]
            sql = Sql(place(), LEDGER)
            rates.setdefault(what, []).append(feed(EntryStore(sql), 0, count))
            sql.close()
    print(", ".join(f"{what}: {max(found):.0f} entries a second" for what, found in rates.items()))


def export(store: EntryStore) -> None:
    began, before_kb = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    peaks = []
    for number, _ in enumerate(store.entries(Scope(0, 2**40)), 1):
        if number in {10_000, 100_000, 1_000_000}:
            peaks.append(f"{tracemalloc.get_traced_memory()[1] / 1e6:.1f} MB after {number}")
    tracemalloc.stop()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    took = time.perf_counter() - began
    print(f"export of {number} in {took:.0f} s (traced); peak {', '.join(peaks)}; process grew by {grown} kB")


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
    parser.add_argument("--most-rows", type=int, default=50_000, help="of a report; larger ones are left out")
    parser.add_argument("--place", help="an empty database; without it SQLite")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sql = Sql(given.place or f"sqlite://{folder}/ledger.db", LEDGER)
        store = EntryStore(sql)
        fill(store, given.entries)
        with sql.reading() as db:
            for cut in arithmetic.CUTS:
                for width, count in db.rows(f"SELECT width_s, count(*) FROM {cut.table} GROUP BY width_s"):
                    print(f"{cut.table}, {width // HOUR_S} h: {count} rows")
        if not given.place:
            size = sum(file.stat().st_size for file in folder.glob("ledger.db*"))
            print(f"on disk: {size / 1e6:.0f} MB")
        reports(store, folder / "journal", given.most_rows)
        asyncio.run(beside(store, folder / "journal"))
        export(store)
        if not given.place:
            files = itertools.count()
            before(lambda: f"sqlite://{folder}/before{next(files)}.db")
        journal(folder / "journal", store)
        sql.close()


if __name__ == "__main__":
    main()
