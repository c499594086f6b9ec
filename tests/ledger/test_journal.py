"""The journal: what was given to it is in its files, whatever happens to the process; and what a full disk does."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_entries import entry, opened
from ledger_faults import FaultyFiles

from scibox.core.entries import Entry
from scibox.core.errors import StorageUnavailable
from scibox.core.events import Event, Notice
from scibox.core.types import Ending
from scibox.ledger import frames
from scibox.ledger.journal import Journal


def told(folder: Path) -> list[frames.Record]:
    """All that stands in the segments."""
    return [
        record
        for path in sorted(folder.glob("*.log"))
        for _, record in frames.read(path.read_bytes()).records
    ]


class Rig:
    """A journal on a disk that fails on demand, with a clock that is set by hand."""

    def __init__(self, folder: Path, **more: object) -> None:
        self.folder = folder
        self.files = FaultyFiles()
        self.events: list[Event] = []
        self.at = 0.0
        self.journal = Journal(
            folder,
            self.events.append,
            files=self.files,
            clock=lambda: self.at,
            **{"segment_bytes": 4096, **more},  # type: ignore[arg-type]
        )

    @property
    def warnings(self) -> int:
        return sum(isinstance(event, Notice) and event.is_warning for event in self.events)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "journal", most_waiting=5)
    yield made
    made.journal.close()


def test_what_is_given_stands_in_the_files_at_once_in_order_over_segments(rig: Rig) -> None:
    given: list[frames.Record] = []
    for number in range(50):
        rig.journal.opened(opened(number))
        rig.journal.ended(entry(number))
        given += [opened(number), entry(number)]

        assert told(rig.folder) == given
    assert len(list(rig.folder.glob("*.log"))) > 3


def test_the_files_are_for_their_user_alone_and_nothing_is_left_reserved_after_a_close(rig: Rig) -> None:
    rig.journal.ended(entry(1))
    [path] = rig.folder.glob("*.log")
    assert path.stat().st_mode & 0o077 == 0
    assert rig.folder.stat().st_mode & 0o077 == 0
    rig.journal.close()

    assert [path.stat().st_size for path in rig.folder.glob("*.log")] == [len(frames.frame(entry(1)))]


def test_a_full_disk_is_noticed_while_there_is_room_and_calls_go_on(rig: Rig) -> None:
    rig.files.broken = {"reserve"}
    number = 0
    while not rig.warnings:
        rig.journal.ended(entry(number))
        number += 1

    assert rig.journal.waiting == 0
    assert told(rig.folder) == [entry(n) for n in range(number)]
    rig.journal.check()


@pytest.mark.parametrize("fault", ["create", "reserve", "write", "half"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_what_the_disk_does_not_take_waits_and_nothing_is_lost_or_doubled(
    tmp_path: Path, fault: str, error: int
) -> None:
    rig = Rig(tmp_path, most_waiting=100)
    given = [entry(number) for number in range(60)]
    for one in given[:5]:
        rig.journal.ended(one)
    rig.files.broken, rig.files.error = {fault}, error
    for one in given[5:40]:
        rig.journal.ended(one)
    assert rig.journal.waiting > 0
    assert rig.warnings == 1
    assert rig.journal.trouble
    rig.files.broken = set()
    rig.at += 1.0
    for one in given[40:]:
        rig.journal.ended(one)

    assert told(tmp_path) == given
    assert all(
        any(path.read_bytes()) for path in sorted(tmp_path.glob("*.log"))[:-1]
    )  # no empty ones are left
    assert rig.journal.waiting == 0
    assert rig.journal.trouble is None
    assert rig.warnings == 1
    rig.journal.close()


def test_at_the_bound_new_calls_are_refused_and_running_ones_still_recorded(rig: Rig) -> None:
    rig.files.broken = {"write"}
    for number in range(5):
        rig.journal.check()
        rig.journal.ended(entry(number))
    with pytest.raises(StorageUnavailable) as refused:
        rig.journal.check()
    assert refused.value.status == 503
    assert refused.value.code == "storage_unavailable"
    assert 1 <= (refused.value.retry_after_s or 0) <= 60
    rig.journal.ended(entry(5))
    rig.files.broken = set()
    rig.at += 1.0
    rig.journal.check()

    assert told(rig.folder) == [entry(number) for number in range(6)]


def test_a_disk_that_is_away_is_not_asked_at_every_record(rig: Rig) -> None:
    rig.files.broken = {"write"}
    for number in range(100):
        rig.journal.ended(entry(number))
        rig.at += 0.001

    assert rig.files.tried <= 2


async def test_it_tries_again_by_itself_while_nobody_calls(tmp_path: Path) -> None:
    files = FaultyFiles()
    journal = Journal(tmp_path, lambda event: None, files=files)
    files.broken = {"write"}
    journal.ended(entry(1))
    files.broken = set()
    for _ in range(400):
        if not journal.waiting:
            break
        await asyncio.sleep(0.05)

    assert told(tmp_path) == [entry(1)]
    journal.close()


def test_a_folder_that_cannot_be_made_at_the_start_is_made_later(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    rig = Rig(tmp_path / "data" / "journal", most_waiting=9)
    rig.journal.ended(entry(1))
    assert rig.warnings == 1
    (tmp_path / "data").unlink()
    rig.at += 1.0
    rig.journal.ended(entry(2))

    assert told(rig.folder) == [entry(1), entry(2)]
    rig.journal.close()


WRITER = """
import resource, signal, sys
from pathlib import Path
from ledger_entries import entry, opened
from scibox.ledger.journal import Journal

limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
journal = Journal(Path(sys.argv[1]), lambda event: print(event.message, file=sys.stderr), segment_bytes=65536)
start, count = int(sys.argv[3]), int(sys.argv[4])
for number in range(start, start + count):
    if limit and number == start + count // 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        journal._tried_at = -1e9
    journal.opened(opened(number))
    journal.ended(entry(number))
    print(number, journal.waiting, flush=True)
journal.close()
"""


def writer(folder: Path, limit: int, start: int, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(limit), str(start), str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_real_limit_on_the_size_of_files_is_survived(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    said, errors = writer(tmp_path, 40_000, 0, 300).communicate(timeout=60)

    assert "File too large" in errors
    assert max(int(line.split()[1]) for line in said.splitlines()) > 100  # they did wait
    assert [one for one in told(tmp_path) if isinstance(one, Entry)] == [entry(n) for n in range(300)]


def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(4)
    acknowledged: dict[int, int] = {}
    for life in range(5):
        process = writer(tmp_path, 0, life * 100_000, 100_000)
        assert process.stdout
        process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        said, _ = process.communicate(timeout=60)
        whole = said.splitlines() if said.endswith("\n") else said.splitlines()[:-1]
        acknowledged[life] = int(whole[-1].split()[0]) if whole else life * 100_000
    found = [one.request_id for one in told(tmp_path) if isinstance(one, Entry)]

    assert len(found) == len(set(found))
    for life, last in acknowledged.items():
        assert last > life * 100_000
        assert {entry(n).request_id for n in range(life * 100_000, last + 1)} <= set(found)


async def test_strict_waits_for_the_disk_in_groups(tmp_path: Path) -> None:
    files = FaultyFiles()
    journal = Journal(tmp_path, lambda event: None, is_strict=True, files=files)

    async def call(number: int) -> None:
        journal.ended(entry(number))
        await journal.settled()

    await asyncio.gather(*map(call, range(50)))
    assert 1 <= files.synced <= 3  # the first alone, the rest together
    journal.close()


async def test_not_strict_waits_for_nothing(tmp_path: Path) -> None:
    files = FaultyFiles()
    journal = Journal(tmp_path, lambda event: None, files=files)
    journal.ended(entry(1))
    await journal.settled()

    assert files.synced == 0
    journal.close()


async def test_strict_fails_the_call_that_did_not_reach_the_disk_and_uses_another_file(
    tmp_path: Path,
) -> None:
    files = FaultyFiles()
    journal = Journal(tmp_path, lambda event: None, is_strict=True, files=files)
    files.broken, files.error = {"sync"}, errno.EIO
    journal.ended(entry(1))
    with pytest.raises(StorageUnavailable):
        await journal.settled()
    files.broken = set()
    journal.ended(entry(2))
    await journal.settled()

    assert told(tmp_path) == [entry(1), entry(2)]
    assert len([path for path in tmp_path.glob("*.log") if any(path.read_bytes())]) == 2
    journal.close()


async def test_strict_refuses_new_calls_as_soon_as_one_record_waits(tmp_path: Path) -> None:
    rig = Rig(tmp_path, is_strict=True)
    rig.files.broken = {"write"}
    rig.journal.ended(entry(1))

    with pytest.raises(StorageUnavailable):
        rig.journal.check()
    rig.at = 100.0
    rig.files.broken = set()
    rig.journal.check()
    rig.journal.close()


async def test_a_caller_that_leaves_while_it_waits_for_the_disk_disturbs_nobody(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda event: None, is_strict=True)
    journal.ended(entry(1))
    leaving = asyncio.create_task(journal.settled())
    await asyncio.sleep(0)
    leaving.cancel()
    journal.ended(entry(2))
    await asyncio.wait_for(journal.settled(), 10)

    assert told(tmp_path) == [entry(1), entry(2)]
    journal.close()


def test_refusals_for_lack_of_room_take_no_room(rig: Rig) -> None:
    rig.files.broken = {"write"}
    rig.journal.ended(entry(1))
    for number in range(100):
        rig.journal.ended(entry(number, outcome=Ending.REFUSED, code="storage_unavailable"))
    rig.journal.ended(entry(2, outcome=Ending.REFUSED, code="insufficient_quota"))

    assert rig.journal.waiting == 2


def test_a_file_that_is_broken_for_ever_is_left_for_the_next_one(tmp_path: Path) -> None:
    rig = Rig(tmp_path, most_waiting=9)
    rig.journal.ended(entry(1))
    assert rig.journal._segment
    rig.files.bad, rig.files.error = {rig.journal._segment.path.stat().st_ino}, errno.EIO
    rig.journal.ended(entry(2))
    rig.at += 1.0
    rig.journal.check()
    rig.files.bad = set()

    assert rig.journal.waiting == 0
    assert told(tmp_path) == [entry(1), entry(2)]
    rig.journal.close()


async def test_who_counts_on_a_sync_that_failed_is_told_also_when_it_came_later(tmp_path: Path) -> None:
    """Its record is in the file of the failed sync: a later one may succeed and have lost it."""
    files = FaultyFiles()
    journal = Journal(tmp_path, lambda event: None, is_strict=True, files=files)
    files.broken, files.error = {"sync"}, errno.EIO
    files.may_sync.clear()
    journal.ended(entry(1))
    first = asyncio.create_task(journal.settled())
    await asyncio.to_thread(files.syncing.wait, 30)
    journal.ended(entry(2))
    second = asyncio.create_task(journal.settled())
    await asyncio.sleep(0.01)
    files.may_sync.set()
    results = await asyncio.gather(first, second, return_exceptions=True)
    files.broken = set()
    journal.ended(entry(3))
    await asyncio.wait_for(journal.settled(), 10)

    assert [type(one) for one in results] == [StorageUnavailable, StorageUnavailable]
    journal.close()
