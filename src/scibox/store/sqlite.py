"""A connection to an SQLite file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .links import Clash, DatabaseAway, NewerSchema, Row, Tables, Value

PAUSE_S = 0.005
STEPS = 50_000  # of SQLite's machine between two looks at the clock: some milliseconds


class File:
    """An open file with one set of tables, whose version is in PRAGMA user_version.

    Only its user may read it. WAL mode lets readers go on while one writes. Every statement ends within
    `patience_s`.
    """

    def __init__(self, path: Path, tables: Tables, patience_s: float) -> None:
        self._path = path
        self._patience_s = patience_s
        self._deadline = 0.0
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(
                path, timeout=patience_s, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise _away(error) from error
        try:
            with _translated():
                self._open(tables)
        except BaseException:
            self._db.close()
            raise

    def _open(self, tables: Tables) -> None:
        self._path.chmod(0o600)
        status = self._path.stat()
        self._inode = (status.st_dev, status.st_ino)
        self._db.set_progress_handler(self._is_late, STEPS)
        self._give_time()
        self._use_wal()
        if self._version() != tables.version:
            self._migrate(tables)

    def _use_wal(self) -> None:
        """Of several that open a new file at once some are told "locked": SQLite does not wait here."""
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or self._is_late():
                    raise
            time.sleep(PAUSE_S)

    @property
    def is_stale(self) -> bool:
        """Whether the path now names another file: one restored from a backup, or none."""
        try:
            status = self._path.stat()
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self._inode

    def begin(self, *, is_writing: bool) -> None:
        """Start a transaction."""
        self.run("BEGIN IMMEDIATE" if is_writing else "BEGIN", ())

    def commit(self) -> None:
        """End it; what it wrote is on the disk."""
        self.run("COMMIT", ())

    def rollback(self) -> None:
        """End it as if it had not been; a full disk has rolled it back already."""
        if self._db.in_transaction:
            self.run("ROLLBACK", ())

    def rows(self, statement: str, values: Sequence[Value]) -> list[Row]:
        """All rows of a query."""
        with _translated():
            self._give_time()
            return self._db.execute(statement, values).fetchall()

    def run(self, statement: str, values: Sequence[Value]) -> int:
        """How many rows a statement has changed."""
        with _translated():
            self._give_time()
            return self._db.execute(statement, values).rowcount

    def run_many(self, statement: str, rows: Iterable[Sequence[Value]]) -> int:
        """How many rows a statement has changed, run once for each row of values."""
        with _translated():
            self._give_time()
            return self._db.executemany(statement, rows).rowcount

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def _give_time(self) -> None:
        self._deadline = time.monotonic() + self._patience_s

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _migrate(self, tables: Tables) -> None:
        """Bring an older file forward, however long it takes; several processes may try at once."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._deadline = float("inf")
            version = self._version()
            if version > tables.version:
                raise NewerSchema(str(self._path), version, tables.version)
            for statements in tables.migrations[version:]:
                for statement in statements:
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {tables.version}")
            self._db.execute("COMMIT")
        except BaseException:
            self.rollback()
            raise


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise Clash(str(error)) from error
    except sqlite3.ProgrammingError:
        raise
    except (OSError, sqlite3.Error) as error:
        raise _away(error) from error


def _away(error: Exception) -> DatabaseAway:
    """Why, without the machine's paths."""
    if isinstance(error, OSError) and error.errno is not None:
        return DatabaseAway(os.strerror(error.errno))
    if str(error) == "interrupted":
        return DatabaseAway("a statement took too long")
    return DatabaseAway(str(error))
