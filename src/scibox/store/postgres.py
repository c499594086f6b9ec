"""A connection to PostgreSQL, by psycopg 3 (extra `postgres`)."""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict

from scibox.core.errors import OperatorError

from .links import IN_KEY, Clash, ConnectionLost, DatabaseAway, NewerSchema, Row, Tables, Value

T = TypeVar("T")
MIGRATION_S = 3600.0
_LOCK = 0x5C1B0  # of advisory locks: "SciBo(x)"
_VERSIONS = "CREATE TABLE IF NOT EXISTS scibox_schemas (name TEXT PRIMARY KEY, version BIGINT NOT NULL)"
_MARKS = re.compile(r"'(?:[^']|'')*'|\?|%")


class _Number(Loader):
    """NUMERIC, such as the sum of BIGINT, as SQLite has it: an int where it is one, else a float."""

    def load(self, data: Any) -> int | float:
        text = bytes(data).decode()
        return int(text) if text.lstrip("-").isdigit() else float(text)


class _Connection(psycopg.Connection[Row]):
    """Waits for the server until `deadline` (monotonic seconds) at most: it may hang, or the network may."""

    deadline = float("inf")

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **options: Any) -> T:
        return super().wait(self._until_deadline(gen), *arguments, **options)

    def _until_deadline(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """psycopg wakes its generators every 0.1 s."""
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if time.monotonic() > self.deadline:
                    self.pgconn.finish()
                    raise DatabaseAway("the database does not answer")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


class Server:
    """An open connection to a database with one set of tables, whose version is in `scibox_schemas`.

    Transactions that write to the same set of tables follow one another, as in an SQLite file.
    """

    def __init__(self, url: str, tables: Tables, patience_s: float) -> None:
        self._patience_s = patience_s
        self._tables = tables
        with _translated():
            self._db = _Connection.connect(
                url,
                autocommit=True,
                prepare_threshold=None,  # a pooler between us and the server forgets them
                cursor_factory=psycopg.ClientCursor,  # types of values are the server's to find, as in SQLite
                connect_timeout=max(2, round(patience_s)),  # 2 is libpq's smallest
                application_name="scibox",
            )
        self._db.adapters.register_loader("numeric", _Number)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def is_stale(self) -> bool:
        """Whether it was found closed."""
        return self._db.closed

    def begin(self, *, is_writing: bool) -> None:
        """Start a transaction."""
        limit = f"SET LOCAL statement_timeout = {round(self._patience_s * 1000)}"
        if is_writing:
            self.run(
                f"BEGIN; {limit}; SELECT pg_advisory_xact_lock({_LOCK}, hashtext(?))", [self._tables.name]
            )
        else:
            self.run(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {limit}", ())

    def commit(self) -> None:
        """End it; what it wrote is on the disk."""
        self.run("COMMIT", ())

    def rollback(self) -> None:
        """End it as if it had not been."""
        self.run("ROLLBACK", ())

    def rows(self, statement: str, values: Sequence[Value]) -> list[Row]:
        """All rows of a query."""
        with self._talking() as db, db.cursor() as cursor:
            return cursor.execute(_translate(statement), values).fetchall()

    def run(self, statement: str, values: Sequence[Value]) -> int:
        """How many rows a statement has changed."""
        with self._talking() as db, db.cursor() as cursor:
            return cursor.execute(_translate(statement), values).rowcount

    def run_many(self, statement: str, rows: Iterable[Sequence[Value]]) -> int:
        """How many rows a statement has changed, run once for each row of values."""
        with self._talking() as db, psycopg.Cursor(db) as cursor:  # sends them without waiting for each
            cursor.executemany(_translate(statement), rows)
            return cursor.rowcount

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(psycopg.Error):
            self._db.close()

    @contextlib.contextmanager
    def _talking(self, within_s: float | None = None) -> Iterator[_Connection]:
        # A second more than the server's own limit, whose word is the better one.
        self._db.deadline = time.monotonic() + (within_s or self._patience_s + 1.0)
        with _translated():
            yield self._db

    def _open(self) -> None:
        name, newest = self._tables.name, self._tables.version
        is_there = self.rows("SELECT to_regclass('scibox_schemas') IS NOT NULL", ())[0][0]
        if is_there and self.rows("SELECT version FROM scibox_schemas WHERE name = ?", [name]) == [(newest,)]:
            return
        with self._talking(MIGRATION_S) as db, db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(%s, 0)", [_LOCK])  # one at a time, of all sets
            db.execute(_VERSIONS)
            found = db.execute("SELECT version FROM scibox_schemas WHERE name = %s", [name]).fetchone()
            version = int(found[0]) if found else 0
            if version > newest:
                raise NewerSchema(f"The database ({name})", version, newest)
            for statements in self._tables.migrations[version:]:
                for statement in statements:
                    db.execute(_translate(statement.replace(IN_KEY, "")), ())
            db.execute(
                "INSERT INTO scibox_schemas VALUES (%s, %s) "
                "ON CONFLICT (name) DO UPDATE SET version = excluded.version",
                [name, newest],
            )


def check(url: str) -> None:
    """Raise an OperatorError for what is no address of a database."""
    try:
        conninfo_to_dict(url)
    except psycopg.Error as error:
        raise OperatorError(
            f"shared.database_url is no address of PostgreSQL ({str(error).strip()}): write "
            "postgresql://user:password@host/name."
        ) from error


@functools.lru_cache(maxsize=512)
def _translate(statement: str) -> str:
    """`?` placeholders as psycopg wants them; percent signs are no placeholders of ours."""
    return _MARKS.sub(lambda mark: "%s" if mark[0] == "?" else mark[0].replace("%", "%%"), statement)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.IntegrityError as error:
        raise Clash(_first_line(error)) from error
    except psycopg.DataError:
        raise
    except psycopg.errors.QueryCanceled as error:
        raise DatabaseAway("a statement took too long") from error
    except psycopg.OperationalError as error:
        is_cut = error.sqlstate is None or error.sqlstate[:2] in {"08", "57"}
        raise (ConnectionLost if is_cut else DatabaseAway)(_first_line(error)) from error
    except psycopg.Error as error:
        raise DatabaseAway(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
