"""The nearest known name to one that is not known: for error messages that say what was meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

# Below this share of common characters a suggestion confuses more than it helps ("gpt-4o" is not "bge-m3").
ALIKE = 0.6
SHORTEST_PART = 3  # "b" is inside of almost every name; it does not mean any of them


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like `name`, ignoring case and counting parts of names; None if none is."""
    wanted = name.strip().casefold()
    scored = [(_likeness(wanted, candidate.casefold()), candidate) for candidate in known]
    best = max(scored, key=lambda pair: pair[0], default=(0.0, ""))
    return best[1] if best[0] >= ALIKE else None


def _likeness(wanted: str, candidate: str) -> float:
    """0 to 1: the share of common characters, higher where one name is a part or the start of the other."""
    share = _share(wanted, candidate)
    shorter, longer = sorted((wanted, candidate), key=len)
    if len(shorter) < SHORTEST_PART:
        return share
    if shorter in longer:
        start = 0.1 if longer.startswith(shorter) else 0.0
        return max(share, 0.7 + start + 0.2 * len(shorter) / len(longer))
    if len(wanted) > SHORTEST_PART:  # a start with a slip in it: "smolm2" for "smollm2-135m-instruct"
        return max(share, 0.9 * _share(wanted, candidate[: len(wanted) + 1]))
    return share


def _share(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()
