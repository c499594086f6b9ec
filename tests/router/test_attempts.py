"""Where a call goes next: rules, and what holds whatever the replicas do. No I/O, a clock of the test's own."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scibox.core.errors import (
    SciBoxError,
    UpstreamBroken,
    UpstreamBusy,
    UpstreamLost,
    UpstreamMisconfigured,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from scibox.core.pulse import Flight
from scibox.core.spending import Budget
from scibox.core.types import Call, ModelCard
from scibox.router.attempts import MOST_DEATHS, MOST_LOSSES, MOST_RETRIES, RESTART_PATIENCE_S, Attempts
from scibox.router.replica import Deployment, Replica, Route
from scibox.upstream.address import Address

CALL = Call("r", "chat", "m", "/chat/completions", {"messages": b"[]"}, stream=True)
NOW = 1_000.0


def replica(name: str, **more: Any) -> Replica:
    return Replica(Address.parse(f"http://{name}/v1"), "m", **more)


def route(*deployments: list[Replica]) -> Route:
    return Route(ModelCard("m", "chat", "s", 1), tuple(Deployment(tuple(own)) for own in deployments))


def attempts(on: Route, first: int = 0, budget: Budget | None = None) -> Attempts:
    return Attempts(CALL, on, first, budget or Budget(), random.Random(1).random)


def go(one: Attempts, now: float = NOW) -> Flight[Replica]:
    flight = one.next(now)
    assert flight is not None
    return flight


def to_the_end(one: Attempts, fails: Callable[[Flight[Replica], float], None]) -> tuple[SciBoxError, float]:
    """Every attempt fails; what the caller is told, and after how long."""
    now = NOW
    while True:
        try:
            flight = one.next(now)
        except SciBoxError as told:
            return told, now - NOW
        if flight is None:
            now += 0.1
        else:
            fails(flight, now)


def unavailable() -> UpstreamUnavailable:
    return UpstreamUnavailable("away")


def broken() -> UpstreamBroken:
    return UpstreamBroken("broken")


def busy(opens_in_s: float | None = 9.0) -> UpstreamBusy:
    error = UpstreamBusy("busy")
    error.opens_in_s = opens_in_s
    return error


def test_a_failure_is_followed_by_another_replica_after_a_pause() -> None:
    one = attempts(route([replica("a"), replica("b")]))
    first = go(one)
    one.failed(first, broken(), NOW)
    second = go(one)

    assert second.member is not first.member
    assert 0.02 < one.pause_s < 0.1
    assert one.deployment == 0


def test_one_that_was_not_reached_costs_neither_pause_nor_budget() -> None:
    budget = Budget()
    left = budget.left(NOW)
    one = attempts(route([replica("a"), replica("b")]), budget=budget)
    one.failed(go(one), unavailable(), NOW)
    go(one)

    assert (one.pause_s, budget.left(NOW)) == (0.0, left)


def test_without_a_budget_the_next_deployment_comes_at_once() -> None:
    budget = Budget()
    while budget.take(NOW):
        pass
    one = attempts(route([replica("a"), replica("b")], [replica("c")]), budget=budget)
    one.failed(go(one), broken(), NOW)

    assert go(one).member.name == "c/v1"
    assert (one.deployment, one.pause_s) == (1, 0.0)


def test_the_granted_deployment_is_first_then_those_of_the_order() -> None:
    one = attempts(route([replica("a")], [replica("b")], [replica("c")]), first=1)
    order = []
    for _ in range(3):
        flight = go(one)
        order.append(flight.member.name[0])
        one.failed(flight, unavailable(), NOW)

    assert "".join(order) == "bac"
    with pytest.raises(UpstreamUnavailable, match="away"):
        one.next(NOW)


def test_one_that_refuses_the_gateway_speaks_for_its_equals() -> None:
    one = attempts(route([replica("a"), replica("b")], [replica("c")]))
    one.failed(go(one), UpstreamMisconfigured("no"), NOW)

    assert go(one).member.name == "c/v1"


def test_when_every_door_is_shut_the_caller_is_told_when_the_first_opens() -> None:
    on = route([replica("a")], [replica("b")])
    one = attempts(on)
    one.failed(go(one), busy(33.4), NOW)
    one.failed(go(one), busy(500.0), NOW)
    with pytest.raises(UpstreamBusy) as told:
        one.next(NOW)
    with pytest.raises(UpstreamUnavailable) as later:  # who has asked nobody
        attempts(on).next(NOW + 10)

    assert told.value.retry_after_s == 34
    assert (later.value.code, later.value.retry_after_s) == ("upstream_busy", 24)
    assert go(attempts(on), NOW + 34).member.name == "a/v1"


def test_a_server_that_answers_with_errors_alone_is_asked_where_there_is_no_other() -> None:
    """What makes it fail may be one caller's input: its breaker must not shut the others out."""
    on = route([replica("a")])
    for _ in range(9):
        one = attempts(on)
        one.failed(go(one), broken(), NOW)
        with pytest.raises(UpstreamBroken):
            one.next(NOW)


def test_one_that_cannot_be_reached_is_left_alone_when_that_is_known() -> None:
    on = route([replica("a")])
    for _ in range(3):
        one = attempts(on)
        one.failed(go(one), unavailable(), NOW)

    with pytest.raises(UpstreamUnavailable, match="left alone") as told:
        attempts(on).next(NOW)
    assert told.value.retry_after_s in {1, 2}


def test_a_child_that_is_restarted_is_waited_for_within_bounds() -> None:
    one, tries, polls = attempts(route([replica("own", is_local=True)])), 0, 0

    def fails(flight: Flight[Replica], now: float) -> None:
        nonlocal tries, polls
        tries, polls = tries + 1, polls + one.is_poll
        one.failed(flight, unavailable(), now)

    told, waited_s = to_the_end(one, fails)

    assert isinstance(told, UpstreamUnavailable)
    assert RESTART_PATIENCE_S <= waited_s < RESTART_PATIENCE_S + 1
    assert tries == polls + 2  # all of the looks are no attempts of the ledger
    assert abs(tries - waited_s / 0.1) <= 2


def test_nobody_waits_for_a_child_while_another_can_answer() -> None:
    one = attempts(route([replica("own", is_local=True)], [replica("other")]))
    one.failed(go(one), unavailable(), NOW)

    assert go(one).member.name == "other/v1"


def test_a_call_that_kills_children_is_given_to_no_more_than_two() -> None:
    one = attempts(route([replica(name, is_local=True) for name in "abcd"]))
    killed = []

    def dies(flight: Flight[Replica], now: float) -> None:
        killed.append(flight.member)
        one.failed(flight, UpstreamLost("gone"), now)

    told, _ = to_the_end(one, dies)

    assert isinstance(told, UpstreamLost)
    assert len(killed) == MOST_DEATHS


ERRORS = st.sampled_from(
    [
        *(unavailable, broken, busy, lambda: busy(None), lambda: UpstreamLost("x")),
        *(lambda: UpstreamTimeout("x"), lambda: UpstreamMisconfigured("x")),
    ]
)


@given(
    sizes=st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=4),
    ends=st.lists(ERRORS, min_size=400, max_size=400),
    calls=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None)
def test_attempts_end_and_nobody_is_asked_twice_or_beyond_the_budget(
    sizes: list[list[bool]], ends: list[Any], calls: int, seed: int
) -> None:
    luck, budget, now = random.Random(seed), Budget(), NOW
    on = route(
        *([replica(f"r{d}{i}", is_local=own) for i, own in enumerate(all_)] for d, all_ in enumerate(sizes))
    )
    granted, outcomes = budget.left(now), iter(ends)
    for _ in range(calls):
        one = Attempts(CALL, on, luck.randrange(len(sizes)), budget, luck.random)
        told, tried, costly, lost = None, [], 0, 0
        while told is None:
            try:
                flight = one.next(now)
            except SciBoxError as error:
                told = error
                break
            if flight is None:
                now += 0.5
                continue
            error = next(outcomes, unavailable)()
            if flight.member.is_local:
                assert sum(other is flight.member for other in tried) <= 40
            else:
                assert not any(other is flight.member for other in tried)
            assert not lost >= MOST_LOSSES
            assert flight.member in on.deployments[one.deployment].replicas
            costly += bool(one.pause_s)
            lost += isinstance(error, UpstreamLost)
            tried.append(flight.member)
            one.failed(flight, error, now)
        assert told.retry_after_s is None or 1 <= told.retry_after_s <= 60
        granted -= costly
        assert costly <= MOST_RETRIES * len(sizes)
    assert granted >= -3 * (now - NOW) / 10
    assert all(each.in_flight == 0 for each in on.replicas)
