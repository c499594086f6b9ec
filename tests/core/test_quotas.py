from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.quotas import Quota, span


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("period", "moment", "begin", "end"),
    [
        ("day", "2026-11-24T23:59:59", "2026-11-24", "2026-11-25"),
        ("month", "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T00:00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_periods_are_those_of_utc(period: str, moment: str, begin: str, end: str) -> None:
    assert span(period, at(moment)) == (at(begin), at(end))


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 500)), max_size=60), st.integers(1, 2_000))
def test_the_overshoot_is_at_most_one_call(calls: list[tuple[int, int]], amount: int) -> None:
    quota, now = Quota(amount, "day"), at("2026-11-24T10:00")
    for reserved, used in calls:
        if quota.is_reserved(now):
            break
        begin = quota.take(reserved, now)
        quota.settle(begin, reserved, min(used, reserved), now)

    assert quota.used < amount + 500


def test_what_is_reserved_blocks_until_it_is_given_back_and_what_is_used_until_the_day_ends() -> None:
    quota, now = Quota(100, "day"), at("2026-11-24T12:00")
    begin = quota.take(100, now)
    assert quota.is_reserved(now)
    assert not quota.is_used_up(now)

    quota.settle(begin, 100, 30, now)
    assert not quota.is_reserved(now)
    assert quota.remaining(now) == 70

    quota.settle(quota.take(70, now), 70, 70, now)
    assert quota.is_used_up(now)
    assert quota.reset_s(now) == 12 * 3_600
    assert not quota.is_used_up(at("2026-11-25T00:00"))


def test_a_call_counts_in_the_day_in_which_it_began() -> None:
    quota = Quota(100, "day")
    begin = quota.take(50, at("2026-11-24T23:59"))

    quota.settle(begin, 50, 40, at("2026-11-25T00:01"))

    assert quota.remaining(at("2026-11-25T00:01")) == 100


def test_a_clock_that_steps_over_midnight_and_back_opens_nothing() -> None:
    quota, today, tomorrow = Quota(100, "day"), at("2026-11-24T12:00"), at("2026-11-25T12:00")
    quota.settle(quota.take(60, today), 60, 60, today)
    quota.settle(quota.take(30, tomorrow), 30, 30, tomorrow)  # the clock was wrong

    assert quota.remaining(today) == 10
    assert quota.remaining(tomorrow) == 70  # the ledger has them there


def test_a_clock_that_steps_to_the_day_before_and_is_put_right_opens_nothing() -> None:
    quota, today, yesterday = Quota(100, "day"), at("2026-11-24T12:00"), at("2026-11-23T12:00")
    quota.settle(quota.take(100, today), 100, 100, today)
    for _ in range(3):  # and is not blocked for longer by going to and fro
        assert quota.is_used_up(yesterday)
        assert quota.is_used_up(today)

    assert quota.used == 100
    assert quota.remaining(at("2026-11-25T00:00")) == 100


def test_a_call_that_runs_while_the_clock_steps_back_is_counted() -> None:
    quota, today, yesterday = Quota(100, "day"), at("2026-11-24T12:00"), at("2026-11-23T12:00")
    begin = quota.take(100, today)
    assert quota.is_reserved(yesterday)
    quota.settle(begin, 100, 90, yesterday)

    assert quota.remaining(yesterday) == 10
    assert quota.remaining(today) == 10


def test_a_clock_that_was_a_year_ahead_blocks_nobody_for_a_year() -> None:
    quota, ahead = Quota(100, "month"), at("2027-11-24T12:00")
    quota.settle(quota.take(100, ahead), 100, 100, ahead)

    assert quota.is_used_up(at("2026-11-24T12:00"))
    assert not quota.is_used_up(at("2026-12-01T00:00"))


def test_what_the_ledger_knows_is_loaded_and_never_lowers_what_is_known() -> None:
    quota, now = Quota(100, "day"), at("2026-11-24T12:00")
    quota.load(40, now)
    assert quota.remaining(now) == 60

    quota.load(10, now)
    assert quota.remaining(now) == 60
