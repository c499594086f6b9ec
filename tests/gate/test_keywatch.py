"""The ring follows the database, and lives through its troubles (PROMISES R3, R4)."""

import asyncio
import sqlite3
import stat
import time
from pathlib import Path

import pytest
from books import Books, House

from rig import KEYS, SECRET, STRANGER
from scibox.core import secret as secrets
from scibox.core.errors import KeysUnavailable, OperatorError, Unauthorized
from scibox.core.types import Key
from scibox.gate import keywatch
from scibox.gate.keyring import KeyRing
from scibox.service import admin
from scibox.service.revocation import Revocation
from scibox.store.keys import KeyStore, Known
from scibox.store.sql import DatabaseAway, NewerSchema

NOW = 1_800_000_000.0


async def until(ring: KeyRing, secret: str, *, opens: bool, within_s: float = 1.0) -> None:
    async with asyncio.timeout(within_s):
        while True:
            try:
                ring.find(secret, NOW)
                found = True
            except Unauthorized:
                found = False
            if found is opens:
                return
            await asyncio.sleep(0.01)


async def test_another_process_revokes_within_a_second(tmp_path: Path, place: str) -> None:
    with KeyStore(place) as reader, KeyStore(place) as writer:
        key, secret = admin.create_key(writer, owner="team", name="t", now=NOW)
        house = House(tmp_path, reader)
        async with house.running() as ring:
            assert ring.find(secret, NOW) == key
            writer.end({key.key_id: NOW})  # by another node: this data folder's list knows nothing of it
            await until(ring, secret, opens=False)
        assert house.revoked.read() == {key.key_id: NOW}  # from now on it does
    assert house.events == []


async def test_a_key_just_made_works_at_once(tmp_path: Path, place: str) -> None:
    with KeyStore(place) as reader, KeyStore(place) as writer:
        house = House(tmp_path, reader)
        async with house.running() as ring:
            for _ in range(3):
                key, secret = admin.create_key(writer, owner="team", name="t", now=NOW)
                assert await ring.identify(secret, NOW) == key
                with pytest.raises(Unauthorized, match="not known"):
                    await ring.identify(STRANGER, NOW)


async def test_a_rotated_key_has_two_secrets_for_a_while(tmp_path: Path, place: str) -> None:
    with KeyStore(place) as store:
        key, first = admin.create_key(store, owner="team", name="t", now=NOW)
        async with House(tmp_path, store).running() as ring:
            store.rotate(key.key_id, secrets.digest(STRANGER), STRANGER[-4:], old_until=NOW + 60)
            assert (await ring.identify(STRANGER, NOW)).key_id == key.key_id
            assert (await ring.identify(first, NOW + 59)).key_id == key.key_id
            with pytest.raises(Unauthorized, match="replaced"):
                await ring.identify(first, NOW + 60)


async def test_a_flood_of_invented_keys_costs_a_few_questions(tmp_path: Path) -> None:
    """Callers that each try one key after another, as fast as they are answered."""
    books = Books(KEYS)
    house = House(tmp_path, books)

    async def invent(first: int) -> None:
        for number in range(first, first + 20):
            with pytest.raises((Unauthorized, KeysUnavailable)):
                await house.ring.identify(invented(number), NOW)

    async with house.running() as ring:
        await house.watch.refresh()
        asked, loaded, begun = books.asked, books.loaded, time.monotonic()
        await asyncio.gather(*(invent(20 * caller) for caller in range(100)))
        rounds = (time.monotonic() - begun) / keywatch.LEAST_S

        assert ring.find(SECRET, NOW)
    assert books.asked - asked <= rounds + 2  # of 2000 keys
    assert rounds < 1000
    assert books.loaded == loaded


async def test_known_keys_work_while_the_database_is_away_and_it_heals(tmp_path: Path) -> None:
    books = Books(KEYS)
    house = House(tmp_path, books)
    await house.watch.look()
    for trouble in (DatabaseAway("disk I/O error"), NewerSchema("keys.db", 9, 2)):
        books.trouble = trouble
        for _ in range(3):
            await house.watch.look()
        assert await house.ring.identify(SECRET, NOW)
        with pytest.raises(KeysUnavailable):
            await house.ring.identify(invented(1), NOW)
        books.trouble = None
        await house.watch.look()
        assert await house.ring.identify(SECRET, NOW)

    assert len(house.notices) == 4
    assert "disk I/O error" in house.notices[0]
    assert "is back" in house.notices[1]


async def test_a_database_that_hangs_keeps_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keywatch, "SLOW_S", 0.3)
    books = Books(KEYS)
    house = House(tmp_path, books)
    async with house.running() as ring:
        await house.watch.refresh()
        books.answers.clear()
        begun = time.monotonic()
        with pytest.raises(KeysUnavailable):
            await ring.identify(invented(1), NOW)
        assert time.monotonic() - begun < 10 * keywatch.LOOK_S
        assert await ring.identify(SECRET, NOW)
        house.revoked.add({"key_full": NOW})  # by another process
        await until(ring, SECRET, opens=False, within_s=10)
        assert ring.trouble == "it does not answer"
        books.answers.set()
        async with asyncio.timeout(10):
            while ring.trouble is not None or not books.ended:
                await asyncio.sleep(0.01)
    assert books.ended == {"key_full": NOW}


async def test_a_start_without_the_database_knows_its_callers(tmp_path: Path) -> None:
    books = Books(KEYS)
    await House(tmp_path, books).watch.look()
    books.trouble = DatabaseAway("unreachable")
    house = House(tmp_path, books)

    assert house.ring.find(SECRET, NOW)  # even before anybody has looked
    await house.watch.look()
    assert house.ring.find(SECRET, NOW)
    assert house.ring.known == books.known
    assert stat.S_IMODE((tmp_path / "keys.snapshot").stat().st_mode) == 0o600
    content = (tmp_path / "keys.snapshot").read_bytes()
    assert secrets.digest(SECRET).encode() in content
    assert SECRET.encode() not in content
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("keys")] == ["keys.snapshot"]


async def test_a_torn_snapshot_is_none(tmp_path: Path) -> None:
    books = Books(KEYS)
    await House(tmp_path, books).watch.look()
    content = (tmp_path / "keys.snapshot").read_bytes()
    for torn in (b"", content[: len(content) // 2], b"{}", b"[]"):
        (tmp_path / "keys.snapshot").write_bytes(torn)
        house = House(tmp_path, books)
        assert house.ring.is_empty
        await house.watch.look()
        assert house.ring.find(SECRET, NOW)


async def test_a_first_start_without_the_database_refuses_nobody(tmp_path: Path) -> None:
    books = Books(KEYS)
    books.trouble = DatabaseAway("unreachable")
    house = House(tmp_path, books)
    await house.watch.look()
    with pytest.raises(KeysUnavailable):
        await house.ring.identify(SECRET, NOW)
    with pytest.raises(KeysUnavailable):
        house.ring.recall("key_full", NOW)
    books.trouble = None
    await house.watch.look()

    assert await house.ring.identify(SECRET, NOW)


async def test_tables_of_a_newer_version_end_a_start(tmp_path: Path) -> None:
    books = Books(KEYS)
    books.trouble = NewerSchema("keys.db", 9, 2)
    house = House(tmp_path, books)
    await house.watch.look()
    with pytest.raises(OperatorError, match="upgrade"):
        await house.watch.started()


async def test_a_database_that_has_lost_its_keys_is_away(tmp_path: Path) -> None:
    books = Books(KEYS)
    house = House(tmp_path, books)
    await house.watch.look()
    books.put(Known({}))
    for again in (house, House(tmp_path, books)):
        await again.watch.look()
        assert again.ring.find(SECRET, NOW)
        assert again.ring.trouble is not None


async def test_a_revoked_key_stays_so_whatever_comes_back(tmp_path: Path) -> None:
    """A snapshot and a database from before the revocation."""
    books = Books(KEYS)
    house = House(tmp_path, books)
    await house.watch.look()
    before = (tmp_path / "keys.snapshot").read_bytes()
    books.put(Known({**KEYS, secrets.digest(SECRET): ended(KEYS[secrets.digest(SECRET)])}))
    await house.watch.look()

    (tmp_path / "keys.snapshot").write_bytes(before)
    books.put(Known(KEYS))
    again = House(tmp_path, books)
    for _ in range(2):
        with pytest.raises(Unauthorized):
            again.ring.find(SECRET, NOW)
        await again.watch.look()
    await again.watch.write(with_uses=False)
    assert books.ended == {"key_full": NOW}


async def test_a_replaced_secret_stays_so_whatever_comes_back(tmp_path: Path) -> None:
    books = Books(KEYS)
    digest = secrets.digest(SECRET)
    books.put(Known(KEYS, ends={digest: NOW + 5.0004}))
    house = House(tmp_path, books)
    for _ in range(2):
        await house.watch.look()
        await house.watch.write(with_uses=False)
    assert books.ended == {}  # it knows

    books.put(Known(KEYS))
    again = House(tmp_path, books)
    await again.watch.look()
    assert again.ring.find(SECRET, NOW)
    with pytest.raises(Unauthorized, match="replaced"):
        again.ring.find(SECRET, NOW + 5.001)
    await again.watch.write(with_uses=False)
    assert set(books.ended) == {digest}


async def test_revoking_without_the_database_works_at_once_and_is_told_later(
    tmp_path: Path, place: str
) -> None:
    with KeyStore(place, patience_s=0.3) as store, KeyStore(place) as operator:
        key, secret = admin.create_key(operator, owner="team", name="t", now=NOW)
        house = House(tmp_path, store)
        await house.watch.look()
        with operator._sql.writing():  # locks it for whoever would write
            outcome = Revocation(store, house.revoked, house.ring.end).revoke([key.key_id], NOW)
            assert outcome.waits_for is not None
            with pytest.raises(Unauthorized):
                house.ring.find(secret, NOW)
            await house.watch.write(with_uses=False)  # in vain
            assert len(house.notices) == 1
        assert operator.all()[0].revoked_at is None
        await house.watch.write(with_uses=False)

        assert operator.all()[0].revoked_at == NOW
        outcome = Revocation(store, house.revoked).revoke([key.key_id, "key_none"], NOW + 9)
        assert outcome.waits_for is None
        assert (outcome.keys, outcome.unknown) == (tuple(operator.all()), ("key_none",))
        assert outcome.keys[0].revoked_at == NOW


async def test_uses_are_written_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    books = Books(KEYS)
    house = House(tmp_path, books)
    async with house.running() as ring:
        ring.find(SECRET, NOW)
        await house.watch.write(with_uses=True)
        assert books.used == {"key_full": NOW}
        books.trouble = DatabaseAway("full")
        ring.find(SECRET, NOW + 1)
        await house.watch.write(with_uses=True)
        ring.find(STRANGER, NOW + 2)
        books.trouble = None
    assert books.used == {"key_full": NOW + 1, "key_stranger": NOW + 2}


async def test_an_sqlite_file_locked_by_another_process_or_gone_bad(tmp_path: Path) -> None:
    """A lock that keeps even readers out, garbage, a folder in its place: the ring goes on and heals each time."""
    path = tmp_path / "keys.db"
    with KeyStore(f"sqlite://{path}", patience_s=0.2) as store:
        key, secret = admin.create_key(store, owner="team", name="t", now=NOW)
        house = House(tmp_path, store)
        await house.watch.look()
        store.close()
        good = path.read_bytes()
        for spoil, mend in (
            (lambda: locked(path), lambda lock: lock.close()),
            (lambda: path.write_bytes(b"garbage" * 999), lambda _: path.write_bytes(good)),
            (lambda: (path.unlink(), path.mkdir()), lambda _: (path.rmdir(), path.write_bytes(good))),
            (lambda: path.write_bytes(b""), lambda _: path.write_bytes(good)),
        ):
            state = spoil()
            for again in (house, House(tmp_path, store)):
                await again.watch.look()
                assert again.ring.trouble is not None
                assert await again.ring.identify(secret, NOW) == key
                with pytest.raises(KeysUnavailable):
                    await again.ring.identify(STRANGER, NOW)
            store.close()
            mend(state)
            await house.watch.look()
            assert house.ring.trouble is None


def locked(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("BEGIN EXCLUSIVE")
    db.execute("UPDATE changes SET number = number")
    return db


def ended(key: Key) -> Key:
    return Key(key.key_id, key.owner, key.name, key.role, key.last_four, key.created_at, revoked_at=NOW)


def invented(number: int) -> str:
    """A secret of the right form that nobody has."""
    return secrets.compose([*divmod(number, 62), *[1] * (secrets.RANDOM_CHARS - 2)])
