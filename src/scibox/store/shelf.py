"""Files and batches on disk: what is known of them in SQLite, contents and results beside it.

A database of its own (`batches.db`): results are counted there often, and the keys' file is read again
whenever it has changed. The order of the steps is such that a crash between two of them leaves at most
content that no row names; `sweep` removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

from scibox.core.batches import Batch
from scibox.core.files import File, Page

from .sql import Reader, Sql, Tables, Writer

_MIGRATIONS = (
    """
    CREATE TABLE files (
        position   INTEGER PRIMARY KEY AUTOINCREMENT,
        file_id    TEXT NOT NULL UNIQUE,
        owner      TEXT NOT NULL,
        name       TEXT NOT NULL,
        purpose    TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL
    ) STRICT
    """,
    "CREATE INDEX files_by_owner ON files (owner, position)",
    # What is asked for stands in columns; the record is `core.batches.Batch` as JSON, whose new fields
    # have defaults.
    """
    CREATE TABLE batches (
        position      INTEGER PRIMARY KEY AUTOINCREMENT,
        batch_id      TEXT NOT NULL UNIQUE,
        owner         TEXT NOT NULL,
        input_file_id TEXT NOT NULL,
        is_over       INTEGER NOT NULL,
        record        TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX batches_by_owner ON batches (owner, position)",
    "CREATE INDEX batches_under_way ON batches (position) WHERE NOT is_over",
)
TABLES = Tables("batches", tuple((statement,) for statement in _MIGRATIONS))
STRAY_S = 3600.0  # content without a row may be an upload or results under way: only what is older is swept
_FILE = "file_id, owner, name, purpose, size_bytes, created_at, expires_at"
_record = msgspec.json.Decoder(Batch)


class NoSuchObject(Exception):
    """The owner has no object of that id."""


class InUse(Exception):
    """A batch that is under way reads the file; its id is the text."""


class OverLimit(Exception):
    """The owner's files would be larger than allowed."""


class Shelf:
    """The tables of files and batches, and the contents. Methods block: to be called from threads."""

    def __init__(self, folder: Path) -> None:
        self._db = Sql(f"sqlite://{folder.absolute()}/batches.db", TABLES)  # never the shared database
        self._contents = folder / "files"
        self._lock = folder / "batches.lock"
        self._claim: int | None = None

    def claim(self) -> bool:
        """Whether this process is the one that runs the batches of this folder, from now until it ends."""
        if self._claim is None:
            descriptor = os.open(self._lock, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._claim = descriptor
        return True

    def close(self) -> None:
        """Close the database, and let another process run the batches."""
        self._db.close()
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def content(self, file_id: str) -> Path:
        """Where a file's content lies, or will lie."""
        return self._contents / file_id

    def create(self, file_id: str) -> BinaryIO:
        """A new content to write to; only its user may read it."""
        self._contents.mkdir(parents=True, exist_ok=True, mode=0o700)
        return open(self.content(file_id), "xb", opener=_private)

    def open(self, file_id: str) -> BinaryIO | None:
        """A content to read; None when it is gone."""
        try:
            return self.content(file_id).open("rb")
        except FileNotFoundError:
            return None

    def add(self, file: File, limit_bytes: int) -> None:
        """Make a content that is written and synced known, or `OverLimit`."""
        with self._db.writing() as db:
            if _total(db, file.owner) + file.size_bytes > limit_bytes:
                raise OverLimit
            _insert(db, file)

    def total_bytes(self, owner: str) -> int:
        """The size of all files of an owner."""
        with self._db.reading() as db:
            return _total(db, owner)

    def file(self, owner: str, file_id: str, now: float) -> File:
        """One file of an owner that has not expired, or `NoSuchObject`."""
        with self._db.reading() as db:
            rows = db.rows(
                f"SELECT {_FILE} FROM files WHERE owner = ? AND file_id = ?",  # noqa: S608 - a constant
                owner,
                file_id,
            )
        file = File(*rows[0]) if rows else None
        if file is None or file.is_expired(now):
            raise NoSuchObject(file_id)
        return file

    def files(self, owner: str, page: Page, purpose: str | None, now: float) -> tuple[list[File], bool]:
        """A page of an owner's files, and whether more follow."""
        with self._db.reading() as db:
            rows = db.rows(
                f"SELECT {_FILE} FROM files WHERE owner = ? AND (? IS NULL OR purpose = ?) "  # noqa: S608
                f"AND (expires_at IS NULL OR expires_at > ?) {_stretch(db, 'files', owner, page)}",
                owner,
                purpose,
                purpose,
                now,
            )
        return [File(*row) for row in rows[: page.limit]], len(rows) > page.limit

    def remove(self, owner: str, file_id: str, now: float) -> None:
        """Forget a file and its content; `InUse` while a batch reads it."""
        self.file(owner, file_id, now)
        with self._db.writing() as db:
            users = db.rows("SELECT batch_id FROM batches WHERE NOT is_over AND input_file_id = ?", file_id)
            if users:
                raise InUse(users[0][0])
            db.run("DELETE FROM files WHERE file_id = ?", file_id)
        self.content(file_id).unlink(missing_ok=True)

    def add_batch(self, batch: Batch, most_under_way: int) -> None:
        """Store a batch; `OverLimit` when its owner has so many under way, `NoSuchObject` without input."""
        with self._db.writing() as db:
            if not db.rows("SELECT 1 FROM files WHERE file_id = ?", batch.input_file_id):
                raise NoSuchObject(batch.input_file_id)
            [(under_way,)] = db.rows(
                "SELECT count(*) FROM batches WHERE NOT is_over AND owner = ?", batch.owner
            )
            if under_way >= most_under_way:
                raise OverLimit
            db.run(
                "INSERT INTO batches (batch_id, owner, input_file_id, is_over, record) "
                "VALUES (?, ?, ?, ?, ?)",
                batch.batch_id,
                batch.owner,
                batch.input_file_id,
                int(batch.is_over),
                _text(batch),
            )

    def batch(self, owner: str, batch_id: str) -> Batch:
        """One batch of an owner, or `NoSuchObject`."""
        with self._db.reading() as db:
            return _batch(db, owner, batch_id)

    def batches(self, owner: str, page: Page) -> tuple[list[Batch], bool]:
        """A page of an owner's batches, and whether more follow."""
        with self._db.reading() as db:
            rows = db.rows(
                f"SELECT record FROM batches WHERE owner = ? {_stretch(db, 'batches', owner, page)}",  # noqa: S608
                owner,
            )
        return [_record.decode(row[0]) for row in rows[: page.limit]], len(rows) > page.limit

    def under_way(self) -> list[Batch]:
        """Every batch that is not over, oldest first."""
        with self._db.reading() as db:
            rows = db.rows("SELECT record FROM batches WHERE NOT is_over ORDER BY position")
        return [_record.decode(row[0]) for row in rows]

    def change(
        self, owner: str, batch_id: str, change: Callable[[Batch], Batch], made: Sequence[File] = ()
    ) -> Batch:
        """Replace a batch by what `change` makes of it; files that this brings appear with it."""
        with self._db.writing() as db:
            batch = change(_batch(db, owner, batch_id))
            db.run(
                "UPDATE batches SET is_over = ?, record = ? WHERE batch_id = ?",
                int(batch.is_over),
                _text(batch),
                batch_id,
            )
            for file in made:
                _insert(db, file)
        return batch

    def sweep(self, now: float) -> int:
        """Remove expired files, and old content that nothing names; returns how many files expired."""
        with self._db.writing() as db:
            gone = db.rows(
                "DELETE FROM files WHERE expires_at <= ? AND file_id NOT IN "
                "(SELECT input_file_id FROM batches WHERE NOT is_over) RETURNING file_id",
                now,
            )
            expired = {row[0] for row in gone}
            kept = {row[0] for row in db.rows("SELECT file_id FROM files")}
        for batch in self.under_way():
            kept |= {batch.reserved_output_id, batch.reserved_error_id}
        for path in self._contents.glob("*"):
            with contextlib.suppress(FileNotFoundError):  # removed in this moment
                is_stray = path.name not in kept and time.time() - path.stat().st_mtime > STRAY_S
                if path.name in expired or is_stray:
                    path.unlink()
        return len(expired)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _insert(db: Writer, file: File) -> None:
    db.run(
        f"INSERT INTO files ({_FILE}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (file_id) DO NOTHING",  # noqa: S608
        file.file_id,
        file.owner,
        file.name,
        file.purpose,
        file.size_bytes,
        file.created_at,
        file.expires_at,
    )


def _total(db: Reader, owner: str) -> int:
    [(total,)] = db.rows("SELECT coalesce(sum(size_bytes), 0) FROM files WHERE owner = ?", owner)
    return int(total)


def _batch(db: Reader, owner: str, batch_id: str) -> Batch:
    rows = db.rows("SELECT record FROM batches WHERE owner = ? AND batch_id = ?", owner, batch_id)
    if not rows:
        raise NoSuchObject(batch_id)
    return _record.decode(rows[0][0])


def _text(batch: Batch) -> str:
    return msgspec.json.encode(batch).decode()


def _stretch(db: Reader, table: Literal["files", "batches"], owner: str, page: Page) -> str:
    """The end of a SELECT that takes a page and one more row. It has no words of callers."""
    order = f"ORDER BY position {'ASC' if page.is_ascending else 'DESC'} LIMIT {page.limit + 1}"
    if page.after is None:
        return order
    column = "file_id" if table == "files" else "batch_id"
    rows = db.rows(
        f"SELECT position FROM {table} WHERE owner = ? AND {column} = ?",  # noqa: S608 - constants
        owner,
        page.after,
    )
    if not rows:
        raise NoSuchObject(page.after)
    return f"AND position {'>' if page.is_ascending else '<'} {int(rows[0][0])} {order}"
