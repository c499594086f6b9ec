from hypothesis import given
from hypothesis import strategies as st

from scibox.core.returning import Returning

lucks = st.floats(0.0, 1.0, exclude_max=True)


@given(st.lists(st.tuples(st.floats(0.0, 200.0), st.floats(0.0, 30.0), lucks), min_size=1, max_size=100))
def test_what_is_told_is_within_a_second_and_a_minute(calls: list[tuple[float, float, float]]) -> None:
    returning = Returning()
    for excess_s, pace_s, luck in calls:
        assert 1 <= returning.refuse("a", excess_s, pace_s, 0.0, luck) <= 60


@given(
    st.integers(1, 40), st.floats(0.05, 1.2), st.floats(0.0, 10.0), st.lists(lucks, min_size=40, max_size=40)
)
def test_those_who_wait_it_find_room_one_after_the_other(
    refused: int, pace_s: float, excess_s: float, lucks: list[float]
) -> None:
    """A queue with room for one more at `excess_s` and then every `pace_s`: the n-th to return is not before the n-th room."""
    returning = Returning()
    told = sorted(returning.refuse("a", excess_s, pace_s, 0.0, luck) for luck in lucks[:refused])

    for number, seconds in enumerate(told):
        assert seconds >= min(excess_s + number * pace_s, 54.0) - 1e-9


def test_they_are_spread_and_not_all_sent_to_the_same_second() -> None:
    returning = Returning()
    told = [returning.refuse("a", 20.0, 0.01, 0.0, number / 20) for number in range(20)]

    assert len(set(told)) >= 3


def test_who_comes_back_in_time_is_expected_once() -> None:
    returning = Returning()
    seconds = returning.refuse("a", 10.0, 1.0, 100.0, 0.5)
    assert returning.ahead("a", 100.0) == 1

    assert not returning.is_expected("a", 105.0)
    assert not returning.is_expected("b", 100.0 + seconds)
    assert returning.is_expected("a", 100.0 + seconds)
    assert not returning.is_expected("a", 100.0 + seconds)
    assert returning.ahead("a", 100.0 + seconds) == 0


def test_one_owners_refused_calls_do_not_put_off_anothers() -> None:
    returning = Returning()
    for _ in range(100):
        returning.refuse("flood", 10.0, 1.0, 0.0, 0.0)

    assert returning.refuse("modest", 2.0, 1.0, 0.0, 0.0) == 2


def test_those_who_do_not_come_back_are_forgotten() -> None:
    returning = Returning()
    for number in range(10_000):
        returning.refuse(f"owner {number}", 1.0, 1.0, float(number), 0.0)

    assert len(returning._booked) <= 1_100
    assert returning.refuse("owner 1", 1.0, 1.0, 20_000.0, 0.0) == 1
