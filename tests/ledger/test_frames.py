"""Frames: what is whole is read, what is torn or damaged is left out, and nothing else is lost with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_entries import entries, entry, opened

from scibox.ledger import frames
from scibox.ledger.frames import Record

some = st.lists(entries(st.integers(0, 99)) | st.integers(0, 99).map(opened), max_size=6)


def records(data: bytes) -> list[Record]:
    return [record for _, record in frames.read(data).records]


@given(some, st.integers(0, 300))
def test_what_is_written_is_read_with_reserved_space_behind_it(written: list[Record], zeros: int) -> None:
    pieces = [frames.frame(record) for record in written]
    stretch = frames.read(b"".join(pieces) + bytes(zeros))

    assert [record for _, record in stretch.records] == written
    assert stretch.end == sum(map(len, pieces))
    assert stretch.lost_bytes == 0


@pytest.mark.parametrize("rest", [b"", bytes(4096)])
def test_a_write_torn_at_any_byte_is_cut_and_counts_as_nothing(rest: bytes) -> None:
    before, torn = frames.frame(opened(1)), frames.frame(entry(1))
    told = torn.rstrip(b"\0") if rest else torn  # zeros at its end stand in the reserved space already
    for length in range(len(told)):
        stretch = frames.read(before + torn[:length] + rest)

        assert [record for _, record in stretch.records] == [opened(1)]
        assert (stretch.end, stretch.lost_bytes) == (len(before), 0)


def test_damage_at_any_byte_loses_the_damaged_record_only() -> None:
    first, second, third = (frames.frame(entry(number)) for number in range(3))
    for at in range(len(second)):
        damaged = bytearray(second)
        damaged[at] ^= 0x5A
        stretch = frames.read(first + bytes(damaged) + third)

        assert [record for _, record in stretch.records] == [entry(0), entry(2)]
        assert stretch.lost_bytes == len(second)


def test_blocks_of_zeros_in_the_middle_lose_what_was_in_them() -> None:
    """So a segment may look after a loss of power: later pages reached the disk, earlier ones did not."""
    pieces = [frames.frame(entry(number)) for number in range(9)]
    whole = bytearray(b"".join(pieces))
    start, stop = sum(map(len, pieces[:3])), sum(map(len, pieces[:6]))
    whole[start + 7 : stop - 7] = bytes(stop - start - 14)

    assert records(bytes(whole)) == [entry(number) for number in (0, 1, 2, 6, 7, 8)]


@given(st.binary(max_size=400), some)
def test_any_bytes_before_are_skipped(junk: bytes, written: list[Record]) -> None:
    data = junk + b"".join(map(frames.frame, written))

    assert records(data)[-len(written) :] == written or not written


def test_a_record_of_an_unknown_kind_is_counted_as_lost_and_passed_over() -> None:
    data = frames.frame(entry(1))
    payload = data[13:].replace(b"chat", b"song", 1)  # whole in form, after its sum is mended
    kind = data[len(frames.MAGIC)]
    stranger = frames._HEAD.pack(frames.MAGIC, kind, len(payload), frames._sum(kind, payload)) + payload
    stretch = frames.read(stranger + data)

    assert payload != data[13:]
    assert [record for _, record in stretch.records] == [entry(1)]
    assert stretch.lost_bytes == len(stranger)


FORMER = (  # as SciBox wrote it until November 2026
    b"\xf5SBJO\xb0\x00\x00\x00G\x00\xcb\x84"
    b'{"request_id":"req_00000001","opened_at":1793491217.25,"key_id":"key_1","owner":"team-1","model":"m1",'
    b'"kind":"chat","endpoint":"/chat/completions","prompt_tokens":90,"texts":0}'
    b"\xf5SBJE\x7f\x01\x00\x00v`dB"
    b'{"request_id":"req_00000001","opened_at":1793491217.25,"key_id":"key_1","owner":"team-1","model":"m1",'
    b'"kind":"chat","endpoint":"/chat/completions","usage":{"prompt_tokens":101,"completion_tokens":20,'
    b'"cached_tokens":10,"reasoning_tokens":5},"delivered_tokens":20,"deployment":0,"replica":"http://gpu1:8000"'
    b',"attempts":1,"queued_s":0.25,"first_chunk_s":0.5,"total_s":2.0,"price":0.125}'
)


def test_a_journal_of_a_former_version_is_read_before_and_behind_new_records() -> None:
    new = frames.frame(opened(2)) + frames.frame(entry(2))

    assert records(new + FORMER + new) == [
        *(opened(2), entry(2)),
        *(opened(1), entry(1)),
        *(opened(2), entry(2)),
    ]
    assert records(FORMER[:-40] + b"x" + FORMER[-39:]) == [opened(1)]
