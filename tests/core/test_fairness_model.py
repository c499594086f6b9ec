"""The fair queue against a plain model of it."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_queue import PlainQueue
from queue_calls import blocked, wish

from scibox.core.admission import Rank
from scibox.core.fairness import FairQueue

deeds = st.lists(
    st.tuples(
        st.sampled_from(["enter", "enter", "enter", "remove", "pick", "pick", "finish", "charge", "block", "wake"]),
        st.integers(0, 10**6),
        st.integers(0, 4),
        st.integers(0, 2),
    ),
    max_size=120,
)  # fmt: skip
SUBJECTS = ["key:a0", "key:a1", "key:b0", "owner:a", "owner:b", "model:m owner:c", "model:m"]


def compare(deeds: Iterable[tuple[str, int, int, int]], slots: int) -> None:
    """Let both do the same, and see that they pick the same."""
    queue, plain, now = FairQueue("m", slots), PlainQueue(slots), 0.0
    for number, (deed, luck, owner_number, key) in enumerate(deeds):
        now += luck % 7 / 10
        owner = "abcde"[owner_number]
        if deed == "enter":
            rank: Rank = "batch" if luck % 4 == 0 else "interactive"
            of = wish(str(number), owner, f"{owner}{key}", 1.0 + owner_number, rank, luck % 900, luck % 400)
            queue.enter(of, now)
            plain.enter(of)
        elif deed == "remove" and (waiting := plain.waiting()):
            assert queue.remove(waiting[luck % len(waiting)])
            plain.remove(waiting[luck % len(waiting)])
        elif deed in {"pick", "block"}:
            call, expected = queue.pick(now), plain.pick(now)
            assert (call.wish.call_id if call else None) == expected
            if call and deed == "block":
                of = call.wish
                subject = (f"key:{of.key_id}", f"owner:{of.owner}", "model:m")[luck % 3]
                verdict = blocked(subject, None if luck % 2 else luck % 5)
                queue.put_back(of.call_id, verdict, now)
                plain.put_back(of.call_id, verdict, now)
        elif deed == "wake":
            subject = SUBJECTS[luck % len(SUBJECTS)]
            queue.wake(subject)
            plain.wake(subject)
        elif plain.running:
            call_id = list(plain.running)[luck % len(plain.running)]
            if deed == "finish":
                tokens = None if luck % 5 == 0 else luck % 1_500
                queue.finish(call_id, tokens, now)
                plain.finish(call_id, tokens)
            else:
                queue.charge(call_id, luck % 300)
                plain.charge(call_id, luck % 300)
        assert len(queue) == len(plain.waiting())
        assert queue.running == len(plain.running)
        assert {place.call_id for place in queue.places(now)} == set(plain.waiting())


@settings(deadline=None)
@given(deeds, st.integers(1, 4))
def test_it_does_what_a_plain_model_does(deeds: list[tuple[str, int, int, int]], slots: int) -> None:
    compare(deeds, slots)


@pytest.mark.parametrize("seed", range(30))
def test_it_does_what_a_plain_model_does_for_long(seed: int) -> None:
    luck = random.Random(seed)
    kinds = ["enter"] * 5 + ["pick"] * 4 + ["finish"] * 4 + ["remove", "charge", "block", "wake", "wake"]
    deeds = [
        (luck.choice(kinds), luck.randrange(10**6), luck.randrange(5), luck.randrange(3)) for _ in range(400)
    ]
    compare(deeds, luck.randint(1, 4))


@settings(deadline=None)
@given(deeds, st.integers(1, 4))
def test_it_is_never_idle_with_work_waiting(deeds: list[tuple[str, int, int, int]], slots: int) -> None:
    queue, running = FairQueue("m", slots), set()
    for number, (deed, luck, owner_number, key) in enumerate(deeds):
        owner = "abcde"[owner_number]
        if deed == "enter":
            queue.enter(wish(str(number), owner, f"{owner}{key}", prompt=luck % 900), 0.0)
        elif deed == "remove":
            queue.remove(str(luck % (number + 1)))
        elif deed == "finish" and running:
            queue.finish(call_id := sorted(running)[luck % len(running)], luck % 500, 0.0)
            running.discard(call_id)
        while (call := queue.pick(0.0)) is not None:
            running.add(call.wish.call_id)
        assert queue.running == slots or len(queue) == 0
        assert queue.running == len(running)
