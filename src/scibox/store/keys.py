"""Owners, keys and the digests of their secrets: what the operator's commands write and the service reads.

Secrets are never stored. Rows are never deleted: a key that was revoked is known as such for ever, and a
database without any key has lost them. A subject that ends (a key's id, or a digest that was replaced) never
opens again, whoever says otherwise later: `end` only ever brings an end nearer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType

import msgspec

from scibox.core.types import Key, Limits, Owner

from .sql import DatabaseAway, Reader, Row, Sql, Tables, Writer

TABLES = Tables(
    "keys",
    (
        (
            """
            CREATE TABLE keys (
                key_id     TEXT PRIMARY KEY,
                digest     TEXT NOT NULL UNIQUE,
                owner      TEXT NOT NULL,
                name       TEXT NOT NULL,
                role       TEXT NOT NULL,
                last_four  TEXT NOT NULL,
                created_at DOUBLE PRECISION NOT NULL,
                expires_at DOUBLE PRECISION,
                revoked_at DOUBLE PRECISION,
                models     TEXT
            )
            """,
        ),
        (
            """
            CREATE TABLE owners (
                name       TEXT PRIMARY KEY,
                weight     DOUBLE PRECISION NOT NULL,
                limits     TEXT NOT NULL,
                created_at DOUBLE PRECISION NOT NULL,
                note       TEXT NOT NULL
            )
            """,
            """
            INSERT INTO owners (name, weight, limits, created_at, note)
            SELECT owner, 1.0, '{}', min(created_at), '' FROM keys GROUP BY owner
            """,
            """
            CREATE TABLE secrets (
                digest      TEXT PRIMARY KEY,
                key_id      TEXT NOT NULL,
                valid_until DOUBLE PRECISION
            )
            """,
            "INSERT INTO secrets (digest, key_id) SELECT digest, key_id FROM keys",
            "CREATE INDEX secrets_by_key ON secrets (key_id)",
            "ALTER TABLE keys RENAME TO keys_of_schema_1",
            """
            CREATE TABLE keys (
                key_id     TEXT PRIMARY KEY,
                owner      TEXT NOT NULL,
                name       TEXT NOT NULL,
                role       TEXT NOT NULL,
                last_four  TEXT NOT NULL,
                created_at DOUBLE PRECISION NOT NULL,
                expires_at DOUBLE PRECISION,
                revoked_at DOUBLE PRECISION,
                models     TEXT,
                is_enabled BIGINT NOT NULL,
                limits     TEXT NOT NULL
            )
            """,
            """
            INSERT INTO keys SELECT key_id, owner, name, role, last_four, created_at, expires_at, revoked_at,
                models, 1, '{}' FROM keys_of_schema_1
            """,
            "DROP TABLE keys_of_schema_1",
            # Apart from the keys: it is written often, and no change of what a key may do.
            "CREATE TABLE uses (key_id TEXT PRIMARY KEY, last_used_at DOUBLE PRECISION NOT NULL)",
            "CREATE TABLE changes (number BIGINT NOT NULL)",
            "INSERT INTO changes VALUES (1)",
        ),
        (
            # What operators have changed of the replicas while the service ran (`replicas.py`).
            """
            CREATE TABLE replicas (
                id          TEXT PRIMARY KEY,
                model       TEXT NOT NULL,
                deployment  BIGINT NOT NULL,
                settings    TEXT NOT NULL,
                is_draining BIGINT NOT NULL,
                created_at  DOUBLE PRECISION NOT NULL
            )
            """,
        ),
    ),
)
_KEY = "key_id, owner, name, role, last_four, created_at, expires_at, revoked_at, models, is_enabled, limits"
_OWNER = "name, weight, limits, created_at, note"


class NoSuchKey(Exception):
    """There is no key of that id; the id is the text."""


class NoSuchOwner(Exception):
    """There is no owner of that name; the name is the text."""


@dataclass(frozen=True, slots=True)
class Known:
    """All that the service must know to let callers in."""

    keys: Mapping[str, Key]  # under the digests of their secrets; a key may have several
    owners: Mapping[str, Owner] = field(default_factory=dict)  # by name
    ends: Mapping[str, float] = field(default_factory=dict)  # of replaced digests: Unix seconds


Plan = tuple[Iterable[tuple[Key, str]], Iterable[Owner]]  # new keys with their digests; owners


class KeyStore:
    """The tables at a place (see `Sql`). Methods block, and raise `DatabaseAway` whatever is wrong with it.

    `now` and other times are Unix seconds.
    """

    def __init__(self, place: str, patience_s: float = 5.0) -> None:
        self._sql = Sql(place, TABLES, patience_s)

    def __enter__(self) -> KeyStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; it is opened again when needed."""
        self._sql.close()

    def change(self) -> int:
        """A number that differs after each change of keys and owners, whoever made it. Cheap to ask."""
        with self._sql.reading() as db:
            return _change(db)

    def load(self) -> tuple[int, Known]:
        """Everything, and the number of the last change in it."""
        with self._sql.reading() as db:
            number, keys = _change(db), _keys(db)
            secrets = db.rows("SELECT digest, key_id, valid_until FROM secrets")
            owners = [_owner(row) for row in db.rows(f"SELECT {_OWNER} FROM owners")]  # noqa: S608
        return number, Known(
            {digest: keys[key_id] for digest, key_id, _ in secrets if key_id in keys},
            {owner.name: owner for owner in owners},
            {digest: until for digest, _, until in secrets if until is not None},
        )

    def all(self) -> list[Key]:
        """Every key, revoked ones too, oldest first."""
        with self._sql.reading() as db:
            return list(_keys(db).values())

    def owners(self) -> list[Owner]:
        """Every owner, by name."""
        with self._sql.reading() as db:
            rows = db.rows(f"SELECT {_OWNER} FROM owners ORDER BY name")  # noqa: S608 - a constant
        return [_owner(row) for row in rows]

    def uses(self) -> Mapping[str, float]:
        """When each key that was ever used was used last, by its id; some seconds late."""
        with self._sql.reading() as db:
            return dict(db.rows("SELECT key_id, last_used_at FROM uses"))

    def add(self, made: Iterable[tuple[Key, str]], owners: Iterable[Owner] = ()) -> None:
        """Store new keys with the digests of their secrets, all or none.

        `owners` are stored as they are, over what is there; an owner who is in neither place is made.
        """
        with self._sql.writing() as db:
            _add(db, made, owners)

    def add_planned(self, plan: Callable[[Iterable[Key], Mapping[str, Owner]], Plan]) -> None:
        """Store what `plan` makes of all keys and of the owners by name, as `add` does; or nothing."""
        with self._sql.writing() as db:
            owners = map(_owner, db.rows(f"SELECT {_OWNER} FROM owners"))  # noqa: S608 - a constant
            _add(db, *plan(_keys(db).values(), {owner.name: owner for owner in owners}))

    def add_first(self, key: Key, digest: str) -> bool:
        """Store this key if there is none at all; whether it was stored. Several may try at once."""
        with self._sql.writing() as db:
            if db.rows("SELECT 1 FROM keys LIMIT 1"):
                return False
            _add(db, [(key, digest)], ())
            return True

    def change_keys(self, change: Callable[[Mapping[str, Key]], Iterable[Key]]) -> list[Key]:
        """Store what `change` makes of the keys that it is given, all of them by id; nothing if it raises.

        It returns only those that are to change; `revoked_at` and `last_four` stay as they are. `NoSuchKey`.
        """
        with self._sql.writing() as db:
            before = _keys(db)
            after = list(change(before))
            for key in after:
                if key.key_id not in before:
                    raise NoSuchKey(key.key_id)
                db.run(
                    "UPDATE keys SET owner = ?, name = ?, role = ?, expires_at = ?, models = ?, "
                    "is_enabled = ?, limits = ? WHERE key_id = ?",
                    key.owner,
                    key.name,
                    key.role,
                    key.expires_at,
                    _models(key),
                    int(key.is_enabled),
                    _json(key.limits),
                    key.key_id,
                )
                _make_owner(db, Owner(key.owner, created_at=key.created_at))
            _count_change(db)
        return after

    def change_owner(self, name: str, change: Callable[[Owner], Owner]) -> Owner:
        """Store what `change` makes of an owner, whose name stays; `NoSuchOwner`."""
        with self._sql.writing() as db:
            rows = db.rows(f"SELECT {_OWNER} FROM owners WHERE name = ?", name)  # noqa: S608 - a constant
            if not rows:
                raise NoSuchOwner(name)
            owner = replace(change(_owner(rows[0])), name=name)
            _put_owner(db, owner)
            _count_change(db)
        return owner

    def put_owner(self, owner: Owner) -> None:
        """Store an owner, over one of that name."""
        with self._sql.writing() as db:
            _put_owner(db, owner)
            _count_change(db)

    def add_owner(self, owner: Owner) -> bool:
        """Store an owner if there is none of that name; whether it was stored."""
        with self._sql.writing() as db:
            is_new = _make_owner(db, owner)
            _count_change(db)
        return is_new

    def remove_owner(self, name: str) -> bool:
        """Forget an owner unless it has keys that are not revoked; whether it is gone. `NoSuchOwner`."""
        with self._sql.writing() as db:
            if db.rows("SELECT 1 FROM keys WHERE owner = ? AND revoked_at IS NULL LIMIT 1", name):
                return False
            if not db.run("DELETE FROM owners WHERE name = ?", name):
                raise NoSuchOwner(name)
            _count_change(db)
        return True

    def rotate(self, key_id: str, digest: str, last_four: str, old_until: float) -> Key:
        """Give a key a new secret; the ones before open until `old_until` at the latest. `NoSuchKey`.

        Its id, its limits and what it has used stay.
        """
        with self._sql.writing() as db:
            if not db.run("UPDATE keys SET last_four = ? WHERE key_id = ?", last_four, key_id):
                raise NoSuchKey(key_id)
            db.run(
                "UPDATE secrets SET valid_until = ? "
                "WHERE key_id = ? AND (valid_until IS NULL OR valid_until > ?)",
                old_until,
                key_id,
                old_until,
            )
            db.run("INSERT INTO secrets (digest, key_id) VALUES (?, ?)", digest, key_id)
            _count_change(db)
            return _keys(db)[key_id]

    def end(self, ends: Mapping[str, float]) -> None:
        """Revoke keys and end digests at these times, unless they have ended before; others stay."""
        with self._sql.writing() as db:
            at = list(ends.items())
            db.run_many(
                "UPDATE keys SET revoked_at = ? WHERE key_id = ? AND revoked_at IS NULL",
                [(time, subject) for subject, time in at],
            )
            db.run_many(
                "UPDATE secrets SET valid_until = ? WHERE digest = ? "
                "AND (valid_until IS NULL OR valid_until > ?)",
                [(time, subject, time) for subject, time in at],
            )
            _count_change(db)

    def note_uses(self, used: Mapping[str, float]) -> None:
        """Keep when keys were used last; earlier times than those kept change nothing."""
        with self._sql.writing() as db:
            db.run_many(
                "INSERT INTO uses (key_id, last_used_at) VALUES (?, ?) ON CONFLICT (key_id) "
                "DO UPDATE SET last_used_at = excluded.last_used_at "
                "WHERE uses.last_used_at < excluded.last_used_at",
                list(used.items()),
            )


def _add(db: Writer, made: Iterable[tuple[Key, str]], owners: Iterable[Owner]) -> None:
    for owner in owners:
        _put_owner(db, owner)
    for key, digest in made:
        _make_owner(db, Owner(key.owner, created_at=key.created_at))
        db.run(f"INSERT INTO keys ({_KEY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", *_values(key))  # noqa: S608
        db.run("INSERT INTO secrets (digest, key_id) VALUES (?, ?)", digest, key.key_id)
    _count_change(db)


def _put_owner(db: Writer, owner: Owner) -> None:
    _make_owner(db, owner)
    db.run(
        "UPDATE owners SET weight = ?, limits = ?, note = ? WHERE name = ?",
        owner.weight,
        _json(owner.limits),
        owner.note,
        owner.name,
    )


def _make_owner(db: Writer, owner: Owner) -> bool:
    """Store an owner if there is none of that name; whether it was stored."""
    changed = db.run(
        f"INSERT INTO owners ({_OWNER}) VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING",  # noqa: S608
        owner.name,
        owner.weight,
        _json(owner.limits),
        owner.created_at,
        owner.note,
    )
    return changed == 1


def _change(db: Reader) -> int:
    return int(db.rows("SELECT coalesce(max(number), 0) FROM changes")[0][0])


def _count_change(db: Writer) -> None:
    db.run("UPDATE changes SET number = number + 1")


def _keys(db: Reader) -> dict[str, Key]:
    rows = db.rows(f"SELECT {_KEY} FROM keys ORDER BY created_at, key_id")  # noqa: S608 - a constant
    return {row[0]: _key(row) for row in rows}


def _key(row: Row) -> Key:
    values = dict(zip(_KEY.split(", "), row, strict=True))
    values["models"] = None if row[8] is None else list(filter(None, str(row[8]).split("\n")))
    values["is_enabled"] = bool(row[9])
    with _readable("key", row[0]):
        return msgspec.convert({**values, "limits": msgspec.json.decode(row[10])}, Key)


def _values(key: Key) -> Sequence[str | float | int | None]:
    return (
        *(key.key_id, key.owner, key.name, key.role, key.last_four),
        *(key.created_at, key.expires_at, key.revoked_at),
        *(_models(key), int(key.is_enabled), _json(key.limits)),
    )


def _models(key: Key) -> str | None:
    return None if key.models is None else "\n".join(sorted(key.models))


def _owner(row: Row) -> Owner:
    values = dict(zip(_OWNER.split(", "), row, strict=True))
    with _readable("owner", row[0]):
        return msgspec.convert({**values, "limits": msgspec.json.decode(row[2])}, Owner)


@contextlib.contextmanager
def _readable(what: str, name: object) -> Iterator[None]:
    try:
        yield
    except msgspec.MsgspecError as error:
        raise DatabaseAway(f"the row of {what} {name} cannot be read: {error}") from error


def _json(limits: Limits) -> str:
    return msgspec.json.encode(
        {name: value for name in limits.__slots__ if (value := getattr(limits, name)) is not None}
    ).decode()
