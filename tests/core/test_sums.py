"""Spans of time: they make up the range, and are few."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scibox.core.sums import DAY_S, HOUR_S, Scope, spans, start

hours = st.integers(0, 24 * 70).map(lambda n: n * HOUR_S)


@given(hours, hours, st.booleans())
def test_spans_cover_every_hour_once_and_nothing_else(since: int, length: int, in_days: bool) -> None:
    pieces = spans(since, since + length, in_days=in_days)
    covered = [hour for piece in pieces for hour in range(piece.since, piece.until, HOUR_S)]

    assert covered == list(range(since, since + length, HOUR_S))
    assert all(piece.since % piece.width_s == piece.until % piece.width_s == 0 for piece in pieces)


@given(hours, hours)
def test_whole_days_are_read_as_days(since: int, length: int) -> None:
    by_hour = [piece for piece in spans(since, since + length, in_days=True) if piece.width_s == HOUR_S]

    assert sum(piece.until - piece.since for piece in by_hour) < 2 * DAY_S
    assert len(by_hour) <= 2


@given(st.floats(-1e9, 4e9), st.sampled_from([HOUR_S, DAY_S]))
def test_a_moment_is_in_the_hour_that_began_before_it(at: float, width_s: int) -> None:
    assert start(at, width_s) <= at < start(at, width_s) + width_s


@given(st.integers(0, 10**9), st.integers(1, 10**6))
def test_a_range_is_widened_to_whole_hours(since: int, length: int) -> None:
    whole = Scope(since, since + length).in_hours()

    assert whole.since <= since
    assert whole.until >= since + length
    assert whole.since % HOUR_S == whole.until % HOUR_S == 0
    assert whole.until - whole.since < length + 2 * HOUR_S
