"""Limits that several hold together, while the place that counts them is away: each serves its part alone.

Of workers that cannot ask their main process, and of nodes that cannot ask the server they share.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from msgspec import structs

from .admission import Subject, Wish
from .types import Limits

_DIVIDED = (
    "calls_per_second",
    "calls_per_minute",
    "tokens_per_minute",
    "texts_per_minute",
    "calls_in_flight",
)


def part_of(amount: int, parts: int) -> int:
    """One of equal parts, rounded down, but not to nothing: a limit must not become a ban."""
    return max(1, amount // parts) if amount else 0


@lru_cache(maxsize=8_192)
def divided(limits: Limits, parts: int) -> Limits:
    """What one of so many holders may use. Quotas stay whole: it is for minutes, and they are for days."""
    amounts = {field: getattr(limits, field) for field in _DIVIDED}
    return replace(
        limits, **{field: part_of(own, parts) for field, own in amounts.items() if own is not None}
    )


def share(subject: Subject, parts: int) -> Subject:
    """A subject that may use one of so many parts."""
    return Subject(subject.name, divided(subject.limits, parts))


def shared_wish(wish: Wish, parts: int) -> Wish:
    """A wish whose subjects may use one of so many parts."""
    return structs.replace(wish, subjects=tuple(share(subject, parts) for subject in wish.subjects))
