"""SQLite files: opened, migrated, written in transactions."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from scibox.core.errors import OperatorError

PATIENCE_S = 5.0  # for another process that writes


class NewerSchema(OperatorError):
    """The file was written by a newer SciBox."""

    def __init__(self, path: Path, version: int, known: int) -> None:
        super().__init__(
            f"{path} has schema {version}, this SciBox knows {known}: "
            "upgrade SciBox, or name another data folder."
        )


def connect(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    """An open database of the newest schema, readable by its user alone.

    WAL mode lets a reader go on while a writer works. Each migration is one statement, and brings the schema
    from its index to the next version (PRAGMA user_version).
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)
    try:
        path.chmod(0o600)
        db.execute("PRAGMA journal_mode = WAL")
        _migrate(db, path, migrations)
    except BaseException:
        db.close()
        raise
    return db


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
            db.execute("ROLLBACK")
        raise


class Database:
    """One file, used from several threads in turn; opened when first needed, and again after a failure.

    So a disk that is away takes down what is stored there, and comes back without a restart.
    """

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        self._path = path
        self._migrations = migrations
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for single statements."""
        with self._lock:
            if self._db is None:
                self._db = connect(self._path, self._migrations)
            try:
                yield self._db
            except sqlite3.Error:
                self._shut()
                raise

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The connection, within a transaction."""
        with self.reading() as db, transaction(db):
            yield db

    def close(self) -> None:
        """Close the file; the next transaction opens it again."""
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _migrate(db: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Bring an older file forward; several processes may try at once."""
    with transaction(db):
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(migrations):
            raise NewerSchema(path, version, len(migrations))
        for statement in migrations[version:]:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(migrations)}")
