"""Tables of keys as spreadsheets write them: those to be made, and those to be handed out.

What Excel does to a CSV file is undone: a byte order mark, UTF-16, Windows' Cyrillic, `;` or tabs between
cells, a line `sep=;`, decimal commas, hard spaces, empty lines and columns at the end, headers in Russian.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from scibox.core.errors import InvalidRequest
from scibox.core.keys import Draft, Shown
from scibox.core.names import nearest
from scibox.wire import body

from .body import Problems
from .keys import MOST_MADE, TableKeyRequest, draft
from .limits import LIMIT_NAMES

_HEADERS = {
    "owner": ("owner", "team", "владелец", "команда", "группа"),
    "name": ("name", "key", "имя", "название", "ключ"),
    "days": ("days", "дни", "дней", "срок", "срок, дней"),
    "models": ("models", "model", "модели", "модель"),
    "limits": ("limits", "лимиты", "ограничения"),
    "weight": ("weight", "вес"),
    "role": ("role", "роль"),
    "note": ("note", "comment", "примечание", "заметка", "комментарий"),
    **{name: (name,) for name in LIMIT_NAMES},
}
_COLUMN = {header: column for column, headers in _HEADERS.items() for header in headers}
_ROLES = {"участник": "member", "оператор": "operator"}
_BETWEEN = re.compile(r"[\s,;]+")
_LIMIT = re.compile(r"\s*([^\s=:,;]+)\s*[=:]\s*([^\s=:,;]+)[\s,;]*")
_DECIMAL = re.compile(r"[0-9]{1,9}([.,][0-9]{1,9})?")
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")
_request = msgspec.json.Decoder(TableKeyRequest)
HANDED_OUT = ("owner", "name", "key_id", "secret", "base_url")


@dataclass(frozen=True, slots=True)
class Style:
    """How a table is written, so that its answer opens in the same program."""

    delimiter: str = ","
    has_bom: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Keys to be made, each with the place that errors name ("line 7")."""

    drafts: tuple[tuple[str, Draft], ...]
    style: Style


def parse(raw: bytes, now: float) -> Table:
    """The keys of a table; `InvalidRequest` names every line that is wrong."""
    text, has_bom = _text(raw)
    head = next((line for line in text.splitlines() if line.strip() and not _separator(line)), "")
    style = Style(max(",;\t", key=head.count), has_bom)
    lines = _lines(text, style.delimiter)
    columns = _columns(*next(lines, (1, [])))
    problems = Problems()
    drafts = []
    for number, cells in lines:
        with problems.within(f"line {number}"):
            drafts.append((f"line {number}", _draft(columns, cells, now)))
    problems.tell()
    if not 1 <= len(drafts) <= MOST_MADE:
        raise InvalidRequest(f"The table has {len(drafts)} keys; 1 to {MOST_MADE} can be made.", param="body")
    return Table(tuple(drafts), style)


def render(made: Iterable[Shown], base_url: str, style: Style) -> bytes:
    """The table that is handed out: who gets which secret, and where to use it."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=style.delimiter)
    writer.writerow(HANDED_OUT)
    for shown in made:
        key = shown.key
        writer.writerow((key.owner, key.name, key.key_id, shown.secret, base_url))
    return stream.getvalue().encode("utf-8-sig" if style.has_bom else "utf-8")


def _text(raw: bytes) -> tuple[str, bool]:
    """The text of a file, and whether it came from a program that looks for a byte order mark."""
    if raw.startswith(b"PK\x03\x04"):
        raise InvalidRequest("This is a workbook, not a table: save it as 'CSV UTF-8' first.", param="body")
    try:
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            return raw.decode("utf-16"), True
        return raw.decode("utf-8-sig"), raw.startswith(b"\xef\xbb\xbf")
    except UnicodeDecodeError:
        try:
            return raw.decode("cp1251"), True
        except UnicodeDecodeError:
            raise InvalidRequest(
                "The table is in no known encoding: save it as 'CSV UTF-8'.", param="body"
            ) from None


def _separator(line: str) -> bool:
    return line.lower().startswith("sep=")


def _lines(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The lines that have something in them, cells tidied, each with the number it begins at."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 1
    try:
        for cells in reader:
            tidy = [" ".join(cell.split()) for cell in cells]  # hard spaces and line ends too
            if any(tidy) and not (number == 1 and _separator(tidy[0])):
                yield number, tidy
            number = reader.line_num + 1
    except csv.Error as error:
        where = f"line {number}"
        raise InvalidRequest(f"{where}: this is no line of a CSV file ({error}).", param=where) from None


def _columns(number: int, header: Sequence[str]) -> list[str | None]:
    """What each column means; None: it has no header, and must be empty."""
    where = f"line {number}"
    columns: list[str | None] = []
    for cell in header:
        column = _COLUMN.get(cell.casefold())
        if cell and column is None:
            close = nearest(cell, _COLUMN)
            hint = f"Did you mean '{close}'?" if close else f"Known are: {', '.join(_HEADERS)}."
            raise InvalidRequest(f"{where}: unknown column '{cell[:80]}'. {hint}", param=where)
        if column is not None and column in columns:
            raise InvalidRequest(f"{where}: two columns mean '{column}'.", param=where)
        columns.append(column)
    if "owner" not in columns:
        raise InvalidRequest(
            f"{where}: no column 'owner'. This line names the columns: {', '.join(_HEADERS)}.", param=where
        )
    return columns


def _draft(columns: Sequence[str | None], cells: Sequence[str], now: float) -> Draft:
    given: dict[str, object] = {}
    for index, cell in enumerate(cells):
        column = columns[index] if index < len(columns) else None
        if cell and column is None:
            raise InvalidRequest(f"'{cell[:80]}' stands in a column without a header.")
        if cell and column is not None:
            given |= {column: _VALUES.get(column, _whole)(cell, column)}
    limits = {name: given.pop(name) for name in LIMIT_NAMES if name in given}
    told = given.pop("limits", {})
    assert isinstance(told, dict)
    return draft(body.decode_at("", msgspec.json.encode({**given, "limits": told | limits}), _request), now)


def _same(cell: str, column: str) -> str:
    return cell


def _number(cell: str, column: str) -> float:
    bare = cell.replace(" ", "")
    if _THOUSANDS.fullmatch(bare):
        raise InvalidRequest(f"'{column}' is '{cell[:80]}': write it without thousands separators.")
    if not _DECIMAL.fullmatch(bare):  # float() would take "inf" and "1e9" too
        raise InvalidRequest(f"'{column}' must be a number like 90 or 0,5, not '{cell[:80]}'.")
    return float(bare.replace(",", "."))


def _whole(cell: str, column: str) -> int:
    bare = re.sub("[ _]", "", cell)
    if not (bare.isascii() and bare.isdecimal() and len(bare) < 20):
        raise InvalidRequest(f"'{column}' must be a whole number, not '{cell[:80]}'.")
    return int(bare)


def _names(cell: str, column: str) -> list[str]:
    return [name for name in _BETWEEN.split(cell) if name]


def _limits(cell: str, column: str) -> dict[str, int]:
    """`calls_per_minute=60 tokens_per_day=100000`."""
    found: dict[str, int] = {}
    at = 0
    while at < len(cell):
        pair = _LIMIT.match(cell, at)
        if pair is None:
            message = f"'{column}' is '{cell[:80]}'; write it as calls_per_minute=60 tokens_per_day=100000."
            raise InvalidRequest(message)
        name, at = pair[1], pair.end()
        if name not in LIMIT_NAMES:
            close = nearest(name, LIMIT_NAMES)
            hint = f"Did you mean '{close}'?" if close else f"Known are: {', '.join(LIMIT_NAMES)}."
            raise InvalidRequest(f"Unknown limit '{name[:80]}'. {hint}")
        found[name] = _whole(pair[2], name)
    return found


def _role(cell: str, column: str) -> str:
    return _ROLES.get(cell.casefold(), cell.lower())


_VALUES = {
    **dict.fromkeys(("owner", "name", "note"), _same),
    **dict.fromkeys(("days", "weight"), _number),
    "models": _names,
    "limits": _limits,
    "role": _role,
}
