"""Calls and verdicts for tests of the fair queue."""

from __future__ import annotations

from scibox.core.admission import Rank, Wish
from scibox.core.limits import Verdict


def wish(
    call_id: str,
    owner: str = "a",
    key: str = "",
    weight: float = 1.0,
    rank: Rank = "interactive",
    prompt: int = 100,
    completion: int = 100,
) -> Wish:
    return Wish(call_id, key or f"key of {owner}", owner, weight, "m", rank, prompt, completion, 0, 60.0, ())


def blocked(subject: str, wait_s: float | None = None) -> Verdict:
    return Verdict(False, subject, "calls_per_second", 1, wait_s)
