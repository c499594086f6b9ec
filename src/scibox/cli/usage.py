"""`scibox usage`: what calls cost, and every single one of them for other programs."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast, get_args

from scibox.core.errors import OperatorError

from . import parts

if TYPE_CHECKING:
    from scibox.core.entries import Entry
    from scibox.core.sums import Dimension, Group, Scope, Sums
    from scibox.ledger.reports import Reports

Commands = Any  # argparse's type of it is private
DAY_S = 86_400.0
SHOWN = ("calls", "prompt_tokens", "cached_tokens", "completion_tokens", "texts", "price")  # in the table


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The command."""
    usage = commands.add_parser("usage", parents=[common], help="what calls cost, from the ledger")
    usage.add_argument("action", nargs="?", choices=("export",), help="every single entry, as csv or jsonl")
    usage.add_argument(
        "--by", default="owner,model", help="owner, key, model, kind, endpoint, outcome, day, hour"
    )
    usage.add_argument(
        "--since", help="2026-11-01, 2026-11-01T12:00 (UTC), or 7d, 24h ago (default: this month)"
    )
    usage.add_argument("--until", help="as --since, exclusive (default: now)")
    for name in ("owner", "key", "model"):
        usage.add_argument(
            f"--{name}", action="append", default=[], help=f"only this {name}; may be repeated"
        )
    usage.add_argument(
        "--format", choices=("table", "csv", "json", "jsonl"), help="default: table, export: csv"
    )
    usage.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    formats = ("csv", "jsonl") if options.action else ("table", "csv", "json")
    chosen = options.format or formats[0]
    if chosen not in formats:
        return parts.fail(f"--format takes one of: {', '.join(formats)}.", status=2)
    by = _dimensions(options.by)
    scope = _scope(options)
    with _reports(options) as reports:
        if options.action:
            return _export(reports, scope, chosen)
        report = reports.sums(scope, by)
    if report.behind_bytes:
        print(
            f"scibox: {report.behind_bytes / 1e6:.0f} MB of the journal are not counted yet: the database "
            "was away, and they are being moved there. Ask again in a minute.",
            file=sys.stderr,
        )
    {"table": _table, "csv": _csv, "json": _json}[chosen](by, report.rows, scope)
    return 0


def _dimensions(text: str) -> tuple[Dimension, ...]:
    from scibox.core.sums import Dimension

    known = get_args(Dimension)
    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in known:
            raise OperatorError(f"--by takes {', '.join(known)}, not '{name}'.")
    return tuple(cast("Dimension", name) for name in names)


def _scope(options: argparse.Namespace) -> Scope:
    import time

    from scibox.core.keys import written
    from scibox.core.quotas import span
    from scibox.core.sums import Scope

    now = time.time()
    since = span("month", now)[0] if options.since is None else _moment(options.since, now, "--since")
    until = now + 1 if options.until is None else _moment(options.until, now, "--until")
    if since >= until:
        end = "now, where --until is not given" if options.until is None else "--until"
        raise OperatorError(f"--since must be before the end of what is asked for: {end}.")
    owners = tuple(map(written, options.owner))
    return Scope(int(since), int(until), owners, tuple(options.key), tuple(options.model))


def _moment(text: str, now: float, flag: str) -> float:
    """Unix seconds of a date, a time or a time ago; what has no offset is UTC's."""
    from scibox.core.sums import LATEST

    try:
        at = now - parts.seconds(text) if text[-1:] in "smhd" else _date(text)
        if not 0 <= at <= LATEST:
            raise ValueError(at)
        return at
    except (argparse.ArgumentTypeError, ValueError, OverflowError):
        raise OperatorError(
            f"{flag} takes a date or a time like 2026-11-01 or 2026-11-01T12:00 (UTC), or a time ago like 7d "
            f"or 24h, not '{text}'."
        ) from None


def _date(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@contextmanager
def _reports(options: argparse.Namespace) -> Iterator[Reports]:
    """The reports of this data folder, after what a stopped service has left in its journal was fed."""
    from scibox.ledger.feeder import Feeder
    from scibox.ledger.reports import Reports
    from scibox.store.entries import LEDGER, EntryStore
    from scibox.store.sql import DatabaseAway, Sql

    config = parts.config(options)
    folder, sql = config.data / "journal", Sql(config.place("ledger"), LEDGER)
    store = EntryStore(sql)
    try:
        feeder = Feeder(folder, store, lambda event: None, keep_s=config.ledger.keep_days * DAY_S)
        feeder.feed()  # nothing, while a service does it
        feeder.let_go()
        yield Reports(folder, store)
    except (DatabaseAway, OSError) as error:
        raise OperatorError(f"The ledger's database cannot be read now ({error}); try again.") from error
    finally:
        sql.close()


def _table(by: Sequence[str], rows: Sequence[tuple[Group, Sums]], scope: Scope) -> None:
    from scibox.core.sums import Sums

    whole = Sums()
    lines = [(*(name.upper() for name in by), *(name.upper() for name in SHOWN))]
    for group, sums in rows:
        whole.add(sums)
        lines.append((*_names(by, group), *_numbers(sums)))
    if by:
        lines.append(("all", *[""] * (len(by) - 1), *_numbers(whole)))
    parts.print_table(lines)
    if not rows and (scope.owners or scope.keys or scope.models):
        print("No call was found: is that name right? See: scibox owners list, keys list", file=sys.stderr)
    print(f"{parts.moment(scope.since)} to {parts.moment(scope.until)}, whole hours", file=sys.stderr)


def _numbers(sums: Sums) -> tuple[str, ...]:
    return tuple(
        f"{value:.6g}" if isinstance(value := getattr(sums, name), float) else f"{value}" for name in SHOWN
    )


def _csv(by: Sequence[str], rows: Sequence[tuple[Group, Sums]], scope: Scope) -> None:
    from scibox.core.sums import Sums

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*by, *Sums.__struct_fields__])
    for group, sums in rows:
        writer.writerow([*_names(by, group), *(getattr(sums, name) for name in sums.__struct_fields__)])


def _json(by: Sequence[str], rows: Sequence[tuple[Group, Sums]], scope: Scope) -> None:
    import msgspec

    told = [
        {**dict(zip(by, _names(by, group), strict=True)), **msgspec.structs.asdict(sums)}
        for group, sums in rows
    ]
    whole = {"since": _stamp(scope.since), "until": _stamp(scope.until), "rows": told}
    parts.print_json(msgspec.json.format(msgspec.json.encode(whole), indent=2))


def _names(by: Sequence[str], group: Group) -> list[str]:
    return [
        _stamp(float(value))[: 10 if name == "day" else 16] if name in {"day", "hour"} else str(value)
        for name, value in zip(by, group, strict=True)
    ]


def _export(reports: Reports, scope: Scope, chosen: str) -> int:
    """Entry by entry, so that any number of them fits into memory."""
    import msgspec

    from scibox.core.entries import Entry

    writer = csv.writer(sys.stdout, lineterminator="\n")
    if chosen == "csv":
        writer.writerow(_columns(Entry))
    for entry in reports.entries(scope):
        if chosen == "jsonl":
            row = dict(zip(_columns(Entry), _row(entry), strict=True))
            sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
        else:
            writer.writerow(_row(entry))
    if waiting := reports.unfed(scope):
        print(
            f"scibox: {waiting} calls are still in the journal and not in the export; "
            "the service moves them within seconds, or when its database is back.",
            file=sys.stderr,
        )
    return 0


def _columns(record: type[Entry]) -> list[str]:
    """The names of an entry's fields, with those of its usage among them."""
    from scibox.core.types import Usage

    fields = [
        (name,) if name != "usage" else tuple(Usage.__struct_fields__) for name in record.__struct_fields__
    ]
    return [name for names in fields for name in names]


def _row(entry: Entry) -> list[object]:
    told: list[object] = []
    for name in entry.__struct_fields__:
        value = getattr(entry, name)
        match name:
            case "usage":
                told += [getattr(value, field) for field in value.__struct_fields__]
            case "opened_at":
                told.append(_stamp(value, "milliseconds"))
            case "outcome":
                told.append(value.value)
            case _:
                told.append(value)
    return told


def _stamp(at: float, precision: str = "seconds") -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec=precision).replace("+00:00", "Z")
