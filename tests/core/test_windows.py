import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.windows import CELLS, Window

lengths = st.sampled_from([1.0, 60.0])
amounts = st.integers(1, 50)
steps = st.lists(
    st.tuples(st.floats(0.0, 0.7), st.integers(1, 60)), min_size=1, max_size=80
)  # parts of a window


def most_in_any_window(taken: list[tuple[float, int]], length_s: float) -> int:
    """The fullest window: it may as well end at one of the moments something was taken."""
    return max(
        (
            sum(units for when, units in taken if end - length_s + 1e-6 < when <= end)
            for end, _ in taken
        ),
        default=0,
    )  # fmt: skip


@given(amounts, lengths, steps)
def test_no_window_holds_more_than_the_amount(
    amount: int, length_s: float, steps: list[tuple[float, int]]
) -> None:
    window, now, taken = Window(amount, length_s), 1_000.0, []
    for part, units in steps:
        now += part * length_s
        if window.take(units, now):
            taken.append((now, window.clamp(units)))

    assert most_in_any_window(taken, length_s) <= amount


@given(amounts, lengths, steps)
def test_what_is_waited_for_fits_and_a_little_less_is_too_early(
    amount: int, length_s: float, steps: list[tuple[float, int]]
) -> None:
    window, now = Window(amount, length_s), 1_000.0
    for part, units in steps:
        now += part * length_s
        wait_s = window.wait_for(units, now)
        if wait_s == 0:
            assert window.take(units, now)
        else:
            assert wait_s <= length_s * (1 + 2 / CELLS)
            assert (
                not window.take(units, now + wait_s - 2.5 * length_s / CELLS)
                or wait_s < 2.5 * length_s / CELLS
            )
            now += wait_s
            assert window.wait_for(units, now) == 0 or window.amount < units


@given(amounts, lengths, st.lists(st.integers(1, 10), min_size=1, max_size=5))
def test_at_least_99_percent_is_usable_by_those_who_always_wait(
    amount: int, length_s: float, sizes: list[int]
) -> None:
    sizes = [size for size in sizes if amount % size == 0] or [1]  # else the last units cannot fit by size
    size = sizes[0]
    window, now, taken = Window(amount, length_s), 5.0, 0
    while now < 5.0 + 20 * length_s:
        if wait_s := window.wait_for(size, now):
            now += wait_s
        else:
            assert window.take(size, now)
            taken += size

    assert taken >= 0.99 * 20 * amount


@given(amounts, st.integers(1, 50), st.integers(0, 50), st.floats(0.0, 0.9))
def test_what_was_not_used_is_given_back_exactly(amount: int, units: int, used: int, part: float) -> None:
    window = Window(amount, 60.0)
    window.take(units, 100.0)
    reserved = window.clamp(units)
    used = min(used, reserved)

    window.settle(100.0, reserved, used, 100.0 + 60 * part)

    assert window.remaining(100.0 + 60 * part) == amount - used
    assert window.remaining(161.0) == amount


def test_what_was_used_beyond_the_reservation_is_charged_when_it_is_known() -> None:
    window = Window(10, 60.0)
    window.take(100, 0.0)

    window.settle(0.0, window.clamp(100), 25, 30.0)

    assert window.used == 25
    assert window.remaining(30.0) == 0
    assert window.remaining(61.0) == 0  # the 15 beyond count from second 30 on
    assert window.wait_for(1, 61.0) == pytest.approx(29.1, abs=0.1)
    assert window.remaining(91.0) == 10


@pytest.mark.parametrize("begin", [100.0, 100.00049, 100.00099])
def test_what_was_taken_counts_to_the_last_moment_of_a_window(begin: float) -> None:
    window = Window(10, 1.0)
    window.take(10, begin)

    assert not window.take(1, begin + 1.0 - 1e-6)
    assert window.take(10, begin + 1.0011)


def test_what_is_taken_while_the_clock_is_back_counts_from_where_it_was() -> None:
    window = Window(10, 1.0)
    assert window.remaining(1_000.0) == 10
    assert window.wait_for(1, 900.0) == 0
    window.take(10, 900.0)

    assert window.remaining(1_000.5) == 0
    assert window.remaining(1_001.1) == 10


def test_a_call_larger_than_the_limit_passes_when_the_window_is_empty() -> None:
    window = Window(10, 1.0)

    assert window.take(1_000, 0.0)
    assert not window.take(1, 0.5)
    assert window.take(1_000, 1.01)


def test_nothing_passes_a_limit_of_nothing() -> None:
    assert math.isinf(Window(0, 1.0).wait_for(1, 0.0))


@given(steps, st.floats(0.0, 100.0))
def test_a_clock_that_steps_back_opens_nothing_and_blocks_nothing(
    steps: list[tuple[float, int]], back_s: float
) -> None:
    window = Window(10, 1.0)
    now = 1_000.0
    for part, units in steps:
        now += part
        window.take(units, now)
        held = window.used
        assert window.remaining(now - back_s) == 10 - held
        window.take(units, now - back_s)
        assert window.used <= 10
    assert window.remaining(now + 1.1) == 10


def test_after_a_pause_the_window_is_empty_and_no_fuller_than_ever() -> None:
    window = Window(10, 1.0)
    window.take(10, 0.0)

    taken = sum(window.take(1, 30.0) for _ in range(100))

    assert taken == 10
    window.settle(0.0, 10, 0, 30.0)  # what ended in the pause gives nothing back: it had passed
    assert window.remaining(30.0) == 0


@given(amounts, lengths, steps)
def test_the_reset_is_when_all_is_there_again(
    amount: int, length_s: float, steps: list[tuple[float, int]]
) -> None:
    window, now = Window(amount, length_s), 1_000.0
    for part, units in steps:
        now += part * length_s
        window.take(units, now)

    reset_s = window.reset_s(now)

    if reset_s:
        assert window.remaining(max(now, now + reset_s - 2.5 * length_s / CELLS)) < amount
    assert window.remaining(now + reset_s) == amount


def test_memory_is_bounded_by_the_cells() -> None:
    window = Window(10**9, 1.0)
    for number in range(100_000):
        window.take(1, number * 0.0001)

    assert len(window._cells) <= CELLS + 2
    assert len(window._order) <= CELLS + 2
