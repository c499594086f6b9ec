from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scibox.engines.embedder.line import Batch, Line, Place, padded

lengths = st.lists(st.integers(1, 512), max_size=40)
calls = st.lists(lengths, max_size=8)


def drain(line: Line) -> list[Batch]:
    taken = []
    while batch := line.take():
        taken.append(batch)
    return taken


@given(calls, st.integers(1, 4096))
def test_every_text_runs_exactly_once(given_calls: list[list[int]], batch_tokens: int) -> None:
    line = Line(batch_tokens, 512)
    for number, texts in enumerate(given_calls):
        line.join(number, texts)

    places = [place for batch in drain(line) for place in batch.places]

    wanted = [Place(n, i) for n, texts in enumerate(given_calls) for i in range(len(texts))]
    assert sorted(places, key=lambda p: (p.call, p.index)) == wanted


@given(calls, st.integers(1, 4096))
def test_a_batch_keeps_its_bound_and_one_padded_length(
    given_calls: list[list[int]], batch_tokens: int
) -> None:
    line = Line(batch_tokens, 512)
    for number, texts in enumerate(given_calls):
        line.join(number, texts)

    for batch in drain(line):
        assert len(batch.places) * batch.length <= batch_tokens or len(batch.places) == 1
        assert {padded(given_calls[p.call][p.index], 512) for p in batch.places} == {batch.length}


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_padding_is_enough_small_and_within_the_limit(length: int, limit: int) -> None:
    if length > limit:
        return
    found = padded(length, limit)

    assert length <= found <= limit
    assert found - length < max(4, length / 7)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=200), lengths.filter(len))
def test_a_short_call_waits_for_one_batch_of_the_bulk_call_at_most(bulk: list[int], short: list[int]) -> None:
    line = Line(2048, 512)
    line.join(1, bulk)
    line.take()
    line.join(2, short)

    batches = drain(line)
    last = max(i for i, batch in enumerate(batches) if any(p.call == 2 for p in batch.places))

    # Every other turn is the short call's until it is done.
    assert last <= 2 * len(short)


def test_calls_take_turns() -> None:
    line = Line(64, 512)
    line.join(1, [64, 64, 64])
    line.join(2, [40, 40])

    assert [batch.places[0].call for batch in drain(line)] == [1, 2, 1, 2, 1]


def test_room_left_is_given_to_texts_of_the_same_length_of_other_calls() -> None:
    line = Line(64, 512)
    line.join(1, [16])
    line.join(2, [15, 30])
    line.join(3, [14])

    first = line.take()

    assert first == Batch(16, (Place(1, 0), Place(2, 0), Place(3, 0)))


def test_what_left_does_not_run() -> None:
    line = Line(64, 512)
    line.join(1, [64, 64])
    line.join(2, [64])
    line.leave(1)

    assert [batch.places for batch in drain(line)] == [(Place(2, 0),)]
    assert line.take() is None
