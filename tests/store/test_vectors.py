from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scibox.core.types import Vector
from scibox.store.vectors import ENTRY_BYTES, VectorCache

FLOATS = array("f", [0.6, 0.8]).tobytes()
MIB = 2**20


@contextmanager
def cache(
    path: Path | None = None, *, memory: int = MIB, disk: int = MIB, told: list[str] | None = None
) -> Iterator[VectorCache]:
    made = VectorCache(memory, path, disk, [].append if told is None else told.append)
    try:
        yield made
    finally:
        made.close()


def vector(number: int, size: int = 2) -> Vector:
    return Vector(array("f", [number] * size).tobytes(), number)


def key(number: int) -> bytes:
    return number.to_bytes(20, "big")


async def test_what_was_put_is_found_and_nothing_else() -> None:
    with cache() as c:
        c.put({key(1): vector(1), key(2): vector(2)})

        assert await c.get([key(2), key(3), key(1)]) == {key(1): vector(1), key(2): vector(2)}


async def test_memory_is_bounded_and_forgets_what_was_used_longest_ago() -> None:
    with cache(memory=3 * (8 + ENTRY_BYTES)) as c:
        c.put({key(n): vector(n) for n in (1, 2, 3)})
        await c.get([key(1)])
        c.put({key(4): vector(4)})

        assert set(await c.get([key(n) for n in range(1, 5)])) == {key(1), key(3), key(4)}


async def test_a_restart_finds_what_the_disk_has_under_the_same_keys(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    with cache(path) as c:
        name = c.key(b"model", "text")
        c.put({name: vector(7)})
    with cache(path, memory=0) as c:
        assert c.key(b"model", "text") == name
        assert await c.get([name]) == {name: vector(7)}
    assert path.stat().st_mode & 0o777 == 0o600


async def test_the_file_is_bounded_and_forgets_the_oldest(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    with cache(path, memory=0, disk=MIB) as c:
        for start in range(0, 1000, 100):
            c.put({key(n): vector(n, 384) for n in range(start, start + 100)})
        found = await c.get([key(n) for n in range(1000)])

    assert 400 < len(found) < 1000
    assert key(999) in found
    assert key(0) not in found
    assert path.stat().st_size < 1.2 * MIB


async def test_keys_tell_models_texts_and_ids_apart(tmp_path: Path) -> None:
    with cache() as c, cache() as other:
        keys = [c.key(b"m", "1"), c.key(b"m", (1,)), c.key(b"n", "1"), c.key(b"m", "2"), c.key(b"m", (1, 2))]

        assert len(set(keys)) == 5
        assert other.key(b"m", "1") != keys[0]  # another box has another secret


@pytest.mark.parametrize("rubbish", [b"no database at all" * 100, b""])
async def test_a_damaged_file_begins_anew(tmp_path: Path, rubbish: bytes) -> None:
    path = tmp_path / "c.db"
    path.write_bytes(rubbish)
    with cache(path, memory=0) as c:
        c.put({key(1): vector(1)})

        assert await c.get([key(1)]) == {key(1): vector(1)}


async def test_a_file_that_is_damaged_while_in_use_costs_no_call(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    told: list[str] = []
    with cache(path, memory=0, told=told) as c:
        c.put({key(n): vector(n, 384) for n in range(200)})
        await c.get([key(1)])
        sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
        with path.open("r+b") as stream:
            stream.seek(4096)
            stream.write(b"\xff" * 4096 * 20)
        with sqlite3.connect(path) as db:  # makes the cache read the file again
            db.execute("PRAGMA user_version = 1")
        db.close()
        first = await c.get([key(n) for n in range(200)])
        c.put({key(500): vector(500)})
        second = await c.get([key(500)])

    assert all(found == vector(int.from_bytes(name, "big"), 384) for name, found in first.items())
    assert second == {key(500): vector(500)}
    assert any("damaged" in message for message in told)


async def test_a_damaged_vector_is_not_answered(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    with cache(path) as c:
        c.put({key(1): vector(1), key(2): vector(2)})
    with sqlite3.connect(path) as db:
        [(value,)] = db.execute("SELECT value FROM vectors WHERE key = ?", (key(1),))
        db.execute("UPDATE vectors SET value = ? WHERE key = ?", (value[:-1] + b"\x01", key(1)))
    db.close()
    with cache(path, memory=0) as c:
        assert await c.get([key(1), key(2)]) == {key(2): vector(2)}


async def test_a_disk_that_is_full_costs_no_call_and_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    with cache(tmp_path / "c.db", memory=MIB, told=told) as c:
        assert c._file is not None
        c._file._db.execute("PRAGMA max_page_count = 8")
        for n in range(20):
            c.put({key(n): vector(n, 1024)})
        found = await c.get([key(n) for n in range(20)])
        await c.get([key(99)])

    assert len(found) == 20
    assert len(told) == 1
    assert "full" in told[0]


async def test_a_folder_that_cannot_be_written_leaves_the_memory(tmp_path: Path) -> None:
    told: list[str] = []
    with cache(tmp_path / "none" / "c.db", told=told) as c:
        c.put({key(1): vector(1)})

        assert await c.get([key(1)]) == {key(1): vector(1)}
    assert "stays in memory" in told[0]


async def test_nothing_is_kept_when_both_limits_are_zero(tmp_path: Path) -> None:
    with cache(tmp_path / "c.db", memory=0, disk=0) as c:
        c.put({key(1): vector(1)})

        assert await c.get([key(1)]) == {}
    assert not (tmp_path / "c.db").exists()


async def test_no_text_is_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    with cache(path) as c:
        c.put({c.key(b"model", "a very secret sentence"): vector(1)})

    for file in tmp_path.iterdir():
        assert b"secret sentence" not in file.read_bytes()


async def test_processes_of_one_service_share_the_file_under_the_same_keys(tmp_path: Path) -> None:
    path, told = tmp_path / "c.db", list[str]()
    with cache(path, memory=0, told=told) as one, cache(path, memory=0, told=told) as other:
        for start in range(0, 200, 20):  # both write at the same time
            one.put({one.key(b"model", f"a{n}"): vector(n) for n in range(start, start + 20)})
            other.put({other.key(b"model", f"b{n}"): vector(n) for n in range(start, start + 20)})
        await one.get([key(0)])  # behind its writes
        await other.get([key(0)])
        names = [one.key(b"model", f"{which}{n}") for which in "ab" for n in range(200)]
        assert len(await one.get(names)) == len(await other.get(names)) == 400
    assert told == []
