"""One value to the type of its field, or a sentence about what it should have been."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from scibox.config.records import Between, Pairs
from scibox.core.names import nearest

WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path"}

NUL = "must not have a NUL character in it"


class Wrong(Exception):
    """A value that does not fit; the message is the end of a sentence: "must be ..., not ..."."""


def decode(kind: Any, value: object, folder: Path) -> Any:
    """Return `value` as the annotated type `kind`; relative paths are taken from `folder`; raises Wrong."""
    plain, bounds = _bare(kind)
    if isinstance(bounds, Pairs):
        return _pairs(value, bounds)
    if get_origin(plain) is Literal:
        if value not in get_args(plain):
            raise Wrong(f"must be one of {', '.join(map(repr, get_args(plain)))}, not {value!r}")
        return value
    if get_origin(plain) is tuple:
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise Wrong(f"must be a list of texts, not {value!r}")
        return tuple(value)
    if plain is Path:
        return _path(value, folder)
    if is_dataclass(plain):
        return _table(plain, value, folder)
    decoded = _scalar(plain, value, bounds)
    if bounds is not None and not bounds.low <= decoded <= bounds.high:  # also refuses nan
        raise Wrong(f"must be {_wanted(plain, bounds)}, not {value!r}")
    return decoded


def from_text(kind: Any, text: str) -> object:
    """Return the text of an environment variable as the value a file would have had."""
    plain, _ = _bare(kind)
    try:
        if plain in {int, float}:
            return plain(text.strip())
    except ValueError:
        return text  # `decode` then says what it should be
    if plain is bool:
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    if get_origin(plain) is tuple:
        return [item.strip() for item in text.split(",") if item.strip()]
    return text


def _table(record: Any, value: object, folder: Path) -> Any:
    """A table of numbers: limits, a price. What is left out stays as it is."""
    kinds = get_type_hints(record, include_extras=True)
    if not isinstance(value, dict):
        raise Wrong(f"must be a table like {{ {next(iter(kinds))} = 10 }}, not {value!r}")
    values = {}
    for name, inner in value.items():
        if name not in kinds:
            near = nearest(name, kinds)
            raise Wrong(f"has no '{name}'; " + (f"did you mean '{near}'?" if near else _known(kinds)))
        try:
            values[name] = decode(kinds[name], inner, folder)
        except Wrong as wrong:
            raise Wrong(f"has a wrong {name}: it {wrong}") from wrong
        lowest = 1 if _bare(kinds[name])[0] is int else 0
        if not lowest <= values[name] < 1e15:
            raise Wrong(f"has a wrong {name}: it must be at least {lowest}, not {inner!r}")
    return record(**values)


def _known(kinds: Mapping[str, object]) -> str:
    return f"known are: {', '.join(kinds)}"


def _pairs(value: object, wanted: Pairs) -> tuple[tuple[str, object], ...]:
    """A table of other people's names, as pairs: records can be compared and kept in sets."""
    kinds = (str,) if wanted.texts else (str, int, float, bool)
    if not isinstance(value, dict) or not all(isinstance(one, kinds) for one in value.values()):
        what = "texts" if wanted.texts else "texts, numbers, true or false"
        raise Wrong(f"must be a table of {what}, not {value!r}")
    if any("\0" in f"{name}{one}" for name, one in value.items()):
        raise Wrong(NUL)
    return tuple(value.items())


def _bare(kind: Any) -> tuple[Any, Between | Pairs | None]:
    """Take `| None` and `Annotated` off a type."""
    if get_origin(kind) in {Union, UnionType}:
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Annotated:
        plain, bounds = get_args(kind)
        return plain, bounds
    return kind, None


def _scalar(plain: Any, value: Any, bounds: Between | None) -> Any:
    if plain is float and type(value) is int:
        return float(value)
    if type(value) is not plain:  # exactly: True is an int to isinstance
        raise Wrong(f"must be {_wanted(plain, bounds)}, not {value!r}")
    if plain is str and not value:
        raise Wrong("must not be empty")
    if plain is str and "\0" in value:
        raise Wrong(NUL)
    return value


def _wanted(plain: Any, bounds: Between | None) -> str:
    word = WORDS[plain]
    return word if bounds is None else f"{word} from {bounds.low:g} to {bounds.high:.0f}"


def _path(value: object, folder: Path) -> Path:
    if not isinstance(value, str) or not value:
        raise Wrong(f"must be a path, not {value!r}")
    if "\0" in value:
        raise Wrong(NUL)
    try:
        return folder.absolute() / Path(value).expanduser()
    except RuntimeError as error:  # "~nobody" where there is no such person
        raise Wrong(f"is a path that cannot be read: {error}") from error
