import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scibox.core.breaker import FAILURES_IN_A_ROW, LONGEST_SHUT_S, State
from scibox.core.pulse import Flight, Pulse
from scibox.core.routing import CALLS_PER_PROBE, Choice


def choice_of(*slots: int | None, seed: int = 1) -> tuple[Choice[int], list[Pulse[int]]]:
    pulses = [Pulse(index, its) for index, its in enumerate(slots)]
    return Choice(random.Random(seed).random, pulses), pulses


def begin(choice: Choice[int], now: float = 100.0, **more: object) -> Flight[int]:
    flight = choice.begin(now, **more)  # type: ignore[arg-type]
    assert flight is not None
    return flight


def break_down(choice: Choice[int], pulse: Pulse[int], now: float) -> None:
    for flight in [pulse.begin(now) for _ in range(FAILURES_IN_A_ROW)]:
        flight.fail(now, 0.5)
    assert pulse.breaker.state is State.OPEN


def test_no_replica_no_choice() -> None:
    assert choice_of()[0].begin(100.0) is None


def test_of_two_the_less_loaded_one() -> None:
    choice, pulses = choice_of(8, 8)
    pulses[0].begin(100.0)

    assert begin(choice).member == 1


def test_load_is_relative_to_slots() -> None:
    choice, pulses = choice_of(4, 64)
    pulses[0].begin(100.0)
    for _ in range(8):
        pulses[1].begin(100.0)

    assert begin(choice).member == 1


def test_a_call_that_failed_goes_elsewhere() -> None:
    choice, _ = choice_of(*[8] * 5)
    for _ in range(50):
        tried: list[int] = []
        for _ in range(5):
            tried.append(begin(choice, avoid=tried).member)
        assert sorted(tried) == [0, 1, 2, 3, 4]
        assert choice.begin(100.0, avoid=tried) is None


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(0))
def test_every_slot_is_used_before_any_has_more(slots: list[int], seed: int) -> None:
    choice, pulses = choice_of(*slots, seed=seed)
    for _ in range(sum(slots)):
        begin(choice)
    assert [pulse.in_flight for pulse in pulses] == slots

    assert begin(choice) is not None
    assert sum(pulse.in_flight for pulse in pulses) == sum(slots) + 1


def test_one_that_drains_gets_no_calls_and_its_own_end_well() -> None:
    choice, pulses = choice_of(8, 8)
    flights = [begin(choice) for _ in range(8)]
    choice.drain(pulses[0], True, 100.0)
    had = pulses[0].in_flight

    assert {begin(choice).member for _ in range(20)} == {1}
    for flight in flights:
        flight.end(101.0)
    assert (had, pulses[0].in_flight) == (4, 0)
    assert {begin(choice, 102.0).member for _ in range(20)} == {1}

    choice.drain(pulses[0], False, 103.0)
    assert begin(choice, 103.0).member == 0


def test_added_and_removed_while_calls_are_in_flight() -> None:
    choice, pulses = choice_of(8)
    flight = begin(choice)
    choice.add(Pulse(1, 8), 100.0)
    choice.remove(pulses[0])

    assert {begin(choice).member for _ in range(5)} == {1}
    flight.end(101.0)
    assert pulses[0].in_flight == 0
    assert {begin(choice).member for _ in range(5)} == {1}
    assert len(choice) == choice.usable == 1


def test_fewer_slots_are_respected_at_once() -> None:
    choice, pulses = choice_of(8, 8)
    choice.resize(pulses[0], 0, 100.0)

    assert {begin(choice).member for _ in range(8)} == {1}


def test_one_that_broke_down_gets_a_call_when_its_time_has_come_and_is_back_after_its_first_chunk() -> None:
    choice, pulses = choice_of(8, 8)
    break_down(choice, pulses[0], 100.0)
    ready_at = pulses[0].breaker.ready_at
    for _ in range(CALLS_PER_PROBE):
        assert begin(choice, 100.0).member == 1

    probe = begin(choice, ready_at)
    assert probe.member == 0
    assert {begin(choice, ready_at).member for _ in range(20)} == {1}

    probe.first_chunk(ready_at + 1)
    assert begin(choice, ready_at + 1).member == 0


def test_probes_are_a_small_part_of_the_calls_while_others_answer() -> None:
    choice, pulses = choice_of(*[100] * 100)
    for pulse in pulses[:50]:
        break_down(choice, pulse, 100.0)
    flights = [begin(choice, 110.0) for _ in range(120)]

    assert sum(flight.member < 50 for flight in flights) == 120 // (CALLS_PER_PROBE + 1)


def test_a_deployment_that_is_all_open_says_when_and_recovers_by_itself() -> None:
    choice, pulses = choice_of(8, 8, 8)
    for pulse in pulses:
        break_down(choice, pulse, 100.0)

    assert choice.begin(100.0) is None
    wait_s = choice.wait_s(100.0)
    assert 0 < wait_s <= 2
    assert choice.begin(100.0 + wait_s - 0.01) is None
    assert choice.wait_s(100.0 + wait_s) == 0.0
    probes = [begin(choice, 100.0 + wait_s) for _ in pulses]  # each its one
    assert choice.begin(100.0 + wait_s) is None
    assert choice.wait_s(100.0 + wait_s) == math.inf

    probes[1].end(102.0)

    assert begin(choice, 102.0).member == probes[1].member


def test_one_whose_upstream_said_retry_after_is_left_alone_for_that_time() -> None:
    choice, _ = choice_of(8, 8)
    busy = begin(choice)
    busy.refuse(100.0, 20.0)

    assert {begin(choice, 119.9).member for _ in range(8)} == {1 - busy.member}
    assert begin(choice, 120.0).member == busy.member


def test_an_active_check_that_fails_often_opens_and_one_that_succeeds_lets_a_call_through() -> None:
    choice, pulses = choice_of(8, 8)
    for _ in range(FAILURES_IN_A_ROW):
        pulses[0].checked(False, 100.0, 0.5)
    assert {begin(choice, 100.0).member for _ in range(CALLS_PER_PROBE)} == {1}

    pulses[0].checked(True, 100.1, 0.5)

    assert begin(choice, 100.1).member == 0


def test_a_probe_that_is_out_is_not_announced_as_a_next_try() -> None:
    choice, pulses = choice_of(8)
    break_down(choice, pulses[0], 100.0)
    pulses[0].checked(True, 100.1, 0.5)  # earlier than it was first said

    begin(choice, 100.1)

    assert choice.wait_s(100.1) == math.inf
    assert choice.begin(150.0) is None


def test_a_stream_that_was_once_the_probe_does_not_judge_the_next_one() -> None:
    choice, pulses = choice_of(8)
    break_down(choice, pulses[0], 100.0)
    first = begin(choice, 102.0)
    first.first_chunk(102.0)
    break_down(choice, pulses[0], 110.0)
    second = begin(choice, 120.0)

    first.fail(121.0, 0.5)
    assert pulses[0].breaker.state is State.HALF_OPEN

    second.first_chunk(122.0)
    assert pulses[0].breaker.state is State.CLOSED


def test_an_end_that_is_said_twice_counts_once() -> None:
    choice, pulses = choice_of(8)
    flight = begin(choice)
    flight.end(101.0)
    flight.fail(101.0, 0.5)
    flight.abandon(101.0)
    flight.refuse(101.0, 50.0)
    flight.first_chunk(102.0)

    assert pulses[0].in_flight == 0
    assert begin(choice, 102.0).member == 0


def answer(flight: Flight[int], now: float, first_s: float, per_chunk_s: float, chunks: int) -> None:
    flight.first_chunk(now + first_s)
    flight.end(now + first_s + per_chunk_s * chunks, chunks)


def test_longer_answers_and_longer_prompts_are_not_slowness() -> None:
    _, (short, long) = choice_of(8, 8)
    long.norms = short.norms
    for second in range(100):
        now = 100.0 + second / 10
        for size in (100, 20_000):  # both read both, so that there is something to compare with
            answer(short.begin(now, size), now, 0.1 + size * 1e-4, 0.02, 20)
        answer(long.begin(now, 20_000), now, 2.1, 0.02, 900)

    assert short.slowness == pytest.approx(long.slowness, rel=0.1)


@pytest.mark.parametrize(("first", "pace"), [(5.0, 1.0), (1.0, 5.0), (5.0, 5.0)])
def test_slower_first_chunks_or_a_slower_pace_are(first: float, pace: float) -> None:
    _, (quick, slow) = choice_of(8, 8)
    slow.norms = quick.norms
    for second in range(100):
        now = 100.0 + second / 10
        answer(quick.begin(now, 1_000), now, 0.2, 0.02, 50)
        answer(slow.begin(now, 1_000), now, 0.2 * first, 0.02 * pace, 50)

    assert slow.slowness / quick.slowness == pytest.approx(math.sqrt(first * pace), rel=0.2)


def test_whole_answers_are_compared_by_their_length() -> None:
    _, (quick, slow) = choice_of(8, 8)
    slow.norms = quick.norms
    for second in range(100):
        now = 100.0 + second / 10
        tokens = 20 if second % 2 else 500
        quick.begin(now, 1_000, tells_first=False).end(now + 0.02 * tokens, tokens)
        slow.begin(now, 1_000, tells_first=False).end(now + 0.06 * tokens, tokens)

    assert slow.slowness / quick.slowness == pytest.approx(3.0, rel=0.2)


def test_a_call_that_waits_makes_its_replica_slow_before_it_has_answered() -> None:
    choice, pulses = choice_of(64, 64)
    for index in range(20):
        begin(choice, 100.0 + index, size=1_000).first_chunk(100.2 + index)
    for pulse in pulses:
        assert pulse.slowness_at(125.0) == pulse.slowness

    pulses[0].begin(125.0, 1_000)

    assert pulses[0].slowness_at(125.2) < 1.5
    assert pulses[0].slowness_at(126.0) == pytest.approx(5.0, rel=0.1)


def test_a_hedge_that_was_first_tells_that_the_other_is_slow() -> None:
    choice, pulses = choice_of(64, 64)
    for index in range(20):
        begin(choice, 100.0 + index, size=1_000).first_chunk(100.2 + index)

    pulses[0].begin(125.0, 1_000).abandon(125.1)
    assert pulses[0].slowness == 1.0

    pulses[0].begin(125.0, 1_000).abandon(126.0)
    assert pulses[0].slowness > 2


def test_what_is_still_to_be_read_counts_as_load() -> None:
    choice, pulses = choice_of(64, 64)
    long = pulses[0].begin(100.0, 100_000)
    for _ in range(5):
        pulses[1].begin(100.0, 100)
    assert begin(choice, 100.0, size=100).member == 1

    long.first_chunk(101.0)

    assert pulses[0].unread == 0
    assert begin(choice, 101.0, size=100).member == 0


def text(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def conversation(
    choice: Choice[int], seed: int, turns: int, grows: int = 1_500, first: int = 2_000
) -> set[int]:
    members = set()
    for turn in range(turns):
        start = text(seed, first + 20 * grows)[: first + turn * grows]
        now = 200.0 + turn * 5
        flight = begin(choice, now, start=start, size=len(start))
        answer(flight, now, 0.1, 0.02, 50)
        members.add(flight.member)
    return members


def test_a_conversation_that_grows_stays_on_its_replica() -> None:
    choice, _ = choice_of(*[64] * 20)

    assert [len(conversation(choice, seed, 10)) for seed in range(50)] == [1] * 50


def test_conversations_spread_over_the_replicas() -> None:
    choice, _ = choice_of(*[64] * 8)
    used = Counter(member for seed in range(400) for member in conversation(choice, seed, 1))

    assert set(used) == set(range(8))


def test_affinity_yields_to_load() -> None:
    choice, pulses = choice_of(*[64] * 4)
    start = text(1, 4_000)
    flights = [begin(choice, 100.0, start=start, size=4_000) for _ in range(120)]

    assert min(pulse.in_flight for pulse in pulses) >= 20
    assert len({flight.member for flight in flights[:4]}) < 4  # a few wait for the one that reads it


def test_a_popular_beginning_is_not_sent_to_one_that_is_full_drains_or_has_failed() -> None:
    choice, pulses = choice_of(*[4] * 3)
    start = text(1, 30_000)
    flight = begin(choice, 100.0, start=start, size=30_000)
    holder = flight.member
    flight.first_chunk(103.0)
    assert begin(choice, 103.0, start=start, size=30_000).member == holder

    assert begin(choice, 103.0, start=start, size=30_000, avoid=[holder]).member != holder
    choice.drain(pulses[holder], True, 103.0)
    assert begin(choice, 103.0, start=start, size=30_000).member != holder
    choice.drain(pulses[holder], False, 103.0)
    while pulses[holder].has_room:
        pulses[holder].begin(103.0)
    assert begin(choice, 103.0, start=start, size=30_000).member != holder


def test_a_slow_one_is_looked_at_again_and_is_as_good_as_others_when_it_has_recovered() -> None:
    choice, pulses = choice_of(64, 64)
    for index in range(40):
        for pulse, first_s in zip(pulses, (0.1, 0.5), strict=True):
            now = 100.0 + index / 10
            answer(pulse.begin(now, 1_000), now, first_s, 0.0, 0)
    slow = pulses[1]
    assert slow.slowness > 2

    shares = []
    for second in range(105, 145):
        taken = 0
        for step in range(50):
            now = second + step / 50
            flight = begin(choice, now, size=1_000)
            taken += flight.member
            answer(flight, now, 0.1, 0.0, 0)
        shares.append(taken / 50)

    assert shares[0] < 0.2
    assert sum(shares[-20:]) / 20 > 0.3


def test_two_random_choices_spread_better_than_one() -> None:
    choice, pulses = choice_of(*[None] * 500)
    for _ in range(5_000):
        begin(choice)
    luck = random.Random(1)
    blind = Counter(luck.randrange(500) for _ in range(5_000))

    assert max(pulse.in_flight for pulse in pulses) <= 13
    assert max(blind.values()) >= 18


class Fleet(RuleBasedStateMachine):
    """Any order of calls, ends, breakdowns and changes of the fleet."""

    @initialize(slots=st.lists(st.none() | st.integers(1, 4), min_size=1, max_size=5), seed=st.integers(0))
    def start(self, slots: list[int | None], seed: int) -> None:
        self.luck = random.Random(seed)
        self.pulses = [Pulse(index, its) for index, its in enumerate(slots)]
        self.choice = Choice(self.luck.random, self.pulses)
        self.now = 1_000.0
        self.flights: list[Flight[int]] = []
        self.numbers = len(slots)

    def open_to_calls(self) -> list[Pulse[int]]:
        return [p for p in self.pulses if not p.is_draining and p.breaker.is_ready(self.now)]

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(start=st.sampled_from([b"", b"a" * 300, b"a" * 900, b"b" * 2_000]), tells_first=st.booleans())
    def call(self, start: bytes, tells_first: bool) -> None:
        able = self.open_to_calls()
        roomy = [pulse for pulse in able if pulse.has_room and pulse.breaker.state is State.CLOSED]
        before = {pulse.member: pulse.has_room for pulse in self.pulses}
        was = {pulse.member: pulse.breaker.state for pulse in self.pulses}
        assert (self.choice.wait_s(self.now) == 0.0) == bool(able)

        flight = self.choice.begin(self.now, start, len(start), tells_first)

        assert (flight is not None) == bool(able)
        if flight is None:
            return
        self.flights.append(flight)
        assert flight.member in [pulse.member for pulse in able]
        if was[flight.member] is State.CLOSED and roomy:
            assert before[flight.member]

    @precondition(lambda self: self.flights)
    @rule(
        index=st.integers(0),
        end=st.sampled_from(["first", "end", "fail", "refuse", "abandon"]),
        told_s=st.none() | st.floats(0, 30),
    )
    def come(self, index: int, end: str, told_s: float | None) -> None:
        at = index % len(self.flights)
        flight = self.flights[at] if end == "first" else self.flights.pop(at)
        match end:
            case "first":
                flight.first_chunk(self.now)
            case "end":
                flight.end(self.now, 20)
            case "fail":
                flight.fail(self.now, self.luck.random())
            case "refuse":
                flight.refuse(self.now, told_s)
            case _:
                flight.abandon(self.now)

    @rule(index=st.integers(0))
    def break_down(self, index: int) -> None:
        pulse = self.pulses[index % len(self.pulses)] if self.pulses else None
        for _ in range(FAILURES_IN_A_ROW if pulse is not None else 0):
            assert pulse is not None
            pulse.checked(False, self.now, self.luck.random())

    @rule(slots=st.none() | st.integers(1, 4))
    def add(self, slots: int | None) -> None:
        self.pulses.append(Pulse(self.numbers, slots))
        self.choice.add(self.pulses[-1], self.now)
        self.numbers += 1

    @precondition(lambda self: self.pulses)
    @rule(index=st.integers(0), what=st.sampled_from(["remove", "drain", "undrain", "resize", "well"]))
    def change(self, index: int, what: str) -> None:
        pulse = self.pulses[index % len(self.pulses)]
        match what:
            case "remove":
                self.pulses.remove(pulse)
                self.choice.remove(pulse)
            case "resize":
                self.choice.resize(pulse, self.luck.choice([None, 1, 3]), self.now)
            case "well":
                pulse.checked(True, self.now, 0.5)
            case _:
                self.choice.drain(pulse, what == "drain", self.now)

    @invariant()
    def in_flight_is_what_has_not_ended(self) -> None:
        running = Counter(flight.member for flight in self.flights)
        for pulse in self.pulses:
            assert pulse.in_flight == running[pulse.member]

    @invariant()
    def a_next_try_comes_unless_a_probe_is_out(self) -> None:
        wait_s = self.choice.wait_s(self.now)
        idle = [p for p in self.pulses if not p.is_draining and p.breaker.state is not State.HALF_OPEN]
        assert (wait_s <= LONGEST_SHUT_S) == bool(idle)


TestFleet = Fleet.TestCase
