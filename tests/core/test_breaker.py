from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scibox.core.breaker import (
    FAILURES_IN_A_ROW,
    FIRST_OPEN_S,
    JITTER,
    LONGEST_OPEN_S,
    LONGEST_SHUT_S,
    Breaker,
    State,
)


def opened(now: float = 100.0, luck: float = 0.5) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES_IN_A_ROW):
        breaker.failed(now, breaker.begin(), luck)
    return breaker


def test_opens_on_failures_in_a_row() -> None:
    breaker = Breaker()
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed(100.0, breaker.begin(), 0.5)
    assert breaker.state is State.CLOSED

    breaker.failed(100.0, breaker.begin(), 0.5)

    assert breaker.state is State.OPEN
    assert not breaker.is_ready(100.0)


def test_a_success_between_failures_keeps_it_closed() -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(FAILURES_IN_A_ROW - 1):
            breaker.failed(100.0, False, 0.5)
        for _ in range(2 * FAILURES_IN_A_ROW):
            breaker.succeeded(100.0, False)

    assert breaker.state is State.CLOSED


def test_opens_when_most_calls_of_late_fail_though_never_many_in_a_row() -> None:
    breaker, calls = Breaker(), 0
    while breaker.state is State.CLOSED and calls < 100:
        calls += 1
        if calls % 3 == 0:
            breaker.succeeded(100.0 + calls * 0.01, False)
        else:
            breaker.failed(100.0 + calls * 0.01, False, 0.5)

    assert 10 <= calls < 20


def test_failures_of_long_ago_do_not_count_for_the_rate() -> None:
    breaker = Breaker()
    for minute in range(60):
        breaker.failed(100.0 + 60 * minute, False, 0.5)
        breaker.failed(100.0 + 60 * minute, False, 0.5)
        breaker.succeeded(100.0 + 60 * minute, False)

    assert breaker.state is State.CLOSED


def test_one_probe_goes_through_and_its_success_closes() -> None:
    breaker = opened(now=100.0)
    later = breaker.ready_at

    assert breaker.is_ready(later)
    assert breaker.begin()
    assert not breaker.is_ready(later + 1_000)

    breaker.succeeded(later + 1, True)

    assert breaker.state is State.CLOSED
    assert breaker.is_ready(later + 1)


def test_a_probe_that_fails_doubles_the_time_up_to_its_bound() -> None:
    breaker, now, times = opened(now=100.0), 100.0, []
    for _ in range(9):
        times.append(breaker.ready_at - now)
        now = breaker.ready_at
        breaker.failed(now, breaker.begin(), 0.5)

    assert times[:3] == pytest.approx([FIRST_OPEN_S, 2 * FIRST_OPEN_S, 4 * FIRST_OPEN_S])
    assert times[-1] == pytest.approx(LONGEST_OPEN_S)


def test_one_that_fails_soon_after_it_was_back_is_left_alone_longer_than_one_that_was_well_for_long() -> None:
    def open_time(well_s: float) -> float:
        breaker = opened(now=100.0)
        breaker.succeeded(101.0, breaker.begin())
        now = 101.0 + well_s
        for _ in range(FAILURES_IN_A_ROW):
            breaker.failed(now, False, 0.5)
        return breaker.ready_at - now

    assert open_time(5.0) == pytest.approx(2 * FIRST_OPEN_S)
    assert open_time(3_600.0) == pytest.approx(FIRST_OPEN_S)


@given(st.floats(0, 1), st.floats(0, 1))
def test_luck_spreads_the_next_tries(one: float, other: float) -> None:
    times = [opened(now=100.0, luck=luck).ready_at - 100.0 for luck in (one, other)]

    assert all(abs(open_s - FIRST_OPEN_S) <= FIRST_OPEN_S * JITTER + 1e-9 for open_s in times)
    assert times[0] - times[1] == pytest.approx(FIRST_OPEN_S * 2 * JITTER * (one - other), abs=1e-9)


def test_calls_that_began_before_it_opened_decide_nothing() -> None:
    breaker = opened(now=100.0)
    ready_at = breaker.ready_at
    breaker.failed(100.5, False, 0.9)
    breaker.succeeded(100.6, False)
    assert (breaker.state, breaker.ready_at) == (State.OPEN, ready_at)

    breaker.begin()
    breaker.failed(101.0, False, 0.9)
    breaker.succeeded(101.0, False)
    assert breaker.state is State.HALF_OPEN


def test_a_probe_whose_caller_left_is_followed_by_another() -> None:
    breaker = opened(now=100.0)
    now = breaker.ready_at
    breaker.abandoned(breaker.begin())

    assert breaker.is_ready(now)
    assert breaker.begin()


def test_retry_after_shuts_the_door_for_its_time_and_is_no_breakdown() -> None:
    breaker = Breaker()
    for _ in range(10 * FAILURES_IN_A_ROW):
        breaker.refused(100.0, breaker.begin(), 7.0)

    assert breaker.state is State.CLOSED
    assert not breaker.is_ready(106.9)
    assert breaker.is_ready(107.0)


def test_a_shorter_retry_after_does_not_open_a_door_that_is_shut_for_longer() -> None:
    breaker = Breaker()
    breaker.refused(100.0, False, 30.0)
    breaker.refused(101.0, False, 1.0)

    assert breaker.ready_at == 130.0


@pytest.mark.parametrize(("told_s", "shut_s"), [(None, 1.0), (-5.0, 0.0), (1e9, LONGEST_SHUT_S)])
def test_an_odd_retry_after_is_bounded(told_s: float | None, shut_s: float) -> None:
    breaker = Breaker()
    breaker.refused(100.0, False, told_s)

    assert breaker.ready_at == 100.0 + shut_s


def test_a_probe_that_is_refused_leaves_it_half_open_after_that_time() -> None:
    breaker = opened(now=100.0)
    now = breaker.ready_at
    breaker.refused(now, breaker.begin(), 5.0)

    assert not breaker.is_ready(now + 4.9)
    assert breaker.is_ready(now + 5)
    assert breaker.begin()


def test_an_active_check_that_succeeds_lets_the_probe_through_at_once() -> None:
    breaker = opened(now=100.0)
    breaker.found_well(100.1)

    assert breaker.is_ready(100.1)
    assert breaker.begin()


@dataclass
class Sent:
    is_probe: bool


class Life(RuleBasedStateMachine):
    """Any order of calls and their ends."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now = 1_000.0
        self.calls: list[Sent] = []

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def send(self) -> None:
        if self.breaker.is_ready(self.now):
            self.calls.append(Sent(self.breaker.begin()))

    @precondition(lambda self: self.calls)
    @rule(
        index=st.integers(0),
        end=st.sampled_from(["succeeded", "failed", "refused", "abandoned"]),
        luck=st.floats(0, 1),
        told_s=st.none() | st.floats(0, 90),
    )
    def end(self, index: int, end: str, luck: float, told_s: float | None) -> None:
        call = self.calls.pop(index % len(self.calls))
        was, probes = self.breaker.state, call.is_probe
        match end:
            case "succeeded":
                self.breaker.succeeded(self.now, probes)
            case "failed":
                self.breaker.failed(self.now, probes, luck)
            case "refused":
                self.breaker.refused(self.now, probes, told_s)
            case _:
                self.breaker.abandoned(probes)
        if was is not State.CLOSED and not probes:
            assert self.breaker.state is was
        if self.breaker.state is State.CLOSED and was is not State.CLOSED:
            assert probes
            assert end == "succeeded"

    @invariant()
    def one_probe_at_most(self) -> None:
        probes = sum(call.is_probe for call in self.calls)
        assert probes == (self.breaker.state is State.HALF_OPEN)

    @invariant()
    def a_next_try_comes(self) -> None:
        if self.breaker.state is not State.HALF_OPEN:
            assert self.breaker.ready_at <= self.now + max(LONGEST_OPEN_S * (1 + JITTER), 90.0)


TestLife = Life.TestCase
