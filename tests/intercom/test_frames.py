"""The intercom's language: what is written is read again, however the bytes are cut."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.core import errors
from scibox.intercom.frames import (
    MAX_BYTES,
    Answer,
    Ask,
    Drop,
    Failed,
    Fault,
    Message,
    NoFrame,
    Note,
    Splitter,
    Tell,
    body,
    error,
    fault,
    frame,
)

REF = st.integers(0, 2**63 - 1)
BODY = st.binary(max_size=300).map(lambda content: msgspec.Raw(body(content)))
TEXT = st.text(max_size=60)
FAULT = st.builds(Fault, TEXT, TEXT, TEXT, st.none() | TEXT, st.none() | REF, st.none() | st.booleans())
MESSAGE = st.one_of(
    st.builds(Ask, REF, TEXT, BODY),
    st.builds(Drop, REF),
    st.builds(Tell, TEXT, BODY),
    st.builds(Note, REF, BODY),
    st.builds(Answer, REF, BODY),
    st.builds(Failed, REF, FAULT),
)


def plain(message: Message) -> tuple[str, object]:
    """A message in a form that can be compared: `Raw`s are views of different bytes."""
    return type(message).__name__, msgspec.to_builtins(
        [
            bytes(value) if isinstance(value, msgspec.Raw) else value
            for value in msgspec.structs.astuple(message)
        ]
    )


@given(st.lists(MESSAGE, max_size=8), st.data())
def test_any_split_of_the_bytes_gives_the_same_messages(messages: list[Message], data: st.DataObject) -> None:
    stream = b"".join(frame(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    splitter = Splitter()
    found: list[Message] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += splitter.feed(stream[start:end])

    assert [plain(message) for message in found] == [plain(message) for message in messages]


@given(st.binary(min_size=1, max_size=40))
def test_what_is_no_message_is_refused(content: bytes) -> None:
    stream = struct.pack(">I", len(content)) + content
    try:
        messages = list(Splitter().feed(stream))
    except NoFrame:
        return
    # What is read nevertheless must be a message that is written so, or with other lengths of numbers.
    again = list(Splitter().feed(b"".join(frame(message) for message in messages)))
    assert [plain(message) for message in again] == [plain(message) for message in messages]


def test_a_length_that_nobody_sends_ends_it_before_it_is_waited_for() -> None:
    with pytest.raises(NoFrame):
        list(Splitter().feed(struct.pack(">I", MAX_BYTES + 1)))


@pytest.mark.parametrize("kind", [errors.RateLimited, errors.Busy, errors.QuotaExceeded, errors.Draining])
def test_an_error_arrives_as_it_was_raised(kind: type[errors.SciBoxError]) -> None:
    raised = kind("Try later.", param="model", code="own", retry_after_s=7, should_retry=False)
    arrived = error(fault(raised))

    assert type(arrived) is kind
    assert vars(arrived) == vars(raised)


def test_an_error_of_an_unknown_class_is_one_of_ours_nevertheless() -> None:
    arrived = error(Fault("NeverHeardOf", "x", "y"))

    assert type(arrived) is errors.SciBoxError
    assert (arrived.message, arrived.code, arrived.status) == ("x", "y", 500)


def test_an_error_that_quotes_what_no_text_can_hold_arrives() -> None:
    assert error(fault(errors.InvalidRequest("model '\ud800'"))).message == "model '?'"
