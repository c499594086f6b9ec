"""The life of a batch, as plain functions over a frozen record; `now` is Unix seconds.

    validating -> in_progress -> finalizing -> completed
        |  |          |  |  |
        |  |          |  |  +-> expired      the window is over; what was done stays
        |  |          |  +----> failed       its key was revoked or its owner's storage is full
        |  |          +-------> cancelling -> cancelled
        |  +-> failed                        the input file is wrong; nothing was done
        +----> expired, cancelling

Every change goes through `_move`, so that no other way exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from .errors import InvalidRequest

Status = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
NEXT: Mapping[Status, frozenset[Status]] = {
    "validating": frozenset({"in_progress", "failed", "expired", "cancelling"}),
    "in_progress": frozenset({"finalizing", "failed", "expired", "cancelling"}),
    # The last two are for results that were lost from disk meanwhile, so that not all can be done in time.
    "finalizing": frozenset({"completed", "expired", "failed"}),
    "cancelling": frozenset({"cancelled"}),
    "completed": frozenset(),
    "failed": frozenset(),
    "expired": frozenset(),
    "cancelled": frozenset(),
}
WINDOW_S = 86_400.0  # the one completion window that there is: "24h"
MOST_LINES = 50_000  # OpenAI's bound
MOST_PROBLEMS = 100  # shown of a wrong input file
LIMITED = 429
LIMITED_S = 60.0  # between two looks whether a quota has room again
PASSING = frozenset({502, 503, 504})  # trying again can help


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a batch failed: a line of its input (counted from 1), or the whole."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch. The ids of its two result files are reserved from the start; the files appear at the end."""

    batch_id: str
    owner: str
    key_id: str
    endpoint: str
    input_file_id: str
    reserved_output_id: str
    reserved_error_id: str
    created_at: float
    expires_at: float
    metadata: Mapping[str, str] | None = None
    output_lifetime_s: float | None = None
    status: Status = "validating"
    reached: Mapping[str, float] = field(default_factory=dict)  # when each status began
    total: int = 0
    completed: int = 0
    failed: int = 0
    problems: tuple[Problem, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return not NEXT[self.status]

    def is_late(self, now: float) -> bool:
        """Whether its window is over."""
        return now >= self.expires_at


def begin(batch: Batch, total: int, now: float) -> Batch:
    """The input is right and has `total` lines; a batch that is being cancelled stays as it is."""
    if batch.status == "cancelling":
        return batch
    return _move(batch, "in_progress", now, total=total)


def count(batch: Batch, completed: int, failed: int) -> Batch:
    """How many lines are recorded by now."""
    return replace(batch, completed=completed, failed=failed)


def finalize(batch: Batch, now: float) -> Batch:
    """Every line is recorded; a batch that is being cancelled, or is here already, stays as it is."""
    return batch if batch.status in {"cancelling", "finalizing"} else _move(batch, "finalizing", now)


def cancel(batch: Batch, now: float) -> Batch:
    """Someone wants it cancelled; asking twice changes nothing."""
    if batch.status == "cancelling":
        return batch
    if "cancelling" not in NEXT[batch.status]:
        raise InvalidRequest(
            f"Cannot cancel a batch with status '{batch.status}'.", code="batch_not_cancellable"
        )
    return _move(batch, "cancelling", now)


def end(
    batch: Batch,
    status: Literal["completed", "expired", "failed"],
    now: float,
    *,
    output_file_id: str | None = None,
    error_file_id: str | None = None,
    problems: tuple[Problem, ...] = (),
) -> Batch:
    """The end, with the result files that there are; a batch that is being cancelled ends as cancelled."""
    return _move(
        batch,
        "cancelled" if batch.status == "cancelling" else status,
        now,
        output_file_id=output_file_id,
        error_file_id=error_file_id,
        problems=problems,
    )


def retry_after_s(
    status: int, hint_s: float | None, attempts: int, delays_s: tuple[float, ...]
) -> float | None:
    """How long a line waits before its next attempt after `attempts` of them; None: this answer counts.

    A limit or a quota of its owner's never ends a line: it is tried again until the batch's window is over.
    """
    if status == LIMITED:
        return hint_s or LIMITED_S
    if status not in PASSING or attempts > len(delays_s):
        return None
    return max(delays_s[attempts - 1], hint_s or 0.0)


def _move(batch: Batch, status: Status, now: float, **changes: object) -> Batch:
    assert status in NEXT[batch.status], f"{batch.status} -> {status}"
    return replace(
        batch,
        status=status,
        reached={**batch.reached, status: now},
        **changes,  # type: ignore[arg-type]  # fields of Batch, by the callers above
    )
