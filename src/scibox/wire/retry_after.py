"""`Retry-After` of a server's answer: seconds or a date (RFC 9110, 10.2.3); `retry-after-ms` before it."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime


def seconds(after: bytes, after_ms: bytes, now: float) -> float | None:
    """How long it asks to be left alone; None where it says nothing that can be read. `now`: Unix time."""
    told_ms = _number(after_ms)
    if told_ms is not None:
        return told_ms / 1000
    told_s = _number(after)
    if told_s is not None or not after:
        return told_s
    try:
        date = parsedate_to_datetime(after.decode("latin-1"))
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _number(value: bytes) -> float | None:
    """Digits, with a fraction where a server is generous; nothing else that `float` would take."""
    value = value.strip()
    whole, _, fraction = value.partition(b".")
    return float(value) if whole.isdigit() and (fraction.isdigit() or whole == value) else None
