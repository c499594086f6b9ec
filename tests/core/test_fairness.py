"""The rules that the fair queue is for."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_calls import blocked, wish

from scibox.core.fairness import FairQueue

numbers = itertools.count()


def drain(queue: FairQueue, now: float = 0.0) -> list[str]:
    """The calls that start, one after the other, each when the one before has ended as expected."""
    order = []
    while (call := queue.pick(now)) is not None:
        order.append(call.wish.call_id)
        queue.finish(call.wish.call_id, None, now)
    return order


def test_a_call_that_was_cheaper_than_expected_brings_its_owner_forward() -> None:
    queue = FairQueue("m", 1)
    for number in range(3):
        queue.enter(wish(f"a {number}", "a", completion=200), 0.0)
        queue.enter(wish(f"b {number}", "b", completion=100), 0.0)
    queue.pick(0.0)
    queue.finish("a 0", 1, 0.0)

    assert drain(queue)[:2] == ["b 0", "a 1"]


def test_owners_whose_calls_cost_nothing_take_turns() -> None:
    queue = FairQueue("m", 1)
    for number in range(2):
        queue.enter(wish(f"a {number}", "a", prompt=0, completion=0), 0.0)
    for number in range(2):
        queue.enter(wish(f"b {number}", "b", prompt=0, completion=0), 0.0)

    assert [call_id[0] for call_id in drain(queue)] == ["a", "b", "a", "b"]


def test_a_call_that_is_put_back_is_not_charged() -> None:
    queue = FairQueue("m", 1)
    for number in range(2):
        queue.enter(wish(f"a {number}", "a"), 0.0)
        queue.enter(wish(f"b {number}", "b"), 0.0)
    for _ in range(5):
        queue.pick(0.0)
        queue.put_back("a 0", blocked("owner:a"), 0.0)
        queue.wake("owner:a")
        b = queue.pick(0.0)
        assert b is not None
        queue.put_back(b.wish.call_id, blocked("owner:b"), 0.0)
        queue.wake("owner:b")

    assert [call_id[0] for call_id in drain(queue)] == ["a", "b", "a", "b"]
    assert not queue._parking._by_subject


def test_corrections_leave_no_heap_of_old_entries() -> None:
    queue = FairQueue("m", 5_000)
    for number in range(5_001):
        queue.enter(wish(str(number)), 0.0)
    for _ in range(5_000):
        queue.pick(0.0)
    for number in range(5_000):
        queue.finish(str(number), 1, 0.0)

    assert len(queue._ranks["interactive"]._heap) <= 64 + 2


def test_within_an_owner_keys_take_turns_and_within_a_key_the_first_to_come_is_first() -> None:
    queue = FairQueue("m", 1)
    for call_id, key in (("1", "x"), ("2", "x"), ("3", "x"), ("4", "y"), ("5", "z"), ("6", "y")):
        queue.enter(wish(call_id, key=key), 0.0)

    assert drain(queue) == ["1", "4", "5", "2", "6", "3"]


def test_one_that_floods_does_not_starve_a_modest_one() -> None:
    queue = FairQueue("m", 1)
    for number in range(64):
        queue.enter(wish(f"flood {number}", "flood"), 0.0)
    for _ in range(20):
        call = queue.pick(0.0)
        assert call is not None
        queue.finish(call.wish.call_id, 200, 0.0)

    queue.enter(wish("modest", "modest"), 0.0)

    call = queue.pick(0.0)
    assert call is not None
    assert call.wish.call_id == "modest"


def test_nobody_saves_up_turns_while_away() -> None:
    queue = FairQueue("m", 1)
    queue.enter(wish("early", "idle"), 0.0)
    assert drain(queue) == ["early"]
    for number in range(100):
        queue.enter(wish(f"busy {number}", "busy"), 0.0)
    for _ in range(90):
        call = queue.pick(0.0)
        assert call is not None
        queue.finish(call.wish.call_id, 200, 0.0)

    for number in range(10):
        queue.enter(wish(f"idle {number}", "idle"), 0.0)

    order = drain(queue)
    assert sum(call_id.startswith("idle") for call_id in order[:10]) == 5


@pytest.mark.parametrize("weight", [2.0, 3.0])
def test_twice_the_weight_is_twice_the_service(weight: float) -> None:
    queue, sizes = FairQueue("m", 3), random.Random(5)
    served, running = {"light": 0, "heavy": 0}, []

    def enter(owner: str) -> None:
        of = wish(str(next(numbers)), owner, weight=weight if owner == "heavy" else 1.0,
                  prompt=sizes.randint(1, 500), completion=512)  # fmt: skip
        queue.enter(of, 0.0)

    for _ in range(20):
        enter("light")
        enter("heavy")
    for _ in range(6_000):
        while (call := queue.pick(0.0)) is not None:
            running.append(call.wish)
        ended = running.pop(sizes.randrange(len(running)))
        completion = sizes.randint(1, 512)
        queue.finish(ended.call_id, ended.prompt_tokens + completion, 0.0)
        served[ended.owner] += ended.prompt_tokens + 2 * completion
        enter(ended.owner)

    assert served["heavy"] / served["light"] == pytest.approx(weight, rel=0.02)


sent = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 300), st.integers(1, 200), st.integers(0, 50)),
    min_size=30,
    max_size=200,
)


@settings(deadline=None)
@given(sent, st.integers(1, 4), st.booleans())
def test_the_difference_between_two_that_always_wait_is_within_the_papers_bound(
    sent: list[tuple[str, int, int, int]], slots: int, is_streamed: bool
) -> None:
    """2 max(w_p L_input, w_q M), with M what the slots can hold, over every interval in which both wait."""
    queue = FairQueue("m", slots)
    sizes = {}
    for number, (owner, prompt, completion, _) in enumerate(sent):
        queue.enter(wish(str(number), owner, prompt=prompt, completion=200), 0.0)
        sizes[str(number)] = (owner, prompt, completion)
    bound = 2 * max(300, 2 * slots * 500)
    got, running, low, high = {"a": 0, "b": 0}, [], 0, 0
    lucks = itertools.cycle([luck for *_, luck in sent])
    while queue.waiting_of("a") and queue.waiting_of("b"):
        while (call := queue.pick(0.0)) is not None:
            running.append(call.wish.call_id)
            owner, prompt, _ = sizes[call.wish.call_id]
            got[owner] += prompt
        call_id = running.pop(next(lucks) % len(running))
        owner, prompt, completion = sizes[call_id]
        if is_streamed:
            queue.charge(call_id, completion)
        got[owner] += 2 * completion
        queue.finish(call_id, prompt + completion, 0.0)
        if queue.waiting_of("a") and queue.waiting_of("b"):
            low, high = min(low, got["a"] - got["b"]), max(high, got["a"] - got["b"])

    assert high - low <= bound


def test_a_blocked_owner_does_not_block_the_queue_and_comes_back_to_its_place() -> None:
    queue = FairQueue("m", 1)
    for call_id, owner in (("1", "a"), ("2", "a"), ("3", "b"), ("4", "c")):
        queue.enter(wish(call_id, owner), 0.0)
    first = queue.pick(0.0)
    assert first is not None
    assert first.wish.call_id == "1"
    queue.put_back("1", blocked("owner:a", 5.0), 0.0)
    assert queue.next_wake() == 5.0

    third = queue.pick(1.0)
    assert third is not None
    assert third.wish.call_id == "3"
    queue.finish("3", 200, 1.0)

    assert drain(queue, 5.0) == ["4", "1", "2"]  # as little served as "c", but not as long ago


def test_a_blocked_key_leaves_its_owners_other_keys_going() -> None:
    queue = FairQueue("m", 1)
    for call_id, key in (("1", "x"), ("2", "x"), ("3", "y")):
        queue.enter(wish(call_id, key=key), 0.0)
    queue.pick(0.0)
    queue.put_back("1", blocked("key:x"), 0.0)

    assert drain(queue) == ["3"]
    assert queue.next_wake() is None
    assert queue.wake("key:x")
    assert not queue.wake("key:x")
    assert drain(queue) == ["1", "2"]


def test_a_limit_of_the_model_stops_the_rank_that_ran_into_it() -> None:
    queue = FairQueue("m", 3)
    queue.enter(wish("1"), 0.0)
    queue.enter(wish("2", "b"), 0.0)
    queue.pick(0.0)
    queue.put_back("1", blocked("model:m", 2.0), 0.0)

    assert queue.pick(1.9) is None
    assert sorted(drain(queue, 2.0)) == ["1", "2"]


def test_interactive_calls_go_first_and_a_batch_leaves_them_a_slot() -> None:
    queue = FairQueue("m", 3)
    for number in range(5):
        queue.enter(wish(f"batch {number}", rank="batch"), 0.0)
    assert [call.wish.call_id if (call := queue.pick(0.0)) else None for _ in range(3)] == [
        "batch 0",
        "batch 1",
        None,
    ]

    queue.enter(wish("person"), 0.0)
    call = queue.pick(0.0)
    assert call is not None
    assert call.wish.call_id == "person"


def test_a_model_with_one_slot_runs_batches_when_nobody_else_waits() -> None:
    queue = FairQueue("m", 1)
    queue.enter(wish("batch", rank="batch"), 0.0)
    queue.enter(wish("person"), 0.0)

    assert drain(queue) == ["person", "batch"]


@pytest.mark.parametrize("slots", [1, 4])
def test_batches_get_a_twentieth_when_people_always_wait(slots: int) -> None:
    queue, served, running = FairQueue("m", slots), {"interactive": 0, "batch": 0}, []
    for number in range(600):
        queue.enter(wish(f"batch {number}", rank="batch"), 0.0)
    for number in range(30):
        queue.enter(wish(f"person {number}"), 0.0)
    for number in range(4_000):
        while (call := queue.pick(0.0)) is not None:
            running.append(call.wish)
        ended = running.pop(0)
        queue.finish(ended.call_id, 200, 0.0)
        served[ended.rank] += 1
        if ended.rank == "interactive":
            queue.enter(wish(f"person {100 + number}"), 0.0)

    assert served["batch"] / 4_000 == pytest.approx(1 / 20, abs=0.005)


def test_a_nights_batch_does_not_put_its_owners_people_behind() -> None:
    queue = FairQueue("m", 1)
    for number in range(50):
        queue.enter(wish(f"batch {number}", "a", rank="batch"), 0.0)
    drain(queue)
    for number in range(3):
        queue.enter(wish(f"a {number}", "a"), 0.0)
        queue.enter(wish(f"b {number}", "b"), 0.0)

    assert [call_id[0] for call_id in drain(queue)] == ["a", "b", "a", "b", "a", "b"]


def test_traces_of_owners_that_have_gone_are_forgotten() -> None:
    queue = FairQueue("m", 2)
    for number in range(20_000):
        queue.enter(wish(str(number), f"owner {number}"), 0.0)
        call = queue.pick(0.0)
        assert call is not None
        queue.finish(call.wish.call_id, 200, 0.0)

    turns = queue._ranks["interactive"]
    assert len(turns.flows) <= 2 * turns.SWEEP_AT
    assert len(turns._heap) <= 64


def test_finishing_and_removing_twice_is_harmless() -> None:
    queue = FairQueue("m", 1)
    queue.enter(wish("1"), 0.0)
    queue.enter(wish("2"), 0.0)
    assert queue.remove("2")
    assert not queue.remove("2")
    queue.pick(0.0)
    queue.finish("1", 200, 1.0)
    queue.finish("1", 200, 1.0)
    queue.charge("1", 5)

    assert (len(queue), queue.running) == (0, 0)


def test_calls_that_leave_from_the_midst_of_a_line_are_not_kept_behind_one_that_waits() -> None:
    queue = FairQueue("m", 1)
    for number in range(2_000):
        queue.enter(wish(str(number), "a"), 0.0)
    line = queue._waiting["0"].line
    for number in range(1, 1_999):
        assert queue.remove(str(number))
        assert len(line.calls) <= line.FEW_GONE + 2 * line.waiting

    assert [place.call_id for place in queue.places(0.0)] == ["0", "1999"]
    first = queue.pick(0.0)
    assert first is not None
    queue.finish(first.wish.call_id, None, 0.0)
    then = queue.pick(0.0)

    assert (first.wish.call_id, then and then.wish.call_id) == ("0", "1999")
