"""What is said to a call that does not get its turn: which limit, of whom, and when to come again."""

from __future__ import annotations

import math

from scibox.core.admission import Wish
from scibox.core.errors import Busy, QuotaExceeded, RateLimited, SciBoxError
from scibox.core.limits import Verdict

_UNITS = {
    "calls_per_second": "calls per second",
    "calls_per_minute": "calls per minute",
    "tokens_per_minute": "LLM tokens per minute",
    "texts_per_minute": "texts per minute",
    "calls_in_flight": "calls at the same time",
    "tokens_per_day": "LLM tokens per day",
    "tokens_per_month": "LLM tokens per month",
}


def by_limit(wish: Wish, verdict: Verdict, expected_s: float, retry_after_s: int) -> SciBoxError:
    """A limit would hold the call back for longer than it may wait."""
    limit = f"The limit of {_what(verdict)} ({_whose(wish, verdict)}) is reached"
    return RateLimited(
        f"{limit}: this call for '{wish.model}' would start in about {_told(expected_s)}, and it may wait "
        f"{_told(wish.patience_s)}. Try again in {retry_after_s} s.",
        retry_after_s=retry_after_s,
    )


def by_final_limit(wish: Wish, verdict: Verdict) -> SciBoxError:
    """A quota is used up, or a limit is 0: waiting is of no use."""
    limit = f"{_what(verdict)} ({_whose(wish, verdict)})"
    if verdict.limit in {"tokens_per_day", "tokens_per_month"}:
        days = "at 00:00 UTC" if verdict.limit == "tokens_per_day" else "on the first of the month, UTC"
        return QuotaExceeded(
            f"The quota of {limit} is used up, so '{wish.model}' cannot be called; it is renewed {days}. "
            "The operator can raise it.",
            retry_after_s=60,  # for clients that know no other header: the longest that is ever told
            should_retry=False,
        )
    return RateLimited(
        f"The limit of {limit} allows no call of '{wish.model}'; ask the operator to raise it.",
        should_retry=False,
    )


def by_queue(wish: Wish, position: int, expected_s: float, retry_after_s: int) -> SciBoxError:
    """Too many are before it."""
    return Busy(
        f"'{wish.model}' is busy: {max(0, position - 1)} calls would start before this one, in about "
        f"{_told(expected_s)}, and it may wait {_told(wish.patience_s)}. Try again in {retry_after_s} s.",
        retry_after_s=retry_after_s,
    )


def by_full_queue(wish: Wish, bound: int, *, is_of_owner: bool, retry_after_s: int) -> SciBoxError:
    """The queue has as many calls as it may have."""
    whose = "of your team " if is_of_owner else ""
    return Busy(
        f"'{wish.model}' is busy: {bound} calls {whose}wait for it already, and no more may. Try again in "
        f"{retry_after_s} s, and send fewer at the same time.",
        retry_after_s=retry_after_s,
    )


def _what(verdict: Verdict) -> str:
    return f"{verdict.amount:,} {_UNITS[verdict.limit]}"


def _whose(wish: Wish, verdict: Verdict) -> str:
    kind, _, name = verdict.subject.partition(":")
    if kind == "key":
        return "of this key"
    if kind == "owner":
        return f"of '{name}', the owner of this key"
    if " owner:" in verdict.subject:
        return f"of each owner on '{wish.model}'"
    return f"of all callers of '{wish.model}'"


def _told(seconds: float) -> str:
    return "a long time" if math.isinf(seconds) else f"{seconds:.1f} s"
