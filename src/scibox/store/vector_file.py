"""Embeddings on disk: one SQLite file of bounded size that forgets the oldest first. It is only a cache.

No text is in it, only keyed digests of texts; the key is the file's own and is made with it.
"""

from __future__ import annotations

import math
import secrets
import sqlite3
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from scibox.core.types import Vector

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS vectors (
        id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL
    );
    CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""
_AT_ONCE = 500  # SQLite allows 999 parameters in old versions
_KEPT = 0.9  # of the limit, when the file has grown over it: so that this is rarely done
_HEAD = struct.Struct("<II")  # LLM tokens, CRC-32 of them and the floats


class VectorFile:
    """The file; methods block and raise sqlite3.Error. For one thread at a time."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._db = self._open()
        self.secret = self._secret(secrets.token_bytes(32))

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        """What is there of these keys."""
        found = {}
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, value FROM vectors WHERE key IN ({marks})"  # noqa: S608 - question marks
            for key, value in self._db.execute(query, some):
                if vector := _unpack(value):
                    found[key] = vector
        return found

    def put(self, vectors: Mapping[bytes, Vector]) -> None:
        """Keep these, and forget the oldest where the file has grown over its limit."""
        with self._db:
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT OR REPLACE INTO vectors (key, value) VALUES (?, ?)",
                [(key, _pack(vector)) for key, vector in vectors.items()],
            )
        while (used := self._used_bytes()) > self._limit_bytes:
            if not self._forget(1.0 - _KEPT * self._limit_bytes / used):
                break

    def renew(self) -> None:
        """Begin again with an empty file under the same key, after it was found damaged."""
        self.close()
        remove(self._path)
        self._db = self._open()
        self._secret(self.secret)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            self._path.chmod(0o600)
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA journal_size_limit = 4194304")
            db.executescript(_SCHEMA)
        except BaseException:
            db.close()
            raise
        return db

    def _secret(self, fresh: bytes) -> bytes:
        """The key of the digests: the file's, or `fresh` if it has none yet."""
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", (fresh,))
        return bytes(self._db.execute("SELECT value FROM meta WHERE name = 'secret'").fetchone()[0])

    def _forget(self, part: float) -> int:
        oldest, newest = self._db.execute("SELECT min(id), max(id) FROM vectors").fetchone()
        if oldest is None:
            return 0
        upto = oldest + math.ceil((newest - oldest + 1) * part)
        gone = self._db.execute("DELETE FROM vectors WHERE id < ?", (upto,)).rowcount
        self._db.execute("PRAGMA incremental_vacuum").fetchall()
        return gone

    def _used_bytes(self) -> int:
        pages, free, size = (
            int(self._db.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size


def remove(path: Path) -> None:
    """Delete the file and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _pack(vector: Vector) -> bytes:
    return _HEAD.pack(vector.prompt_tokens, _sum(vector.floats, vector.prompt_tokens)) + vector.floats


def _unpack(value: bytes) -> Vector | None:
    """None for what a disk has damaged: a wrong vector is worse than none."""
    if len(value) < _HEAD.size:
        return None
    prompt_tokens, crc = _HEAD.unpack_from(value)
    floats = value[_HEAD.size :]
    return Vector(floats, prompt_tokens) if crc == _sum(floats, prompt_tokens) else None


def _sum(floats: bytes, prompt_tokens: int) -> int:
    return zlib.crc32(floats, prompt_tokens)
