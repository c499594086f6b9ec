"""Files and batches in SQLite and beside it."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scibox.core import batches as life
from scibox.core.batches import Batch
from scibox.core.files import File, Page
from scibox.store.shelf import STRAY_S, InUse, NoSuchObject, OverLimit, Shelf
from scibox.store.sql import DatabaseAway, NewerSchema

LIMIT = 1000


def file(name: str, owner: str = "o", size: int = 10, expires_at: float | None = None) -> File:
    return File(f"file-{name}", owner, f"{name}.jsonl", "batch", size, 1.0, expires_at)


def batch(name: str, owner: str = "o", input_file_id: str = "file-a") -> Batch:
    reserved = (f"file-{name}-out", f"file-{name}-err")
    return Batch(f"batch_{name}", owner, "key_1", "/v1/embeddings", input_file_id, *reserved, 1.0, 2.0)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path)
    yield made
    made.close()


def fill(shelf: Shelf, made: File, age_s: float = 0.0) -> None:
    with shelf.create(made.file_id) as stream:
        stream.write(b"x" * made.size_bytes)
    at = time.time() - age_s
    os.utime(shelf.content(made.file_id), (at, at))
    shelf.add(made, LIMIT)


def test_what_is_stored_comes_back_after_a_restart(shelf: Shelf, tmp_path: Path) -> None:
    fill(shelf, file("a", expires_at=9.0))
    shelf.add_batch(dataclasses.replace(batch("b"), metadata={"ё": "1"}), 5)
    begun = shelf.change("o", "batch_b", lambda b: life.begin(b, 3, 1.5))
    shelf.close()
    again = Shelf(tmp_path)

    assert again.file("o", "file-a", 8.0) == file("a", expires_at=9.0)
    assert again.batch("o", "batch_b") == begun
    assert again.under_way() == [begun]
    again.close()
    assert stat.S_IMODE((tmp_path / "batches.db").stat().st_mode) == 0o600
    assert stat.S_IMODE(again.content("file-a").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "files").stat().st_mode) == 0o700


def test_pages_follow_each_other_both_ways(shelf: Shelf) -> None:
    for number in range(5):
        shelf.add(file(str(number)), LIMIT)
        shelf.add(file(f"other-{number}", "somebody"), LIMIT)

    def names(page: Page) -> tuple[list[str], bool]:
        files, has_more = shelf.files("o", page, None, 0.0)
        return [item.name[:1] for item in files], has_more

    assert names(Page(2)) == (["4", "3"], True)
    assert names(Page(2, "file-3")) == (["2", "1"], True)
    assert names(Page(2, "file-1")) == (["0"], False)
    assert names(Page(3, is_ascending=True)) == (["0", "1", "2"], True)
    assert names(Page(3, "file-2", is_ascending=True)) == (["3", "4"], False)
    with pytest.raises(NoSuchObject):
        names(Page(2, "file-other-1"))  # somebody else's is as good as none


def test_an_owner_has_so_much_room_and_others_their_own(shelf: Shelf) -> None:
    shelf.add(file("a", size=600), LIMIT)
    with pytest.raises(OverLimit):
        shelf.add(file("b", size=401), LIMIT)
    shelf.add(file("c", size=400), LIMIT)
    shelf.add(file("d", "somebody", size=1000), LIMIT)

    assert shelf.total_bytes("o") == 1000


def test_a_file_that_a_batch_reads_stays_until_the_batch_is_over(shelf: Shelf) -> None:
    fill(shelf, file("a", expires_at=5.0))
    shelf.add_batch(batch("b"), 5)
    with pytest.raises(InUse, match="batch_b"):
        shelf.remove("o", "file-a", 1.0)
    assert shelf.sweep(6.0) == 0
    shelf.change("o", "batch_b", lambda b: life.end(b, "failed", 1.0))
    shelf.remove("o", "file-a", 1.0)

    assert not shelf.content("file-a").exists()
    with pytest.raises(NoSuchObject):
        shelf.file("o", "file-a", 1.0)


def test_the_files_of_a_batch_appear_with_its_end_or_not_at_all(shelf: Shelf) -> None:
    shelf.add(file("a"), LIMIT)
    shelf.add_batch(batch("b"), 5)

    def fails(_: Batch) -> Batch:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        shelf.change("o", "batch_b", fails, [file("b-out")])
    assert shelf.total_bytes("o") == 10
    shelf.change("o", "batch_b", lambda b: life.end(b, "failed", 1.0), [file("b-out")])
    shelf.change("o", "batch_b", lambda b: b, [file("b-out")])  # said twice

    assert shelf.total_bytes("o") == 20
    assert shelf.under_way() == []


def test_an_owner_has_so_many_batches_under_way(shelf: Shelf) -> None:
    shelf.add(file("a"), LIMIT)
    for name in "bc":
        shelf.add_batch(batch(name), 2)
    with pytest.raises(OverLimit):
        shelf.add_batch(batch("d"), 2)
    shelf.change("o", "batch_b", lambda b: life.end(b, "failed", 1.0))
    shelf.add_batch(batch("d"), 2)
    with pytest.raises(NoSuchObject):
        shelf.add_batch(batch("e", input_file_id="file-none"), 9)


def test_sweeping_takes_what_expired_and_old_strays_and_nothing_else(shelf: Shelf) -> None:
    old_s = STRAY_S + 60
    fill(shelf, file("kept"), old_s)
    fill(shelf, file("expired", expires_at=5.0))
    shelf.add_batch(batch("b", input_file_id="file-kept"), 5)
    for name in ("file-b-out", "stray", "upload"):  # results under way; of a crash; under way
        shelf.create(name).close()
        at = time.time() - (0 if name == "upload" else old_s)
        os.utime(shelf.content(name), (at, at))

    assert shelf.sweep(6.0) == 1
    left = {path.name for path in shelf.content("x").parent.iterdir()}
    assert left == {"file-kept", "file-b-out", "upload"}


def test_a_database_that_was_away_is_opened_again(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add(file("a"), LIMIT)
    shelf.close()
    (tmp_path / "batches.db").rename(tmp_path / "aside")
    (tmp_path / "batches.db").mkdir()
    with pytest.raises(DatabaseAway):
        shelf.total_bytes("o")
    (tmp_path / "batches.db").rmdir()
    (tmp_path / "aside").rename(tmp_path / "batches.db")

    assert shelf.total_bytes("o") == 10


def test_one_process_at_a_time_runs_the_batches(tmp_path: Path) -> None:
    first, second = Shelf(tmp_path), Shelf(tmp_path)

    assert first.claim()
    assert first.claim()
    assert not second.claim()
    first.close()
    assert second.claim()
    second.close()


def test_a_file_of_a_newer_version_is_left_alone(shelf: Shelf, tmp_path: Path) -> None:
    shelf.total_bytes("o")
    shelf.close()
    db = sqlite3.connect(tmp_path / "batches.db")
    db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(NewerSchema, match="upgrade SciBox"):
        shelf.total_bytes("o")
