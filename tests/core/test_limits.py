import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.admission import Allowance, Subject, Wish
from scibox.core.limits import Moment, Verdict, Windows
from scibox.core.types import Limits

NOON = 1_795_608_000.0  # 2026-11-25T12:00Z, less twelve hours of nothing


def at(clock: float) -> Moment:
    return Moment(clock, NOON + clock)


def wish(call_id: str, *subjects: Subject, tokens: int = 10, texts: int = 0) -> Wish:
    return Wish(
        call_id,
        "key_1",
        "team",
        1.0,
        "m",
        "interactive",
        tokens // 2,
        tokens - tokens // 2,
        texts,
        60.0,
        subjects,
    )


def take(limiter: Windows, of: Wish, clock: float = 0.0) -> Verdict:
    verdicts: list[Verdict] = []
    limiter.take(of, at(clock), verdicts.append)
    assert len(verdicts) == 1
    return verdicts[0]


def left(limiter: Windows, subject: Subject, clock: float = 0.0) -> dict[str, Allowance]:
    got: list[Allowance] = []
    limiter.allowances([subject], at(clock), got.extend)
    return {allowance.limit: allowance for allowance in got}


KEY = Subject("key:key_1", Limits(calls_per_second=2, tokens_per_minute=100))
TEAM = Subject("owner:team", Limits(calls_in_flight=2, tokens_per_day=1_000))


def test_a_call_takes_from_every_subject_or_from_none() -> None:
    limiter = Windows()
    for number in ("1", "2"):
        verdict = take(limiter, wish(number, KEY, TEAM))
        assert verdict.taken
        assert verdict.left == [*left(limiter, KEY).values(), *left(limiter, TEAM).values()]
    before = left(limiter, KEY), left(limiter, TEAM)

    verdict = take(limiter, wish("3", KEY, TEAM))

    assert (verdict.taken, verdict.subject, verdict.limit) == (False, "key:key_1", "calls_per_second")
    assert verdict.wait_s == pytest.approx(1.001, abs=0.002)
    assert (left(limiter, KEY), left(limiter, TEAM)) == before
    assert take(limiter, wish("3", KEY, TEAM), 1.1).limit == "calls_in_flight"
    assert take(limiter, wish("3", KEY, TEAM), 1.1).wait_s is None

    limiter.settle("1", 4, at(1.1))
    assert take(limiter, wish("3", KEY, TEAM), 1.1).taken


def test_the_one_that_blocks_longest_is_named() -> None:
    limiter = Windows()
    subject = Subject("owner:team", Limits(calls_per_second=1, calls_per_minute=1, calls_in_flight=1))
    take(limiter, wish("1", subject))

    assert take(limiter, wish("2", subject)).limit == "calls_per_minute"


def test_a_used_up_quota_is_final_and_says_when_it_ends() -> None:
    limiter = Windows()
    limiter.load_used(TEAM, 1_000, 5_000, at(0.0))

    verdict = take(limiter, wish("1", TEAM))

    assert (verdict.limit, verdict.is_final) == ("tokens_per_day", True)
    assert verdict.wait_s == left(limiter, TEAM)["tokens_per_day"].reset_s
    assert 0 < verdict.wait_s <= 86_400


def test_a_limit_of_nothing_is_final_for_ever() -> None:
    for limits in (Limits(calls_in_flight=0), Limits(calls_per_minute=0), Limits(tokens_per_minute=0)):
        verdict = take(Windows(), wish("1", Subject("key:key_1", limits)))
        assert verdict.is_final
        assert verdict.wait_s == math.inf


def test_a_final_one_is_named_before_one_that_passes_later() -> None:
    limiter = Windows()
    midnight = NOON - NOON % 86_400 + 86_400
    at_end = Moment(0.0, midnight - 5.0)
    subject = Subject("owner:team", Limits(calls_per_minute=1, tokens_per_day=10))
    verdicts: list[Verdict] = []
    limiter.take(wish("1", subject), at_end, verdicts.append)
    limiter.settle("1", 10, at_end)

    limiter.take(wish("2", subject), at_end, verdicts.append)

    assert [(verdict.limit, verdict.wait_s) for verdict in verdicts[1:]] == [("tokens_per_day", 5.0)]


def test_what_a_call_does_not_need_does_not_stop_it_though_a_limit_was_lowered_below_what_was_used() -> None:
    limiter = Windows()
    take(
        limiter,
        wish(
            "1", Subject("key:key_1", Limits(texts_per_minute=50, tokens_per_minute=50)), tokens=40, texts=40
        ),
    )
    lower = Subject("key:key_1", Limits(texts_per_minute=5, tokens_per_minute=5))

    assert take(limiter, wish("2", lower, tokens=0)).taken
    assert take(limiter, wish("3", lower, tokens=1)).limit == "tokens_per_minute"
    assert take(limiter, wish("3", lower, tokens=0, texts=1)).limit == "texts_per_minute"


def test_a_call_of_no_texts_is_not_stopped_by_a_limit_of_texts() -> None:
    limiter, subject = Windows(), Subject("key:key_1", Limits(texts_per_minute=5))
    assert take(limiter, wish("1", subject, texts=50)).taken

    assert take(limiter, wish("2", subject, texts=1)).limit == "texts_per_minute"
    assert take(limiter, wish("2", subject)).taken


def test_settling_twice_is_as_settling_once() -> None:
    limiter = Windows()
    take(limiter, wish("1", TEAM, tokens=100))
    limiter.settle("1", 40, at(0.0))
    limiter.settle("1", 40, at(0.0))

    assert left(limiter, TEAM)["tokens_per_day"].remaining == 960
    assert left(limiter, TEAM)["calls_in_flight"].remaining == 2


def test_changed_limits_hold_at_once_with_what_was_used() -> None:
    limiter = Windows()
    for number in range(3):
        assert take(limiter, wish(str(number), Subject("owner:team", Limits(calls_per_minute=10)))).taken

    tighter = Subject("owner:team", Limits(calls_per_minute=4, tokens_per_day=100))

    assert left(limiter, tighter)["calls_per_minute"].remaining == 1
    assert take(limiter, wish("4", tighter)).taken
    assert not take(limiter, wish("5", tighter)).taken
    limiter.settle("0", 5, at(0.0))


def test_idle_subjects_are_forgotten_and_used_ones_are_not() -> None:
    limiter = Windows()
    take(limiter, wish("1", TEAM))
    limiter.settle("1", 7, at(0.0))
    for number in range(5 * Windows.SWEEP_AT):
        of = Subject(f"key:{number}", Limits(calls_per_second=1))
        take(limiter, wish(f"call {number}", of), number)
        limiter.settle(f"call {number}", 1, at(number))

    assert len(limiter._held) <= 2 * Windows.SWEEP_AT
    assert left(limiter, TEAM, 5_000.0)["tokens_per_day"].remaining == 993


calls = st.lists(
    st.tuples(st.floats(0.0, 5.0), st.integers(1, 40), st.integers(0, 60), st.integers(0, 3)), max_size=60
)


@given(calls)
def test_allowances_are_what_can_be_taken(calls: list[tuple[float, int, int, int]]) -> None:
    limits = Limits(
        calls_per_second=3, calls_per_minute=20, tokens_per_minute=200, calls_in_flight=4, tokens_per_day=900
    )
    limiter, subject, clock = Windows(), Subject("key:key_1", limits), 0.0
    running: list[tuple[str, int]] = []
    for number, (step_s, tokens, used, end) in enumerate(calls):
        clock += step_s
        if end and running:
            call_id, _ = running.pop(0)
            limiter.settle(call_id, used, at(clock))
        there = left(limiter, subject, clock)
        could = all(
            allowance.remaining >= (min(tokens, 200) if limit == "tokens_per_minute" else 1)
            for limit, allowance in there.items()
        )

        assert take(limiter, wish(str(number), subject, tokens=tokens), clock).taken == could
        if could:
            running.append((str(number), tokens))
            now = left(limiter, subject, clock)
            assert now["calls_per_second"].remaining == there["calls_per_second"].remaining - 1
            assert now["tokens_per_minute"].remaining == there["tokens_per_minute"].remaining - tokens
            assert now["calls_in_flight"].remaining == 4 - len(running)
    for call_id, _ in running:
        limiter.settle(call_id, 0, at(clock))
    assert left(limiter, subject, clock)["calls_in_flight"].remaining == 4
    assert left(limiter, subject, clock + 61)["tokens_per_minute"].remaining == 200
