"""What happened, for operators: plain records that `observe/` turns into log lines (and later metrics)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .entries import Entry


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


Event = Entry | Refused | Notice  # an entry: a call has ended
Emit = Callable[[Event], None]
