"""What is done with each parameter of an endpoint, read from the records that check it.

The description of every field of a request begins with its verdict: the reference page has the same table.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from msgspec import Struct

VERDICTS = {
    "Honoured": "it does what OpenAI's reference says",
    "Passed on": "the model server decides",
    "No effect": "it is checked, and changes nothing here",
    "Refused": "400, except for the values that ask for nothing",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One field of a request, what is done with it, and what else is to be known."""

    name: str
    verdict: str
    note: str


def table(record: type[Struct]) -> list[Parameter]:
    """The fields of a request in the order of its record."""
    found: list[Parameter] = []
    for field in msgspec.inspect.type_info(record).fields:  # type: ignore[attr-defined]  # a Struct's has them
        meta = getattr(field.type, "extra_json_schema", None) or {}
        verdict, _, note = str(meta.get("description", "")).partition(". ")
        found.append(Parameter(field.encode_name, verdict.removesuffix("."), note))
    return found


def rows(record: type[Struct]) -> list[str]:
    """The table of the reference page, without its head."""
    return [f"| `{one.name}` | {one.verdict} | {one.note} |" for one in table(record)]
