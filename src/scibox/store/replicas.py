"""What operators have changed of the replicas while the service ran: added ones, and those that drain."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .keys import TABLES
from .sql import Row, Sql, Writer

_COLUMNS = "id, model, deployment, settings, is_draining, created_at"


@dataclass(frozen=True, slots=True)
class Kept:
    """One replica. `settings`: those of an added one, as JSON; empty: it stands in the configuration."""

    id: str
    model: str = ""
    deployment: int = 0
    settings: str = ""
    is_draining: bool = False
    created_at: float = 0.0  # Unix seconds

    @property
    def is_added(self) -> bool:
        """Whether it is there because an operator has added it."""
        return bool(self.settings)


class ReplicaStore:
    """The table beside the keys. Methods block, and raise `DatabaseAway` whatever is wrong with it."""

    def __init__(self, place: str, patience_s: float = 5.0) -> None:
        self._sql = Sql(place, TABLES, patience_s)

    def close(self) -> None:
        """Close the database; it is opened again when needed."""
        self._sql.close()

    def all(self) -> list[Kept]:
        """Every one, oldest first."""
        with self._sql.reading() as db:
            rows = db.rows(f"SELECT {_COLUMNS} FROM replicas ORDER BY created_at, id")  # noqa: S608 - a constant
        return [_kept(row) for row in rows]

    def put(self, kept: Kept) -> None:
        """Store one, over one of its id."""
        with self._sql.writing() as db:
            db.run("DELETE FROM replicas WHERE id = ?", kept.id)
            _insert(db, kept)

    def drain(self, replica_id: str, is_draining: bool, now: float) -> None:
        """Note that it is being drained, or not any more; who neither is nor was added is forgotten."""
        with self._sql.writing() as db:
            rows = db.rows(f"SELECT {_COLUMNS} FROM replicas WHERE id = ?", replica_id)  # noqa: S608
            before = _kept(rows[0]) if rows else Kept(replica_id, created_at=now)
            db.run("DELETE FROM replicas WHERE id = ?", replica_id)
            if is_draining or before.is_added:
                _insert(db, replace(before, is_draining=is_draining))

    def forget(self, replica_id: str) -> None:
        """Forget one; harmless where it is not there."""
        with self._sql.writing() as db:
            db.run("DELETE FROM replicas WHERE id = ?", replica_id)


def _insert(db: Writer, kept: Kept) -> None:
    db.run(
        f"INSERT INTO replicas ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
        *(kept.id, kept.model, kept.deployment, kept.settings, int(kept.is_draining), kept.created_at),
    )


def _kept(row: Row) -> Kept:
    replica_id, model, deployment, settings, is_draining, created_at = row
    return Kept(replica_id, model, deployment, settings, bool(is_draining), created_at)
