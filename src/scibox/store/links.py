"""What `sql.py` and the two databases under it share: a connection's contract, and the errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from scibox.core.errors import OperatorError

Value = str | int | float | bytes | None
Row = tuple[Any, ...]  # the SQL says what is in it


class DatabaseAway(Exception):
    """The database does not work now: locked, full, slow, unreachable, damaged; the text says why."""


class ConnectionLost(DatabaseAway):
    """The connection was cut at the other end; a new one may work at once."""


class Clash(Exception):
    """A row breaks a rule of its table: one with its key is there already."""


class NewerSchema(OperatorError):
    """The tables were written by a newer SciBox."""

    def __init__(self, where: str, version: int, known: int) -> None:
        super().__init__(
            f"{where} has schema {version}, this SciBox knows {known}: "
            "upgrade SciBox, or name another data folder."
        )


IN_KEY = "WITHOUT ROWID"  # of a new table: SQLite keeps its rows in the primary key; PostgreSQL cannot


@dataclass(frozen=True, slots=True)
class Tables:
    """A named set of tables. `migrations[n]` leads from schema n to n + 1; none is ever changed."""

    name: str
    migrations: tuple[tuple[str, ...], ...]

    @property
    def version(self) -> int:
        """The newest schema."""
        return len(self.migrations)


class Link(Protocol):
    """One open connection with tables of the newest schema; for one thread at a time."""

    @property
    def is_stale(self) -> bool:
        """Whether it leads to something that is no longer the database."""

    def begin(self, *, is_writing: bool) -> None:
        """Start a transaction: a writing one waits until it is the only one, a reading one sees one state."""

    def commit(self) -> None:
        """End it; what it wrote is on the disk."""

    def rollback(self) -> None:
        """End it as if it had not been."""

    def rows(self, statement: str, values: Sequence[Value]) -> list[Row]:
        """All rows of a query."""

    def run(self, statement: str, values: Sequence[Value]) -> int:
        """How many rows a statement has changed."""

    def run_many(self, statement: str, rows: Iterable[Sequence[Value]]) -> int:
        """How many rows a statement has changed, run once for each row of values."""

    def close(self) -> None:
        """Close it; harmless twice."""
