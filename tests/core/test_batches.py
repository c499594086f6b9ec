"""The life of a batch: whatever happens in whatever order, it goes one of the ways there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.core import batches as life
from scibox.core.batches import Batch, Problem
from scibox.core.errors import InvalidRequest

NEW = Batch(
    batch_id="batch_1",
    owner="o",
    key_id="key_1",
    endpoint="/v1/embeddings",
    input_file_id="file-1",
    reserved_output_id="file-2",
    reserved_error_id="file-3",
    created_at=0.0,
    expires_at=life.WINDOW_S,
)
EVENTS = {
    "begin": lambda batch, now: life.begin(batch, 3, now),
    "finalize": life.finalize,
    "cancel": life.cancel,
    "complete": lambda batch, now: life.end(batch, "completed", now, output_file_id="file-2"),
    "expire": lambda batch, now: life.end(batch, "expired", now),
    "fail": lambda batch, now: life.end(batch, "failed", now, problems=(Problem("x", "y"),)),
}


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=8))
def test_no_order_of_events_leaves_the_ways_there_are(names: list[str]) -> None:
    batch, trace = NEW, [NEW.status]
    for now, name in enumerate(names, 1):
        try:
            after = EVENTS[name](batch, float(now))
        except (AssertionError, InvalidRequest):
            continue  # refused, and nothing has changed
        if after.status != batch.status:
            assert after.status in life.NEXT[batch.status]
            assert after.reached[after.status] == now
            trace.append(after.status)
        batch = after

    assert list(batch.reached) == trace[1:]  # every status once, in its order
    assert batch.is_over == (batch.status in {"completed", "failed", "expired", "cancelled"})


@given(st.sampled_from(["completed", "expired", "failed"]))
def test_a_batch_that_is_being_cancelled_ends_as_cancelled_whatever_else_ends_it(status: str) -> None:
    batch = life.finalize(life.begin(life.cancel(NEW, 1.0), 3, 2.0), 3.0)
    ended = life.end(batch, status, 4.0, output_file_id="file-2")  # type: ignore[arg-type]

    assert (batch.status, ended.status, ended.output_file_id) == ("cancelling", "cancelled", "file-2")


def test_a_batch_that_is_over_or_nearly_cannot_be_cancelled() -> None:
    finalizing = life.finalize(life.begin(NEW, 3, 1.0), 2.0)

    with pytest.raises(InvalidRequest, match="'finalizing'"):
        life.cancel(finalizing, 3.0)
    with pytest.raises(InvalidRequest, match="'completed'"):
        life.cancel(life.end(finalizing, "completed", 3.0), 4.0)


def test_it_is_late_at_the_end_of_its_window() -> None:
    assert not NEW.is_late(life.WINDOW_S - 0.001)
    assert NEW.is_late(life.WINDOW_S)


@given(st.integers(100, 599), st.integers(1, 9), st.none() | st.floats(0, 60))
def test_only_what_may_pass_is_tried_again_and_not_for_ever(
    status: int, attempts: int, hint: float | None
) -> None:
    delay = life.retry_after_s(status, hint, attempts, (1.0, 5.0, 30.0))

    if status == 429:
        assert delay == (hint or life.LIMITED_S)
        return
    assert (delay is None) == (status not in {502, 503, 504} or attempts > 3)
    if delay is not None:
        assert delay >= max(hint or 0.0, (1.0, 5.0, 30.0)[attempts - 1])
