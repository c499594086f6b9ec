"""Keys in SQLite: one small file, several processes (the service reads, `scibox keys` writes).

Secrets are never stored, only their digests.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from scibox.core.errors import OperatorError
from scibox.core.types import Key

from .database import connect

MIGRATIONS = (
    """
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
    """,
)
_COLUMNS = "key_id, owner, name, role, last_four, created_at, expires_at, revoked_at, models"


class KeyStore:
    """The table of keys. Methods block; the service calls them from a thread."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = connect(path, MIGRATIONS)
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise OperatorError(
                f"{path} cannot be opened ({reason}): look to its folder's permissions and its disk, or name "
                "another data folder in SCIBOX_DATA."
            ) from error

    def __enter__(self) -> KeyStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def version(self) -> int:
        """A number that changes whenever another process has written."""
        row = self._db.execute("PRAGMA data_version").fetchone()
        return int(row[0])

    def by_digest(self) -> Mapping[str, Key]:
        """Every key, revoked ones too, under the digest of its secret."""
        rows = self._db.execute(f"SELECT digest, {_COLUMNS} FROM keys")  # noqa: S608 - a constant
        return {row[0]: _key(row[1:]) for row in rows}

    def all(self) -> list[Key]:
        """Every key, oldest first."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, key_id")  # noqa: S608
        return [_key(row) for row in rows]

    def add(self, key: Key, digest: str) -> None:
        """Store a new key."""
        models = None if key.models is None else "\n".join(sorted(key.models))
        self._db.execute(
            f"INSERT INTO keys (digest, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            (
                digest,
                key.key_id,
                key.owner,
                key.name,
                key.role,
                key.last_four,
                key.created_at,
                key.expires_at,
                key.revoked_at,
                models,
            ),
        )

    def revoke(self, key_id: str, now: float) -> Key | None:
        """Mark a key revoked at `now` (Unix seconds) unless it was; None where there is no such key."""
        self._db.execute(
            "UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE key_id = ?", (now, key_id)
        )
        row = self._db.execute(
            f"SELECT {_COLUMNS} FROM keys WHERE key_id = ?",  # noqa: S608
            (key_id,),
        ).fetchone()
        return None if row is None else _key(row)


def _key(row: tuple[str, str, str, str, str, float, float | None, float | None, str | None]) -> Key:
    key = Key(
        key_id=row[0],
        owner=row[1],
        name=row[2],
        role="operator" if row[3] == "operator" else "member",
        last_four=row[4],
        created_at=row[5],
        expires_at=row[6],
        revoked_at=row[7],
    )
    return key if row[8] is None else replace(key, models=frozenset(row[8].split("\n")))
