"""One layer over SQLite and PostgreSQL: transactions of SQL that both understand, and one error for trouble.

SQL for both: `?` placeholders (none in quotes); BIGINT, DOUBLE PRECISION, TEXT (no STRICT, no AUTOINCREMENT);
0 and 1 for booleans; `INSERT ... ON CONFLICT (...) DO NOTHING | DO UPDATE SET a = excluded.a`, RETURNING,
coalesce, CASE, WITH, window functions. Not in both: `INSERT OR ...`, max(a, b) of two values, ifnull,
strftime, rowid, an alias of SELECT in WHERE or HAVING, a quotient of sums without CAST.

A transaction has a connection of its own, so a long report keeps no writer waiting. Transactions that write
to one set of tables follow one another. All methods block, and may be used from any thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from scibox.core.errors import OperatorError

from .links import Clash, ConnectionLost, DatabaseAway, Link, NewerSchema, Row, Tables, Value
from .sqlite import File

__all__ = ["Clash", "DatabaseAway", "NewerSchema", "Reader", "Row", "Sql", "Tables", "Value", "Writer"]

PATIENCE_S = 5.0  # for a lock of another process, and for a statement
CONNECTIONS = 4  # at most, per set of tables and process

Open: TypeAlias = Callable[[], Link]


class Reader:
    """A transaction that sees one state of the database."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def rows(self, statement: str, *values: Value) -> list[Row]:
        """All rows of a query."""
        return self._link.rows(statement, values)


class Writer(Reader):
    """A transaction that changes the database: as a whole, or not at all."""

    def run(self, statement: str, *values: Value) -> int:
        """Run a statement; how many rows it has changed. `Clash` where a row breaks a rule of its table."""
        return self._link.run(statement, values)

    def run_many(self, statement: str, rows: Iterable[Sequence[Value]]) -> int:
        """Run a statement once for each row of values; how many rows that has changed."""
        return self._link.run_many(statement, rows)


class Sql:
    """A set of tables at a place: `sqlite:///absolute/path.db` or `postgresql://...`.

    Connections are opened when needed and again after trouble; older tables are brought to the newest schema
    (`NewerSchema` where they are past it). Whatever is wrong with the database is `DatabaseAway`, within
    about `patience_s`.
    """

    def __init__(self, place: str, tables: Tables, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._open = _opener(place, tables, patience_s)
        self._room = threading.BoundedSemaphore(CONNECTIONS)
        self._idle: list[Link] = []  # the one used last is taken first; list methods are atomic

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reader]:
        """A transaction that reads."""
        with self._transaction(is_writing=False) as link:
            yield Reader(link)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writer]:
        """A transaction that writes; it is undone by any exception that leaves it."""
        with self._transaction(is_writing=True) as link:
            yield Writer(link)

    def close(self) -> None:
        """Close what is open and idle; the next transaction opens again."""
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()

    @contextlib.contextmanager
    def _transaction(self, *, is_writing: bool) -> Iterator[Link]:
        if not self._room.acquire(timeout=self._patience_s):
            raise DatabaseAway(f"{CONNECTIONS} transactions are under way and do not end")
        try:
            link = self._begin(is_writing)
            try:
                yield link
                link.commit()
            except DatabaseAway:
                link.close()
                raise
            except BaseException:
                self._undo(link)
                raise
            self._idle.append(link)
        finally:
            self._room.release()

    def _begin(self, is_writing: bool) -> Link:
        """A connection within a transaction: an idle one where one works, else a new one."""
        while True:
            try:
                link = self._idle.pop()
            except IndexError:
                break
            try:
                if not link.is_stale:
                    link.begin(is_writing=is_writing)
                    return link
            except ConnectionLost:
                pass  # the server was started again: so were the others cut
            except BaseException:
                link.close()
                raise
            link.close()
        link = self._open()
        try:
            link.begin(is_writing=is_writing)
        except BaseException:
            link.close()
            raise
        return link

    def _undo(self, link: Link) -> None:
        try:
            link.rollback()
        except DatabaseAway:
            link.close()
        else:
            self._idle.append(link)


def _opener(place: str, tables: Tables, patience_s: float) -> Open:
    if place.startswith("sqlite:///"):
        path = Path(place.removeprefix("sqlite://"))
        return lambda: File(path, tables, patience_s)
    if place.startswith(("postgresql://", "postgres://")):
        try:
            from . import postgres  # noqa: PLC0415 - of the extra `postgres`
        except ImportError as error:
            raise OperatorError(
                "PostgreSQL takes a package that is not installed: pip install 'scibox[postgres]'."
            ) from error
        postgres.check(place)
        return lambda: postgres.Server(place, tables, patience_s)
    raise OperatorError(
        "shared.database_url takes an address of PostgreSQL: postgresql://user:password@host/name."
    )
