"""Where in a TOML text each key stands: the parser of the standard library does not say.

This reads keys and skips values, and may do so simply because it is only ever given text that the real
parser has accepted. Places are tuples of keys and, for arrays, indexes: ("models", "x", "deployments", 0,
"url"). TOML 1.0: https://toml.io/en/v1.0.0.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

Where = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'  # up to two quotes may stand before the closing three
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^\s,\]}#]+(?: [0-9:.+Zz-]+)?")  # a number, a boolean, a date and a time


def lines_of(text: str) -> Mapping[Where, int]:
    """Return the 1-based line of every key and table of a valid TOML text."""
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    """One walk over the text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted = (0, 1)  # (a position, the line it is on): lines are counted once, going forward
        self._lines: dict[Where, int] = {}
        self._arrays: dict[Where, int] = {}  # arrays of tables, and the index of their last one

    def scan(self) -> Mapping[Where, int]:
        """Walk over all statements: table headers and assignments."""
        table: Where = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._peek("[["):
                table = self._header(2)
            elif self._peek("["):
                table = self._header(1)
            else:
                self._assignment(table)
            self._skip(_BLANK)
        return self._lines

    def _header(self, brackets: int) -> Where:
        """Read `[a.b]` or `[[a.b]]` and return the place of what follows."""
        self._at += brackets
        keys, line = self._keys()
        self._at += brackets
        place: Where = ()
        for key in keys[:-1]:
            place = self._enter((*place, key), line)
        place = (*place, keys[-1])
        if brackets == 2:
            self._lines.setdefault(place, line)
            self._arrays[place] = self._arrays.get(place, -1) + 1
        return self._enter(place, line)

    def _enter(self, place: Where, line: int) -> Where:
        """Note a table and return its place: of an array of tables, the last one's."""
        self._lines.setdefault(place, line)
        if place in self._arrays:
            place = (*place, self._arrays[place])
            self._lines.setdefault(place, line)
        return place

    def _assignment(self, table: Where) -> None:
        """Read `a.b = value`."""
        keys, line = self._keys()
        place = table
        for key in keys:
            place = (*place, key)
            self._lines.setdefault(place, line)
        self._at += 1  # the equals sign
        self._value(place)

    def _keys(self) -> tuple[list[str], int]:
        """Read a dotted key; returns its parts and the line."""
        self._skip(_SPACE)
        line, keys = self._line(), [self._key()]
        while self._peek("."):
            self._at += 1
            self._skip(_SPACE)
            keys.append(self._key())
        return keys, line

    def _key(self) -> str:
        """Read one part of a key and the space behind it."""
        if self._peek('"') or self._peek("'"):
            quoted = self._take(_STRING)
            key = str(tomllib.loads(f"k = {quoted}")["k"])  # escapes are the real parser's business
        else:
            key = self._take(_BARE)
        self._skip(_SPACE)
        return key

    def _value(self, place: Where) -> None:
        """Step over a value, noting the keys inside inline tables and the items of arrays."""
        self._skip(_BLANK)
        if self._peek("["):
            self._array(place)
        elif self._peek("{"):
            self._inline_table(place)
        elif self._peek('"') or self._peek("'"):
            self._take(_STRING)
        else:
            self._take(_PLAIN)

    def _array(self, place: Where) -> None:
        self._at += 1
        index = 0
        while not self._closed("]"):
            self._lines[*place, index] = self._line()
            self._value((*place, index))
            index += 1

    def _inline_table(self, place: Where) -> None:
        self._at += 1
        while not self._closed("}"):
            self._assignment(place)

    def _closed(self, bracket: str) -> bool:
        """Step over a comma and blanks; true (and stepped over) at the closing bracket."""
        self._skip(_BLANK)
        if self._peek(","):
            self._at += 1
            self._skip(_BLANK)
        if self._peek(bracket):
            self._at += 1
            return True
        return False

    def _line(self) -> int:
        """Return the line of the current position."""
        position, line = self._counted
        line += self._text.count("\n", position, self._at)
        self._counted = (self._at, line)
        return line

    def _peek(self, start: str) -> bool:
        return self._text.startswith(start, self._at)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        assert found is not None, "the real parser accepted this text"
        self._at = found.end()
        return found.group()
