"""Spans of time: they make up the range, and are few."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scibox.core.sums import DAY_S, HOUR_S, MONTH_S, Scope, after, spans, start

widths = st.sampled_from([HOUR_S, DAY_S, MONTH_S])
hours = st.integers(0, 24 * 70).map(lambda n: n * HOUR_S)


@given(hours, hours, widths)
def test_spans_cover_every_hour_once_and_nothing_else(since: int, length: int, finest_s: int) -> None:
    pieces = spans(since, since + length, finest_s)
    covered = [hour for piece in pieces for hour in range(piece.since, piece.until, HOUR_S)]

    assert covered == list(range(since, since + length, HOUR_S))
    assert all(piece.width_s <= finest_s for piece in pieces)
    for piece in pieces:
        assert start(piece.since, piece.width_s) == piece.since
        assert start(piece.until, piece.width_s) == piece.until


@given(hours, hours)
def test_whole_days_and_months_are_read_as_such(since: int, length: int) -> None:
    pieces = spans(since, since + length, MONTH_S)
    seconds = dict.fromkeys((HOUR_S, DAY_S, MONTH_S), 0)
    for piece in pieces:
        seconds[piece.width_s] += piece.until - piece.since

    assert seconds[HOUR_S] < 2 * DAY_S
    assert seconds[DAY_S] < 2 * MONTH_S
    assert len(pieces) <= 5


@given(st.floats(-1e9, 4e9), widths)
def test_a_moment_is_in_what_began_before_it_and_is_not_over(at: float, width_s: int) -> None:
    begin = start(at, width_s)

    assert begin <= at < after(begin + 1, width_s)
    assert after(begin, width_s) == begin


def test_months_are_those_of_the_calendar() -> None:
    new_year, february, march = 1_767_225_600, 1_769_904_000, 1_772_323_200

    assert start(march - 0.5, MONTH_S) == february
    assert start(march, MONTH_S) == march
    assert start(new_year - 1, MONTH_S) == new_year - 31 * DAY_S
    assert after(february - 5, MONTH_S) == february
    assert after(february + 1, MONTH_S) == march


@given(st.integers(0, 10**9), st.integers(1, 10**6))
def test_a_range_is_widened_to_whole_hours(since: int, length: int) -> None:
    whole = Scope(since, since + length).in_hours()

    assert whole.since <= since
    assert whole.until >= since + length
    assert whole.since % HOUR_S == whole.until % HOUR_S == 0
    assert whole.until - whole.since < length + 2 * HOUR_S
