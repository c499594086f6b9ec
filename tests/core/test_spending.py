import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.spending import (
    HEDGE_LEAST,
    HEDGE_SHARE,
    RESUMES_AT_ONCE,
    RESUMES_PER_S,
    RETRY_LEAST,
    RETRY_SHARE,
    WINDOW_S,
    Budget,
    Pace,
    hedge_budget,
)

CELL_S = WINDOW_S / 1_000
steps = st.lists(
    st.tuples(st.floats(0.0, 4.0) | st.floats(0.0, 0.01), st.integers(0, 40), st.integers(0, 12)),
    min_size=1,
    max_size=60,
)  # a pause, so many calls, so many wishes to retry


@given(steps)
def test_no_window_holds_more_retries_than_its_share_of_the_calls(
    steps: list[tuple[float, int, int]],
) -> None:
    budget, now = Budget(), 1_000.0
    called: list[float] = []
    spent: list[float] = []
    for pause_s, calls, wishes in steps:
        now += pause_s
        for _ in range(calls):
            budget.called(now)
            called.append(now)
        for _ in range(wishes):
            if budget.take(now):
                spent.append(now)
        recent = sum(at > now - WINDOW_S for at in spent)
        calls_near = sum(at > now - WINDOW_S - 2 * CELL_S for at in called)
        if wishes:
            assert recent <= max(RETRY_LEAST, math.floor(RETRY_SHARE * calls_near)) or (
                not budget.take(now)  # calls have passed since: then nothing more is given
            )


@given(st.integers(0, 2_000))
def test_all_of_the_share_can_be_used(calls: int) -> None:
    budget = Budget()
    for number in range(calls):
        budget.called(100.0 + number * 1e-3)
    now = 100.0 + calls * 1e-3
    left = budget.left(now)
    given = sum(budget.take(now) for _ in range(calls + 10))

    assert given == left == max(RETRY_LEAST, int(RETRY_SHARE * calls))


def test_few_calls_have_the_minimum_and_get_it_again_after_the_window() -> None:
    budget = Budget()
    assert [budget.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not budget.take(100.0 + WINDOW_S - 0.1)
    assert budget.take(100.0 + WINDOW_S + 0.1)


def test_calls_of_long_ago_pay_for_nothing() -> None:
    budget = Budget()
    for _ in range(1_000):
        budget.called(100.0)

    assert budget.left(100.0 + WINDOW_S / 2) == 200
    assert budget.left(100.0 + WINDOW_S + 1) == RETRY_LEAST


def test_hedges_have_a_budget_of_their_own() -> None:
    hedges = hedge_budget()
    for _ in range(1_000):
        hedges.called(100.0)

    assert sum(hedges.take(100.0) for _ in range(500)) == int(HEDGE_SHARE * 1_000)

    idle = hedge_budget()
    assert sum(idle.take(100.0) for _ in range(5)) == HEDGE_LEAST


@given(
    st.lists(st.floats(0.0, 0.5) | st.just(0.0), min_size=1, max_size=200),
    st.integers(0, 5),
    st.floats(0.05, 5.0),
)
def test_no_window_holds_more_resumes_than_the_pace(
    pauses: list[float], replicas: int, window_s: float
) -> None:
    pace, now, starts = Pace(), 1_000.0, []
    for pause_s in pauses:
        now += pause_s
        starts.append(pace.start_at(now, replicas))
        assert starts[-1] >= now

    most = RESUMES_AT_ONCE + window_s * RESUMES_PER_S * max(1, replicas)
    assert starts == sorted(starts)
    for first in starts:
        assert sum(first <= start < first + window_s - 1e-9 for start in starts) <= most + 1e-6


def test_all_streams_of_a_dead_replica_resume_some_at_once_and_none_later_than_the_pace_needs() -> None:
    pace = Pace()
    waits = [pace.start_at(100.0, 3) - 100.0 for _ in range(64)]

    assert waits[:RESUMES_AT_ONCE] == pytest.approx([0.0] * RESUMES_AT_ONCE, abs=1e-9)
    assert 0 < waits[RESUMES_AT_ONCE] <= 1 / (3 * RESUMES_PER_S) + 1e-9
    assert abs(waits[-1] - (64 - RESUMES_AT_ONCE) / (3 * RESUMES_PER_S)) < 0.1


def test_more_replicas_left_resume_sooner() -> None:
    few, many = Pace(), Pace()
    assert [many.start_at(0.0, 100) for _ in range(64)][-1] < [few.start_at(0.0, 1) for _ in range(64)][
        -1
    ] / 50
