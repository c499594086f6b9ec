"""What a client constrains the answer to, checked at the door: whichever replica serves, it is not slowed.

Grammars have a dialect of their own at each engine: here they are only bounded.
"""

from __future__ import annotations

from collections.abc import Mapping

from scibox.core.errors import InvalidRequest

from . import grammar, schemas
from .asked import Choice, Constraint, Grammar, Json, Regex, constraint


def check(fields: Mapping[str, bytes]) -> None:
    """Raise `InvalidRequest` for a constraint that cannot be enforced, or for several at once."""
    found = constraint(fields)
    if found:
        bound(*found)


def bound(path: str, limit: Constraint) -> None:
    """Raise `InvalidRequest` for what takes an engine too long to compile, or cannot be compiled."""
    match limit:
        case Json(schema):
            schemas.check_schema(schema, path)
        case Regex(pattern):
            schemas.check_pattern(grammar.whole_pattern(pattern), path)
        case Grammar(text):
            schemas.bound_grammar(text, path)
        case Choice(texts):
            if sum(map(len, texts)) > schemas.MAX_GRAMMAR_BYTES:
                raise InvalidRequest(
                    f"'{path}' is longer than {schemas.MAX_GRAMMAR_BYTES} bytes.", param=path
                )
