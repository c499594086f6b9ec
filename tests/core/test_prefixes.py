import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.prefixes import (
    HOLDERS,
    LEAST_MARKS,
    LENGTHS,
    MOST_BYTES,
    MOST_MARKS,
    Prefixes,
    beginning,
    marks,
)
from scibox.core.pulse import Pulse


@given(st.binary(max_size=3_000), st.binary(max_size=3_000))
def test_marks_are_the_same_as_far_as_the_bytes_are(one: bytes, other: bytes) -> None:
    common = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if common is None:
        common = min(len(one), len(other))
    shared = sum(length <= common for length in LENGTHS)

    assert marks(one)[:shared] == marks(other)[:shared]
    assert len(marks(one)) == sum(length <= len(one) for length in LENGTHS)


def test_marks_differ_after_the_first_byte_that_does() -> None:
    one = random.Random(1).randbytes(5_000)
    other = one[:1_000] + bytes([one[1_000] ^ 1]) + one[1_001:]
    shared = sum(length <= 1_000 for length in LENGTHS)

    assert all(a != b for a, b in zip(marks(one)[shared:], marks(other)[shared:], strict=True))


def test_the_longest_part_that_was_read_is_found_and_by_whom() -> None:
    prefixes: Prefixes[int] = Prefixes()
    short, long = Pulse(0), Pulse(1)
    start = random.Random(1).randbytes(10_000)
    prefixes.read(marks(start[:1_000]), short)
    prefixes.read(marks(start[:4_000]), long)
    asked = marks(start)

    holders, at = prefixes.longest(asked)

    assert holders == [long]
    assert 4_000 / 1.5 < LENGTHS[at] <= 4_000
    assert prefixes.known(asked, at, long) == LENGTHS[at]
    assert 1_000 / 1.5 < prefixes.known(asked, at, short) <= 1_000
    assert prefixes.known(asked, at, Pulse(2)) == 0
    assert prefixes.longest(marks(b"x" * 10_000)) == ([], -1)
    assert prefixes.longest([]) == ([], -1)


def test_a_popular_beginning_remembers_the_last_replicas_that_read_it_once_each() -> None:
    prefixes: Prefixes[int] = Prefixes()
    pulses = [Pulse(number) for number in range(HOLDERS + 5)]
    asked = marks(b"a" * 300)
    for pulse in [*pulses, *pulses[-3:]]:
        prefixes.read(asked, pulse)

    holders, _ = prefixes.longest(asked)

    assert len(holders) == HOLDERS
    assert {pulse.member for pulse in holders} == set(range(5, HOLDERS + 5))
    assert holders[-1] is pulses[-1]


def test_what_was_not_used_for_longest_is_forgotten() -> None:
    prefixes: Prefixes[int] = Prefixes()
    pulse = Pulse(0)
    old, used = marks(b"a" * 300), marks(b"b" * 300)
    prefixes.read(old, pulse)
    prefixes.read(used, pulse)
    for number in range(prefixes.most):
        prefixes.read([number * 2**33 + 1], pulse)
        if number % 100 == 0:
            prefixes.read(used, pulse)

    assert len(prefixes) == prefixes.most
    assert prefixes.longest(old) == ([], -1)
    assert prefixes.longest(used)[0] == [pulse]


@pytest.mark.parametrize(("replicas", "most"), [(1, LEAST_MARKS), (20, 20 * 1_024), (5_000, MOST_MARKS)])
def test_the_table_grows_with_the_replicas_up_to_a_bound(replicas: int, most: int) -> None:
    prefixes: Prefixes[int] = Prefixes()
    prefixes.resize(replicas)

    assert prefixes.most == most


def test_the_beginning_is_in_the_order_in_which_templates_write_it() -> None:
    fields = {"model": b'"m"', "messages": b'[{"role":"user"}]', "tools": b'[{"type":"function"}]'}

    assert beginning(fields) == b'[{"type":"function"}][{"role":"user"}]'
    assert beginning({"prompt": b'"Once"'}) == b'"Once"'
    assert beginning({"model": b'"m"'}) == b""
    assert len(beginning({"tools": b"a" * 20_000, "messages": b"b" * 50_000})) == MOST_BYTES
    assert beginning({"tools": b"a" * 50_000, "messages": b"b"}) == b"a" * MOST_BYTES
