"""Bodies of `/admin/v1`: strict, and a field that nobody knows is answered with the nearest that is known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeVar

import msgspec
from msgspec import Struct

from scibox.core.errors import InvalidRequest
from scibox.core.names import nearest
from scibox.wire import body

from .limits import LIMIT_NAMES

T = TypeVar("T")
MOST_TOLD = 20


def read(raw: bytes, decoder: msgspec.json.Decoder[T], record: type[Struct]) -> T:
    """The typed record; `record` is the one whose fields are meant by a name outside of `limits`."""
    try:
        return body.decode(raw, decoder)[0]
    except InvalidRequest as error:
        if error.code != "unknown_parameter" or error.param is None:
            raise
        way, _, name = error.param.rpartition(".")
        known = LIMIT_NAMES if way.endswith("limits") else record.__struct_fields__
        close = nearest(name, known)
        hint = f"Did you mean '{close}'?" if close else f"Known are: {', '.join(known)}."
        param = error.param.lstrip(".")
        raise InvalidRequest(
            f"Unknown field '{param}'. {hint}", param=param, code="unknown_parameter"
        ) from None


class Problems:
    """What is wrong at several places, told together: who mends a table wants to know all of it."""

    def __init__(self) -> None:
        self._errors: list[InvalidRequest] = []

    @contextlib.contextmanager
    def within(self, where: str) -> Iterator[None]:
        """Go on after an error in there; it names the place."""
        try:
            yield
        except InvalidRequest as error:
            param = f"{where}.{error.param}" if error.param else where
            self._errors.append(InvalidRequest(f"{where}: {error.message}", param=param, code=error.code))

    def tell(self) -> None:
        """Raise what was found, as one error."""
        if self._errors:
            first, more = self._errors[0], len(self._errors) - MOST_TOLD
            told = [error.message for error in self._errors[:MOST_TOLD]]
            told += [f"... and {more} more."] if more > 0 else []
            raise InvalidRequest("\n".join(told), param=first.param, code=first.code)
