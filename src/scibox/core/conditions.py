"""How the parts of the service are: what `/ready` and `/admin/v1/status` are made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Condition:
    """One part; `words` say what is wrong and what to do next, `since` is Unix seconds."""

    part: str  # "engine of m", "upstream of m", "key database"
    is_ok: bool = True
    words: str = ""
    since: float | None = None
