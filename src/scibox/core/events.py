"""What happened, for operators: plain records that `observe/` turns into log lines (and later metrics)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .types import Ending, Kind, Usage


@dataclass(frozen=True, slots=True)
class CallEnded:
    """One line per call. Durations in seconds; `first_chunk_s` is None when no chunk came."""

    request_id: str
    key_id: str
    owner: str
    kind: Kind
    model: str
    stream: bool
    ending: Ending
    usage: Usage
    total_s: float
    first_chunk_s: float | None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that never became a call: no key, bad input, unknown path."""

    request_id: str
    status: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about the service itself that an operator should read."""

    message: str
    is_warning: bool = False


Event = CallEnded | Refused | Notice
Emit = Callable[[Event], None]
