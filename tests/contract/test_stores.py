"""One suite for every database: `store.sql` and the keys in it, on SQLite and on PostgreSQL."""

from __future__ import annotations

import resource
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import servers

from scibox.core import secret as secrets
from scibox.core.types import Key, Limits, Owner
from scibox.service import admin
from scibox.store.keys import KeyStore, NoSuchKey, NoSuchOwner, Plan
from scibox.store.sql import Clash, DatabaseAway, NewerSchema, Row, Sql, Tables

FRUITS = Tables(
    "fruits", (("CREATE TABLE fruits (name TEXT PRIMARY KEY, amount BIGINT, weight DOUBLE PRECISION)",),)
)
MORE_FRUITS = Tables(
    "fruits",
    (
        *FRUITS.migrations,
        (
            "CREATE TABLE sorts (name TEXT PRIMARY KEY, is_sweet BIGINT NOT NULL)",
            "INSERT INTO sorts SELECT name, 1 FROM fruits",
        ),
    ),
)


@pytest.fixture
def sql(place: str) -> Iterator[Sql]:
    with closing(Sql(place, FRUITS, patience_s=1.0)) as db:
        yield db


@pytest.fixture
def store(place: str) -> Iterator[KeyStore]:
    with KeyStore(place) as store:
        yield store


def put(sql: Sql, name: str, amount: int = 1) -> None:
    with sql.writing() as db:
        db.run("INSERT INTO fruits VALUES (?, ?, ?)", name, amount, amount / 3)


def names(sql: Sql) -> list[str]:
    with sql.reading() as db:
        return [row[0] for row in db.rows("SELECT name FROM fruits ORDER BY name")]


def sorts(place: str) -> list[Row]:
    with closing(Sql(place, MORE_FRUITS, patience_s=60)) as sql, sql.reading() as db:
        return db.rows("SELECT * FROM sorts")


def test_values_come_back_as_they_went(sql: Sql) -> None:
    rows = [("100% é '?'", 2**62, 1 / 3), ("none", None, None), ("minus", -1, -0.0)]
    with sql.writing() as db:
        assert db.run_many("INSERT INTO fruits VALUES (?, ?, ?)", rows) == 3
    with sql.reading() as db:
        assert sorted(db.rows("SELECT * FROM fruits")) == sorted(rows)
        assert db.rows("SELECT name FROM fruits WHERE name LIKE '100%' AND amount = ?", 2**62) == [
            (rows[0][0],)
        ]


def test_sums_and_counts_are_plain_numbers(sql: Sql) -> None:
    with sql.writing() as db:
        db.run_many("INSERT INTO fruits VALUES (?, ?, ?)", [(str(n), n, n / 4) for n in range(5)])
    with sql.reading() as db:
        [row] = db.rows("SELECT count(*), sum(amount), sum(weight), max(amount), avg(weight) FROM fruits")

    assert row == (5, 10, 2.5, 4, 0.5)
    assert [type(value) for value in row] == [int, int, float, int, float]


def test_a_missing_filter_is_a_null(sql: Sql) -> None:
    put(sql, "apple")
    with sql.reading() as db:
        for wanted, found in ((None, [("apple",)]), ("apple", [("apple",)]), ("pear", [])):
            assert db.rows("SELECT name FROM fruits WHERE ? IS NULL OR name = ?", wanted, wanted) == found


def test_all_or_nothing(sql: Sql) -> None:
    with pytest.raises(ZeroDivisionError), sql.writing() as db:
        assert db.run("INSERT INTO fruits (name) VALUES (?)", "apple") / 0
    put(sql, "pear")
    with pytest.raises(Clash), sql.writing() as db:
        db.run_many("INSERT INTO fruits (name) VALUES (?)", [("plum",), ("pear",)])

    assert names(sql) == ["pear"]


def test_a_row_that_is_there_is_kept_or_replaced_and_said(sql: Sql) -> None:
    put(sql, "pear", 1)
    with sql.writing() as db:
        kept = db.run("INSERT INTO fruits (name) VALUES (?) ON CONFLICT (name) DO NOTHING", "pear")
        replaced = db.run(
            "INSERT INTO fruits (name, amount) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET amount = excluded.amount",
            "pear",
            7,
        )
        returned = db.rows("UPDATE fruits SET amount = amount + 1 WHERE name = ? RETURNING amount", "pear")

    assert (kept, replaced, returned) == (0, 1, [(8,)])


def test_a_reader_sees_one_state(sql: Sql) -> None:
    put(sql, "apple")
    with sql.reading() as db:
        before = db.rows("SELECT count(*) FROM fruits")
        put(sql, "pear")  # from another connection of the same process

        assert db.rows("SELECT count(*) FROM fruits") == before == [(1,)]
    assert names(sql) == ["apple", "pear"]


def test_writers_follow_one_another(sql: Sql) -> None:
    put(sql, "apple", 0)

    def add_one(_: int) -> None:
        with sql.writing() as db:  # without a lock, two would read the same number
            [(amount,)] = db.rows("SELECT amount FROM fruits")
            time.sleep(0.002)
            db.run("UPDATE fruits SET amount = ?", amount + 1)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(add_one, range(30)))

    with sql.reading() as db:
        assert db.rows("SELECT amount FROM fruits") == [(30,)]


def test_a_writer_that_does_not_end_is_a_database_that_is_away(sql: Sql, place: str) -> None:
    put(sql, "apple")
    with closing(Sql(place, FRUITS)) as other, other.writing():
        begun = time.monotonic()
        with pytest.raises(DatabaseAway), sql.writing():
            pass
        assert time.monotonic() - begun < 20
        assert names(sql) == ["apple"]  # reading goes on
    put(sql, "pear")


def test_a_statement_that_does_not_end_is_a_database_that_is_away(sql: Sql) -> None:
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i > 0) SELECT count(*) FROM n"
    )
    with pytest.raises(DatabaseAway, match="too long"), sql.reading() as db:
        db.rows(endless)

    put(sql, "apple")


def test_transactions_that_do_not_end_are_a_database_that_is_away(sql: Sql) -> None:
    put(sql, "apple")
    release = threading.Event()

    def hold() -> None:
        with sql.reading():
            release.wait(60)

    with ThreadPoolExecutor(4) as threads:
        held = [threads.submit(hold) for _ in range(4)]
        try:
            time.sleep(0.2)
            with pytest.raises(DatabaseAway, match="under way"), sql.reading():
                pass
        finally:
            release.set()
        for future in held:
            future.result()
    assert names(sql) == ["apple"]


def test_older_tables_are_brought_forward_with_their_rows(place: str) -> None:
    with closing(Sql(place, FRUITS)) as old:
        put(old, "apple")
        assert sorts(place) == [("apple", 1)]
        old.close()

        with (
            pytest.raises(NewerSchema, match="has schema 2, this SciBox knows 1: upgrade SciBox"),
            old.reading(),
        ):
            pass


def test_several_bring_tables_forward_at_once(place: str) -> None:
    with closing(Sql(place, FRUITS)) as old:
        put(old, "apple")
    start = threading.Barrier(4)

    def use(_: int) -> list[Row]:
        start.wait(60)
        return sorts(place)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(use, range(4))) == [[("apple", 1)]] * 4


def test_several_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Again and again, since only a few of such meetings are close enough to disturb each other."""
    start = threading.Barrier(6)

    def use(place: str, name: str) -> None:
        start.wait(60)
        with closing(Sql(place, FRUITS)) as sql:
            put(sql, name)

    with ThreadPoolExecutor(6) as threads:
        for number in range(100):
            place = f"sqlite://{tmp_path}/{number}.db"
            list(threads.map(use, [place] * 6, "abcdef"))
            with closing(Sql(place, FRUITS)) as sql, sql.reading() as db:
                assert db.rows("SELECT name FROM fruits ORDER BY name") == [(name,) for name in "abcdef"]


def test_a_migration_that_fails_leaves_the_tables_as_they_were(place: str) -> None:
    with closing(Sql(place, FRUITS)) as old:
        put(old, "apple")
    broken = Tables(
        "fruits", (*FRUITS.migrations, ("CREATE TABLE half (a BIGINT)", "INSERT INTO nowhere VALUES (1)"))
    )
    with pytest.raises(DatabaseAway), Sql(place, broken).reading():
        pass

    assert sorts(place) == [("apple", 1)]


def test_a_full_disk_is_a_database_that_is_away(tmp_path: Path) -> None:
    """The system lets this process write no file beyond a size, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(Sql(f"sqlite://{tmp_path}/tables.db", FRUITS)) as sql:
        put(sql, "apple")
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, hard))
            with pytest.raises(DatabaseAway), sql.writing() as db:
                db.run_many("INSERT INTO fruits (name) VALUES (?)", [(f"{n:01000}",) for n in range(5000)])
            assert names(sql) == ["apple"]  # reading goes on
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        put(sql, "pear")

        assert names(sql) == ["apple", "pear"]


# -- PostgreSQL alone: it may be stopped, hang, and hold several sets of tables


def test_a_server_that_is_started_again_is_used_at_once() -> None:
    with servers.folder("pg") as folder:
        port = servers.free_port()
        with servers.postgres(folder, port) as server:
            sql = Sql(server.url, FRUITS, patience_s=1.0)
            put(sql, "apple")
        with pytest.raises(DatabaseAway), sql.reading():
            pass
        with servers.postgres(folder, port):
            assert names(sql) == ["apple"]
        with servers.postgres(folder, port):  # the idle connection was cut meanwhile
            assert names(sql) == ["apple"]
        sql.close()


def test_a_server_that_hangs_is_away_within_seconds_and_comes_back() -> None:
    with servers.postgres() as server:
        sql = Sql(server.url, FRUITS, patience_s=1.0)
        put(sql, "apple")
        server.pause()
        begun = time.monotonic()
        for _ in range(2):  # an open connection, and a new one
            with pytest.raises(DatabaseAway), sql.reading() as db:
                db.rows("SELECT 1")
        assert time.monotonic() - begun < 30
        server.go_on()
        assert names(sql) == ["apple"]
        sql.close()


def test_sets_of_tables_share_a_database(postgres: str) -> None:
    url = servers.new_database(postgres)
    with KeyStore(url) as store, closing(Sql(url, FRUITS)) as sql:
        admin.create_key(store, owner="o", name="n", now=5.0)
        put(sql, "apple")

        assert len(store.all()) == 1


def test_no_password_in_what_is_said() -> None:
    sql = Sql(f"postgresql://scibox:hush-hush@127.0.0.1:{servers.free_port()}/x", FRUITS, patience_s=1.0)
    with pytest.raises(DatabaseAway) as caught, sql.reading():
        pass

    assert "refused" in str(caught.value)
    assert "hush" not in str(caught.value)


# -- keys and owners


def test_what_is_stored_comes_back(store: KeyStore) -> None:
    limits = Limits(calls_per_second=2, tokens_per_month=2**40)
    key, secret = admin.create_key(store, owner="o", name="n", now=5.0, days=2, models=["b", "a"])
    store.change_keys(lambda keys: [Key(**{**fields(keys[key.key_id]), "limits": limits})])
    store.put_owner(Owner("o", 2.5, Limits(calls_in_flight=3), 5.0, "a note: 100 %"))
    number, known = store.load()

    assert number == store.change()
    assert known.keys == {secrets.digest(secret): Key(**{**fields(key), "limits": limits})}
    assert known.owners == {"o": Owner("o", 2.5, Limits(calls_in_flight=3), 5.0, "a note: 100 %")}
    assert known.ends == {}
    assert store.all() == list(known.keys.values())
    assert key.expires_at == 5.0 + 2 * 86_400
    assert key.models == frozenset({"a", "b"})


def test_every_change_has_its_number(store: KeyStore, place: str) -> None:
    key, _ = admin.create_key(store, owner="o", name="n", now=5.0)
    changes: list[Callable[[], object]] = [
        lambda: admin.create_key(store, owner="o", name="n", now=5.0),
        lambda: store.put_owner(Owner("p")),
        lambda: store.change_owner("p", lambda owner: owner),
        lambda: store.change_keys(lambda keys: [keys[key.key_id]]),
        lambda: store.rotate(key.key_id, "d" * 64, "abcd", 9.0),
        lambda: store.end({key.key_id: 9.0}),
    ]
    with KeyStore(place) as reader:
        numbers = [reader.change()]
        for change in changes:
            change()
            numbers.append(reader.change())
        store.note_uses({key.key_id: 7.0})

        assert len(set(numbers)) == len(changes) + 1
        assert reader.change() == numbers[-1]  # a use changes nothing that a key may do


def test_many_keys_are_stored_with_their_owners_or_none(store: KeyStore) -> None:
    made = [(new_key(f"key_{n}", owner=f"team-{n % 7}"), f"{n:064x}") for n in range(200)]
    with pytest.raises(Clash):
        store.add([*made, (new_key("key_0"), "e" * 64)], [Owner("team-3", 3.0)])
    assert (store.all(), store.owners()) == ([], [])

    store.add(made, [Owner("team-3", 3.0)])
    assert {key.key_id for key in store.all()} == {f"key_{n}" for n in range(200)}
    assert {owner.name: owner.weight for owner in store.owners()} == {
        **{f"team-{n}": 1.0 for n in range(7)},
        "team-3": 3.0,
    }


def test_the_operator_is_made_once_though_several_try(place: str) -> None:
    start = threading.Barrier(4)

    def first(_: int) -> str | None:
        with KeyStore(place, patience_s=60) as store:  # disks of busy machines may take seconds
            start.wait(60)
            return admin.ensure_operator(store, 1.0)

    with ThreadPoolExecutor(4) as threads:
        made = [secret for secret in threads.map(first, range(4)) if secret is not None]

    with KeyStore(place) as store:
        assert len(made) == 1
        assert [key.role for key in store.load()[1].keys.values()] == ["operator"]
        assert secrets.digest(made[0]) in store.load()[1].keys


def test_a_changed_key_keeps_what_may_not_change(store: KeyStore) -> None:
    key, _ = admin.create_key(store, owner="o", name="n", now=5.0)
    store.end({key.key_id: 7.0})
    store.change_keys(lambda keys: [new_key(key.key_id, owner="p", is_enabled=False, name="m")])
    [changed] = store.all()

    assert (changed.owner, changed.name, changed.is_enabled) == ("p", "m", False)
    assert (changed.revoked_at, changed.last_four) == (7.0, key.last_four)
    assert [owner.name for owner in store.owners()] == ["o", "p"]
    with pytest.raises(NoSuchKey, match="key_none"):
        store.change_keys(lambda keys: [new_key("key_none")])
    with pytest.raises(NoSuchOwner, match="nobody"):
        store.change_owner("nobody", lambda owner: owner)


def test_a_refused_change_changes_nothing(store: KeyStore) -> None:
    admin.create_key(store, owner="o", name="n", now=5.0)

    def refuse(keys: object) -> list[Key]:
        raise ZeroDivisionError

    before = store.load()
    with pytest.raises(ZeroDivisionError):
        store.change_keys(refuse)
    assert store.load() == before


def test_a_rotated_key_is_the_same_key_and_its_old_secrets_end(store: KeyStore) -> None:
    key, first = admin.create_key(store, owner="o", name="n", now=5.0)
    store.rotate(key.key_id, "b" * 64, "bbbb", old_until=100.0)
    store.rotate(key.key_id, "c" * 64, "cccc", old_until=200.0)
    known = store.load()[1]

    assert {known.keys[digest].key_id for digest in (secrets.digest(first), "b" * 64, "c" * 64)} == {
        key.key_id
    }
    assert known.ends == {secrets.digest(first): 100.0, "b" * 64: 200.0}  # the first stays as short as it was
    assert [found.last_four for found in store.all()] == ["cccc"]
    with pytest.raises(NoSuchKey):
        store.rotate("key_none", "d" * 64, "dddd", 1.0)


def test_what_has_ended_stays_ended_at_its_first_time(store: KeyStore) -> None:
    key, secret = admin.create_key(store, owner="o", name="n", now=5.0)
    store.rotate(key.key_id, "b" * 64, "bbbb", old_until=100.0)
    for at in (50.0, 70.0):
        store.end({key.key_id: at, secrets.digest(secret): at, "key_unknown": at})
    known = store.load()[1]

    assert [key.revoked_at for key in store.all()] == [50.0]
    assert known.ends == {secrets.digest(secret): 50.0}


def test_uses_are_kept_and_never_go_back(store: KeyStore) -> None:
    assert store.uses() == {}
    store.note_uses({"key_1": 5.0, "key_2": 6.0})
    store.note_uses({"key_1": 4.0, "key_2": 7.0})

    assert store.uses() == {"key_1": 5.0, "key_2": 7.0}


SCHEMA_1 = """
    CREATE TABLE keys (
        key_id     TEXT PRIMARY KEY,
        digest     TEXT NOT NULL UNIQUE,
        owner      TEXT NOT NULL,
        name       TEXT NOT NULL,
        role       TEXT NOT NULL CHECK (role IN ('operator', 'member')),
        last_four  TEXT NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL,
        revoked_at REAL,
        models     TEXT
    ) STRICT;
    INSERT INTO keys VALUES ('key_1', 'd1', 'operator', 'first start', 'operator', 'aaaa', 1.5, NULL, NULL, NULL);
    INSERT INTO keys VALUES ('key_2', 'd2', 'team', 'ci', 'member', 'bbbb', 2.5, 9.5, NULL, 'a' || char(10) || 'b');
    INSERT INTO keys VALUES ('key_3', 'd3', 'team', 'old', 'member', 'cccc', 2.0, NULL, 3.5, NULL);
    PRAGMA user_version = 1;
"""


def test_keys_of_the_first_schema_are_brought_forward(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "keys.db")
    db.executescript(SCHEMA_1)
    db.close()
    with KeyStore(f"sqlite://{tmp_path}/keys.db") as store:
        known = store.load()[1]
        store.rotate("key_2", "d4", "dddd", old_until=8.0)  # and its tables are the new ones

    assert known.keys == {
        "d1": Key("key_1", "operator", "first start", "operator", "aaaa", 1.5),
        "d2": Key("key_2", "team", "ci", "member", "bbbb", 2.5, 9.5, models=frozenset({"a", "b"})),
        "d3": Key("key_3", "team", "old", "member", "cccc", 2.0, revoked_at=3.5),
    }
    assert known.owners == {
        "operator": Owner("operator", created_at=1.5),
        "team": Owner("team", created_at=2.0),
    }
    assert known.ends == {}


def new_key(key_id: str, owner: str = "o", name: str = "n", **more: bool) -> Key:
    return Key(key_id, owner, name, "member", "abcd", 5.0, **more)


def fields(key: Key) -> dict[str, object]:
    return {name: getattr(key, name) for name in key.__slots__}


def test_what_is_planned_sees_all_and_is_stored_whole_or_not_at_all(store: KeyStore) -> None:
    admin.create_key(store, owner="a", name="one", now=5.0)

    def fail(keys: Iterable[Key], owners: Mapping[str, Owner]) -> Plan:
        raise ValueError("no")

    def more(keys: Iterable[Key], owners: Mapping[str, Owner]) -> Plan:
        assert [key.name for key in keys] == ["one"]
        key = Key("key_two", "b", "two", "member", "abcd", 6.0)
        return [(key, "digest")], [replace(owners["a"], weight=3.0)]

    before = store.change()
    with pytest.raises(ValueError, match="no"):
        store.add_planned(fail)
    assert store.change() == before

    store.add_planned(more)

    assert store.change() != before
    assert [key.name for key in store.all()] == ["one", "two"]
    assert [(owner.name, owner.weight) for owner in store.owners()] == [("a", 3.0), ("b", 1.0)]


def test_an_owner_is_made_once_and_goes_when_its_keys_are_revoked(store: KeyStore) -> None:
    key, _ = admin.create_key(store, owner="a", name="one", now=5.0)

    assert store.add_owner(Owner("b", 2.0))
    assert not store.add_owner(Owner("b", 3.0))
    assert not store.remove_owner("a")
    store.end({key.key_id: 6.0})
    assert store.remove_owner("a")
    assert [(owner.name, owner.weight) for owner in store.owners()] == [("b", 2.0)]
    with pytest.raises(NoSuchOwner, match="a"):
        store.remove_owner("a")
    assert store.load()[1].keys  # the revoked key is known for ever
