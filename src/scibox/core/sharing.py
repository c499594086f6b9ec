"""Limits that several hold together, while the place that counts them is away: each serves its part alone.

Of workers that cannot ask their main process, and of nodes that cannot ask the server they share.
"""

from __future__ import annotations

from dataclasses import astuple

from msgspec.structs import replace

from .admission import Subject, Wish
from .types import Limits


def part_of(amount: int, parts: int) -> int:
    """One of equal parts, rounded down, but not to nothing: a limit must not become a ban."""
    return max(1, amount // parts) if amount else 0


def divided(limits: Limits, parts: int) -> Limits:
    """What one of so many holders may use."""
    return Limits(*(None if amount is None else part_of(amount, parts) for amount in astuple(limits)))


def divided_wish(wish: Wish, parts: int) -> Wish:
    """A wish whose subjects may use one of so many parts."""
    subjects = tuple(Subject(subject.name, divided(subject.limits, parts)) for subject in wish.subjects)
    return replace(wish, subjects=subjects)
