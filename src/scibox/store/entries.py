"""Entries of the ledger and their sums, in SQLite or PostgreSQL by the same statements.

An entry is counted exactly once, by its request id and by how far each journal was read (PROMISES R5). Sums
are changed in the transaction that inserts the entries, and only for those that were not there. Entries grow
old and are removed; sums and the marks of journals stay, so a journal that comes back is not counted again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import structs

from scibox.core.entries import Entry
from scibox.core.sums import LATEST, Dimension, Group, Scope, Span, Sums
from scibox.core.types import Ending, Usage

from . import sums
from .links import IN_KEY
from .sql import Reader, Row, Sql, Tables, Value, Writer

_CREATE = (
    """
    CREATE TABLE entries (
        request_id TEXT PRIMARY KEY,
        opened_at DOUBLE PRECISION NOT NULL,
        owner TEXT NOT NULL,
        key_id TEXT NOT NULL,
        model TEXT NOT NULL,
        kind TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        outcome TEXT NOT NULL,
        code TEXT NOT NULL,
        stream BIGINT NOT NULL,
        is_background BIGINT NOT NULL,
        prompt_tokens BIGINT NOT NULL,
        cached_tokens BIGINT NOT NULL,
        completion_tokens BIGINT NOT NULL,
        reasoning_tokens BIGINT NOT NULL,
        delivered_tokens BIGINT NOT NULL,
        is_estimate BIGINT NOT NULL,
        texts BIGINT NOT NULL,
        deployment BIGINT,
        replica TEXT NOT NULL,
        attempts BIGINT NOT NULL,
        queued_s DOUBLE PRECISION NOT NULL,
        first_chunk_s DOUBLE PRECISION,
        total_s DOUBLE PRECISION NOT NULL,
        price DOUBLE PRECISION NOT NULL
    )
    """,
    "CREATE INDEX entries_by_time ON entries (opened_at, request_id)",
    "CREATE INDEX entries_failed ON entries (owner, opened_at) WHERE outcome <> 'finished'",
    f"""
    CREATE TABLE sums (
        width_s BIGINT NOT NULL,
        start BIGINT NOT NULL,
        owner TEXT NOT NULL,
        key_id TEXT NOT NULL,
        model TEXT NOT NULL,
        kind TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        outcome TEXT NOT NULL,
        calls BIGINT NOT NULL,
        prompt_tokens BIGINT NOT NULL,
        cached_tokens BIGINT NOT NULL,
        completion_tokens BIGINT NOT NULL,
        reasoning_tokens BIGINT NOT NULL,
        delivered_tokens BIGINT NOT NULL,
        texts BIGINT NOT NULL,
        price DOUBLE PRECISION NOT NULL,
        queued_s DOUBLE PRECISION NOT NULL,
        total_s DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (width_s, start, owner, key_id, model, kind, endpoint, outcome)
    ) {IN_KEY}
    """,
    """
    CREATE TABLE journals (
        node TEXT NOT NULL,
        process TEXT NOT NULL,
        segment BIGINT NOT NULL,
        bytes BIGINT NOT NULL,
        is_closed BIGINT NOT NULL,
        PRIMARY KEY (node, process)
    )
    """,
)


def _cut_of_cells(table: str, names: str, widths_s: str) -> tuple[str, ...]:
    """A new table of sums with fewer names, filled from the cells."""
    counts = (
        *("calls", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens"),
        *("delivered_tokens", "texts"),
    )
    amounts = ("price", "queued_s", "total_s")
    key = f"width_s, start, {names}"
    columns = (
        *("width_s BIGINT NOT NULL", "start BIGINT NOT NULL"),
        *(f"{name} TEXT NOT NULL" for name in names.split(", ")),
        *(f"{name} BIGINT NOT NULL" for name in counts),
        *(f"{name} DOUBLE PRECISION NOT NULL" for name in amounts),
    )
    added = ", ".join(f"sum({name})" for name in (*counts, *amounts))
    return (
        f"CREATE TABLE {table} ({', '.join(columns)}, PRIMARY KEY ({key})) {IN_KEY}",
        f"INSERT INTO {table} SELECT {key}, {added} FROM sums_of_cells "  # noqa: S608 - constants
        f"WHERE width_s IN ({widths_s}) GROUP BY {key}",
    )


# Renamed so that a process of the version before, which may still run, cannot go on to write these sums
# alone: it keeps its calls in its journal. The text of a migration stays, whatever becomes of `CUTS`.
_CUTS = (
    "ALTER TABLE sums RENAME TO sums_of_cells",
    *_cut_of_cells("sums_of_models", "model, kind, endpoint, outcome", "3600, 86400"),
    *_cut_of_cells("sums_of_owners", "owner", "3600"),
    *_cut_of_cells("sums_of_keys", "owner, key_id, model", "86400"),
    *_cut_of_cells("sums_of_key_outcomes", "owner, key_id, kind, endpoint, outcome", "86400"),
    *_cut_of_cells("sums_of_owner_models", "owner, model, kind, endpoint, outcome", "86400"),
)
LEDGER = Tables("ledger", (_CREATE, _CUTS))

_ENTRY = (
    "request_id, opened_at, owner, key_id, model, kind, endpoint, outcome, code, stream, is_background, "
    "prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, delivered_tokens, is_estimate, "
    "texts, deployment, replica, attempts, queued_s, first_chunk_s, total_s, price"
)
ROWS = 400  # of entries in one statement: both databases bound the values of a statement
PAGE = 1_000
MOST = 2**40  # of a count: what a server says of usage may be nonsense, and must not stop the ledger


class Mark(NamedTuple):
    """How far a journal was read: the number of a segment, and bytes of it."""

    segment: int
    bytes: int


class Origin(NamedTuple):
    """Whose journal: a process of a node."""

    node: str
    process: str


class Failed(NamedTuple):
    """A call that did not finish, for its owner."""

    request_id: str
    opened_at: float
    key_id: str
    model: str
    endpoint: str
    outcome: str
    code: str


class EntryStore:
    """The tables. Methods block, and raise `DatabaseAway`."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    def add(self, origin: Origin, read: Sequence[tuple[Mark, Entry]], upto: Mark) -> int:
        """Insert what was read of a journal and note how far that was; how many entries were new."""
        with self._sql.writing() as db:
            mark, is_closed = _mark(db, origin)
            if is_closed or upto <= mark:
                return 0
            inserted = _insert(db, [entry for behind, entry in read if behind > mark])
            _note(db, origin, upto, is_closed=False)
            return inserted

    def close(self, origin: Origin, interrupted: Sequence[Entry], upto: Mark) -> int:
        """A dead process: insert what it left open; nothing more of its journal ever counts."""
        with self._sql.writing() as db:
            if _mark(db, origin)[1]:
                return 0
            inserted = _insert(db, interrupted)
            _note(db, origin, upto, is_closed=True)
            return inserted

    def remove_before(self, at: float, most: int = PAGE) -> int:
        """Remove some of the entries that came before that; how many. Sums stay."""
        with self._sql.writing() as db:
            return db.run(
                "DELETE FROM entries WHERE request_id IN "
                "(SELECT request_id FROM entries WHERE opened_at < ? ORDER BY opened_at, request_id LIMIT ?)",
                at,
                most,
            )

    def sums(
        self, spans: Sequence[Span], by: Sequence[Dimension], scope: Scope, node: str
    ) -> tuple[dict[Group, Sums], dict[str, Mark | None]]:
        """The sums of each group, and how far the journals of a node were read then; None: to the end."""
        found: dict[Group, Sums] = {}
        width = len(by)
        with self._sql.reading() as db:
            for span in spans:
                for row in sums.read(db, span, by, scope):
                    group, part = row[:width], Sums(*row[width:])
                    if (before := found.setdefault(group, part)) is not part:
                        before.add(part)
            return found, _marks(db, node)

    def failed(self, owner: str | None, limit: int, node: str) -> tuple[list[Failed], dict[str, Mark | None]]:
        """The last calls (of an owner) that did not finish, newest first; and how far journals were read."""
        columns = ", ".join(Failed._fields)
        which, values = ("owner = ? AND ", (owner,)) if owner is not None else ("", ())
        with self._sql.reading() as db:
            rows = db.rows(
                f"SELECT {columns} FROM entries WHERE {which}outcome <> 'finished' "  # noqa: S608 - constants
                "ORDER BY opened_at DESC LIMIT ?",
                *values,
                limit,
            )
            return [Failed(*row) for row in rows], _marks(db, node)

    def marks(self, node: str) -> dict[str, Mark | None]:
        """How far the journals of a node were read; None: to the end."""
        with self._sql.reading() as db:
            return _marks(db, node)

    def entries(self, scope: Scope) -> Iterator[Entry]:
        """The entries of a scope, the oldest first, read page by page."""
        where, values = sums.where(scope)
        at, last = float(scope.since), ""
        while True:
            with self._sql.reading() as db:
                rows = db.rows(
                    f"SELECT {_ENTRY} FROM entries WHERE (opened_at, request_id) > (?, ?) "  # noqa: S608
                    f"AND opened_at < ?{where} ORDER BY opened_at, request_id LIMIT ?",
                    *(at, last, float(scope.until), *values, PAGE),
                )
            yield from map(_entry, rows)
            if len(rows) < PAGE:
                return
            last, at = rows[-1][:2]


def _insert(db: Writer, entries: Sequence[Entry]) -> int:
    """Insert those that are not there, and count exactly these."""
    new: list[Entry] = []
    wanted = {entry.request_id: _bounded(entry) for entry in reversed(entries)}  # of two the first counts
    rows = list(wanted.values())
    for begin in range(0, len(rows), ROWS):
        some = rows[begin : begin + ROWS]
        places = ", ".join([f"({', '.join('?' * len(_row(some[0])))})"] * len(some))
        inserted = db.rows(
            f"INSERT INTO entries ({_ENTRY}) VALUES {places} "  # noqa: S608 - constants and placeholders
            "ON CONFLICT (request_id) DO NOTHING RETURNING request_id",
            *(value for entry in some for value in _row(entry)),
        )
        new += [wanted[row[0]] for row in inserted]
    sums.count(db, new)
    return len(new)


def _mark(db: Writer, origin: Origin) -> tuple[Mark, bool]:
    rows = db.rows("SELECT segment, bytes, is_closed FROM journals WHERE node = ? AND process = ?", *origin)
    return (Mark(rows[0][0], rows[0][1]), bool(rows[0][2])) if rows else (Mark(0, 0), False)


def _note(db: Writer, origin: Origin, mark: Mark, *, is_closed: bool) -> None:
    db.run(
        "INSERT INTO journals (node, process, segment, bytes, is_closed) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (node, process) DO UPDATE SET "
        "segment = excluded.segment, bytes = excluded.bytes, is_closed = excluded.is_closed",
        *(*origin, *mark, int(is_closed)),
    )


def _marks(db: Reader, node: str) -> dict[str, Mark | None]:
    rows = db.rows("SELECT process, segment, bytes, is_closed FROM journals WHERE node = ?", node)
    return {process: None if is_closed else Mark(segment, size) for process, segment, size, is_closed in rows}


def _row(entry: Entry) -> tuple[Value, ...]:
    usage = entry.usage
    return (
        entry.request_id,
        entry.opened_at,
        entry.owner,
        entry.key_id,
        entry.model,
        entry.kind,
        entry.endpoint,
        entry.outcome.value,
        entry.code,
        int(entry.stream),
        int(entry.is_background),
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        usage.reasoning_tokens,
        entry.delivered_tokens,
        int(entry.is_estimate),
        entry.texts,
        entry.deployment,
        entry.replica,
        entry.attempts,
        entry.queued_s,
        entry.first_chunk_s,
        entry.total_s,
        entry.price,
    )


def _entry(row: Row) -> Entry:
    (request_id, opened_at, owner, key_id, model, kind, endpoint, outcome, code, stream, is_background) = row[
        :11
    ]
    (prompt, cached, completion, reasoning, delivered, is_estimate, texts, deployment) = row[11:19]
    return Entry(
        request_id=request_id,
        opened_at=opened_at,
        key_id=key_id,
        owner=owner,
        model=model,
        kind=kind,
        endpoint=endpoint,
        outcome=Ending(outcome),
        code=code,
        stream=bool(stream),
        is_background=bool(is_background),
        usage=Usage(prompt, completion, cached, reasoning),
        delivered_tokens=delivered,
        is_estimate=bool(is_estimate),
        texts=texts,
        deployment=deployment,
        replica=row[19],
        attempts=row[20],
        queued_s=row[21],
        first_chunk_s=row[22],
        total_s=row[23],
        price=row[24],
    )


def _bounded(entry: Entry) -> Entry:
    """The entry as both databases can hold it: counts and times in bounds, no NUL in a text."""
    changes: dict[str, object] = {}
    for name in entry.__struct_fields__:
        value = getattr(entry, name)
        if isinstance(value, str) and "\0" in value:
            changes[name] = value.replace("\0", "\ufffd")
        elif type(value) is int and not 0 <= value <= MOST:
            changes[name] = min(max(value, 0), MOST)
    if not 0 <= entry.opened_at < LATEST:
        changes["opened_at"] = min(max(entry.opened_at, 0.0), float(LATEST - 1))
    usage = entry.usage
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens)
    if not all(0 <= count <= MOST for count in counts):
        changes["usage"] = Usage(*(min(max(count, 0), MOST) for count in counts))
    return structs.replace(entry, **changes) if changes else entry
