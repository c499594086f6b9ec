"""What the commands share: options, the configuration, the operator's use cases, tables for people."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scibox.core.amounts import Limits
from scibox.core.errors import OperatorError, SciBoxError

if TYPE_CHECKING:
    from scibox.config import Config
    from scibox.service.admin import Admin

LIMIT_NAMES = tuple(Limits.__dataclass_fields__)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def common() -> argparse.ArgumentParser:
    """The options of every command."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", metavar="FILE", type=Path, help="configuration (default: $SCIBOX_CONFIG)")
    parser.add_argument("--data", metavar="FOLDER", type=Path, help="keys and weights (default: the user's)")
    return parser


def config(options: argparse.Namespace, flags: dict[str, str | int] | None = None) -> Config:
    """The configuration as these options say."""
    from scibox.config import load

    overrides: dict[str, str | int | None] = dict(flags or {})
    if options.data is not None:
        overrides["data"] = str(options.data)
    return load(options.config, os.environ, overrides)


def fail(message: str, status: int = 1) -> int:
    """Say what went wrong; the exit status."""
    print(f"scibox: {message}", file=sys.stderr)
    return status


@contextlib.contextmanager
def office(options: argparse.Namespace) -> Iterator[Admin]:
    """The operator's use cases, on the data that the options name; what goes wrong is an `OperatorError`."""
    import time

    from scibox.service.admin import Admin
    from scibox.service.revocation import Revocation
    from scibox.store.keys import KeyStore
    from scibox.store.revoked import Revoked
    from scibox.store.sql import DatabaseAway

    loaded = config(options)
    names = frozenset(model.name for model in loaded.models)
    try:
        with KeyStore(loaded.place("keys")) as store:
            yield Admin(store, Revocation(store, Revoked(loaded.data / "revoked")), lambda: names, time.time)
    except SciBoxError as error:
        raise OperatorError(error.message) from error
    except DatabaseAway as error:
        remedy = (
            "see that its server runs and that shared.database_url leads to it"
            if loaded.shared.database_url
            else f"look to the permissions and the disk of {loaded.data}, or name another folder with --data"
        )
        raise OperatorError(
            f"The database of keys does not work now ({error}): {remedy}. Keys that the service knows go on "
            "working, and scibox keys revoke works all the same."
        ) from error


def add_limits(parser: argparse.ArgumentParser) -> None:
    """A flag for each limit."""
    group = parser.add_argument_group("limits", "a whole number, or 'none' to take the limit away")
    for name in LIMIT_NAMES:
        group.add_argument(
            f"--{name.replace('_', '-')}", metavar="N", type=_amount, default=argparse.SUPPRESS
        )


def limits(options: argparse.Namespace) -> dict[str, int | None]:
    """The limits that the flags name."""
    return {name: getattr(options, name) for name in LIMIT_NAMES if hasattr(options, name)}


def _amount(text: str) -> int | None:
    digits = text.replace("_", "")
    if text != "none" and not (digits.isascii() and digits.isdecimal() and int(digits)):
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number above 0, and not 'none'")
    return None if text == "none" else int(digits)


def number(text: str) -> float:
    """A number; neither "nan" nor "inf", which JSON cannot say: they would turn into no value at all."""
    try:
        if math.isfinite(value := float(text)):
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is no number")


def seconds(text: str) -> float:
    """A duration: "90", "30s", "15m", "24h", "7d"."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no duration; write it like 30s, 15m, 24h or 7d")
    return float(found[1]) * _UNITS_S[found[2]]


def print_json(body: bytes) -> None:
    """An answer of the API, for scripts."""
    print(body.decode())


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows in columns; the first has their names."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_facts(facts: dict[str, str]) -> None:
    """One thing: a line for each fact."""
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name.ljust(width)}  {value}".rstrip())


def moment(at: float | None, never: str = "never") -> str:
    """A time, in UTC."""
    from datetime import UTC, datetime

    return never if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def told(limits: Limits) -> str:
    """Limits, as a table of keys has them."""
    return " ".join(f"{name}={value}" for name in LIMIT_NAMES if (value := getattr(limits, name)) is not None)
