"""Positions and expected waits."""

from __future__ import annotations

import random

import pytest

from scibox.core.admission import Wish
from scibox.core.estimate import Pace
from scibox.core.fairness import FEW, FairQueue
from scibox.core.flows import Bias
from scibox.core.limits import Verdict


def wish(call_id: str, owner: str = "a", weight: float = 1.0, prompt: int = 100, rank="interactive") -> Wish:
    return Wish(call_id, f"key of {owner}", owner, weight, "m", rank, prompt, 100, 0, 60.0, ())


def warm(queue: FairQueue, hold_s: float) -> None:
    """Let it see a few calls of an owner that then is gone."""
    for number in range(5):
        queue.enter(wish(f"warm {number}", "warm"), -1e6)
        queue.pick(-1e6)
        queue.finish(f"warm {number}", 200, -1e6 + hold_s)


@pytest.mark.parametrize("seed", range(20))
def test_positions_are_the_order_in_which_calls_then_start(seed: int) -> None:
    luck = random.Random(seed)
    queue = FairQueue("m", luck.randint(1, 3))
    for number in range(60):
        owner = luck.choice("abcdef")
        rank = luck.choice(["interactive", "interactive", "interactive", "batch"])
        queue.enter(wish(str(number), owner, float(ord(owner) - 96), luck.randint(1, 900), rank), 0.0)
    # Batches leave a slot free, and get a share of their own: the order within each rank is told exactly.
    ranks = {place.call_id: queue._waiting[place.call_id].wish.rank for place in queue.places(0.0)}

    order = []
    while (call := queue.pick(0.0)) is not None or queue.running:
        if call is None:
            queue.finish(order[len(order) - queue.running], None, 0.0)
        else:
            order.append(call.wish.call_id)

    for rank in ("interactive", "batch"):
        told = [call_id for call_id in ranks if ranks[call_id] == rank]
        assert told == [call_id for call_id in order if ranks[call_id] == rank]
    assert len(order) == 60


def test_the_expected_wait_follows_from_how_long_slots_are_held() -> None:
    queue = FairQueue("m", 2)
    warm(queue, 10.0)
    for number in range(6):
        queue.enter(wish(str(number)), 0.0)
    queue.pick(0.0)
    queue.pick(0.0)

    etas = {place.call_id: place.eta_s for place in queue.places(0.0)}

    assert etas["2"] == pytest.approx(5.3, abs=0.5)  # the first of two to end
    assert etas["4"] - etas["2"] == pytest.approx(10.0, rel=0.1)
    assert sorted(etas, key=etas.__getitem__) == ["2", "3", "4", "5"]


def test_a_parked_owner_waits_as_long_as_its_limit_says_and_then_at_its_rate() -> None:
    queue = FairQueue("m", 8)
    warm(queue, 0.1)
    for number in range(5):
        queue.enter(wish(str(number)), 0.0)
    queue.pick(0.0)
    queue.put_back("0", Verdict(False, "owner:a", "calls_per_second", 2, 0.7), 0.0)

    assert [place.eta_s for place in queue.places(0.0)] == pytest.approx([0.7, 1.2, 1.7, 2.2, 2.7])


def test_a_newcomer_of_a_parked_owner_is_told_the_limits_wait_when_many_wait() -> None:
    queue = FairQueue("m", 100)
    warm(queue, 0.1)
    for number in range(30):
        queue.enter(wish(str(number)), 0.0)
    queue.pick(0.0)
    queue.put_back("0", Verdict(False, "owner:a", "calls_per_minute", 30, 50.0), 0.0)
    queue.enter(wish("new"), 0.0)

    told = queue.estimate("new", 0.0)

    assert told is not None
    assert told.eta_s == pytest.approx(50.0 + 30 * 2.0)


def test_newcomers_of_a_parked_owner_are_told_its_limits_pace_after_the_queue_was_looked_at() -> None:
    queue = FairQueue("m", 100)
    warm(queue, 0.1)
    for number in range(30):
        queue.enter(wish(str(number)), 0.0)
    queue.pick(0.0)
    queue.put_back("0", Verdict(False, "owner:a", "calls_per_minute", 30, 50.0), 0.0)
    queue.places(0.0)
    for number in range(30, 60):
        queue.enter(wish(str(number)), 0.0)

        told = queue.estimate(str(number), 0.0)

        assert told is not None
        assert told.eta_s == pytest.approx(50.0 + number * 2.0)


def test_a_parked_owner_saves_up_no_turns_for_when_it_comes_back() -> None:
    queue = FairQueue("m", 1)
    warm(queue, 5.0)
    for number in range(4):
        queue.enter(wish(f"a {number}", "a"), 0.0)
    queue.pick(0.0)
    queue.put_back("a 0", Verdict(False, "owner:a", "calls_per_second", 100, 1.0), 0.0)
    for number in range(8):
        queue.enter(wish(f"b {number}", "b"), 0.0)
    for _ in range(3):
        call = queue.pick(0.0)
        assert call is not None
        queue.finish(call.wish.call_id, None, 0.0)

    order = [place.call_id[0] for place in queue.places(0.0)]

    assert "aa" not in "".join(order[:6])
    assert order[:6].count("a") >= 2


def test_what_waits_were_told_wrong_by_is_learned() -> None:
    bias = Bias()
    for _ in range(50):
        bias.learn(10.0, 25.0)
    assert bias.apply(4.0) == pytest.approx(10.0, rel=0.01)
    bias.learn(0.0, 5.0)

    assert bias.apply(4.0) == pytest.approx(10.0, rel=0.01)


def test_a_newcomers_place_is_cheap_and_near_when_many_wait() -> None:
    luck = random.Random(7)
    queue = FairQueue("m", 4)
    warm(queue, 5.0)
    for number in range(400):
        queue.enter(wish(str(number), f"owner {luck.randrange(40)}"), 0.0)
    for _ in range(4):
        queue.pick(0.0)
    for number in range(40):
        call_id = f"new {number}"
        queue.enter(wish(call_id, f"owner {number}"), 1.0)

        told = queue.estimate(call_id, 1.0)
        real = next(place for place in queue.places(1.0) if place.call_id == call_id)

        assert told is not None
        assert len(queue) > FEW
        assert abs(told.position - real.position) <= 0.15 * len(queue)
        assert told.eta_s == pytest.approx(real.eta_s, rel=0.35, abs=6.0)


def test_a_newcomer_that_is_level_with_others_goes_behind_those_served_longer_ago() -> None:
    queue = FairQueue("m", 1)
    for number in range(36):
        if number < 6 or number % 6 < 5:
            queue.enter(wish(str(number), "abcdef"[number % 6]), 0.0)
    for _ in range(6):
        call = queue.pick(0.0)
        assert call is not None
        queue.finish(call.wish.call_id, None, 0.0)
    queue.enter(wish("last served", "f"), 0.0)
    queue.enter(wish("never served", "new"), 0.0)

    assert len(queue) > FEW
    for call_id in ("last served", "never served"):
        real = next(place for place in queue.places(0.0) if place.call_id == call_id)
        told = queue.estimate(call_id, 0.0)
        assert told is not None
        assert told.position == real.position


def test_calls_that_were_refused_do_not_make_the_next_ones_wait_look_longer() -> None:
    queue = FairQueue("m", 2)
    warm(queue, 5.0)
    for number in range(40):
        queue.enter(wish(str(number)), 0.0)
    queue.places(0.0)
    told = []
    for number in range(30):
        queue.enter(wish(f"refused {number}"), 0.1)
        told.append(queue.estimate(f"refused {number}", 0.1).eta_s)
        queue.remove(f"refused {number}")

    assert told[-1] == told[0]


def test_calls_that_a_limit_puts_back_again_and_again_do_not_make_the_next_ones_wait_look_shorter() -> None:
    queue = FairQueue("m", 2)
    warm(queue, 5.0)
    queue.places(0.0)
    for number in range(40):
        queue.enter(wish(str(number)), 0.1)
    queue.places(0.05)
    queue.enter(wish("new"), 0.2)
    before = queue.estimate("new", 0.2)
    for _ in range(30):
        call = queue.pick(0.2)
        assert call is not None
        queue.put_back(call.wish.call_id, Verdict(False, "key:x", "calls_in_flight", 1, None), 0.2)
        queue.wake("key:x")

    assert queue.estimate("new", 0.2) == before


def test_a_place_is_exact_when_few_wait() -> None:
    queue = FairQueue("m", 1)
    warm(queue, 5.0)
    for number in range(FEW):
        owner = "abc"[number % 3]
        queue.enter(wish(str(number), owner), 0.0)
        assert queue.estimate(str(number), 0.0) == next(
            place for place in queue.places(0.0) if place.call_id == str(number)
        )


def test_a_call_that_does_not_wait_has_no_place() -> None:
    queue = FairQueue("m", 1)
    queue.enter(wish("1"), 0.0)
    queue.pick(0.0)

    assert queue.estimate("1", 0.0) is None
    assert queue.places(0.0) == []


def test_the_pace_is_that_of_the_last_calls() -> None:
    pace = Pace()
    assert pace.hold_s(60.0) == 0.0
    pace.learn(10.0, 100.0)
    assert pace.hold_s(50.0) == 5.0
    for _ in range(100):
        pace.learn(20.0, 100.0)

    assert pace.hold_s(100.0) == pytest.approx(20.0, rel=0.01)
