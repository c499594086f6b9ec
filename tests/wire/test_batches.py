"""Lines of batches: what goes in, what comes out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.wire.stored import batches
from scibox.wire.stored.batches import Line, WrongLine

URL = "/v1/chat/completions"
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.text(min_size=1, max_size=20)
bodies = st.dictionaries(st.text(max_size=8).filter(lambda name: name != "stream"), json_values, max_size=4)


@given(names, bodies)
def test_a_line_keeps_its_body_as_it_is(custom_id: str, body: dict[str, Any]) -> None:
    raw = json.dumps({"custom_id": custom_id, "method": "POST", "url": URL, "body": body}).encode()
    line = batches.parse_line(raw, URL, 10_000)

    assert line.custom_id == custom_id
    assert line.body in raw
    assert json.loads(line.body) == body


def test_a_byte_order_mark_before_a_line_is_left_out() -> None:
    raw = json.dumps({"custom_id": "a", "method": "POST", "url": URL, "body": {}}).encode()

    assert batches.parse_line(b"\xef\xbb\xbf" + raw, URL, 10_000) == Line("a", b"{}")


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_do_worse_than_a_wrong_line(raw: bytes) -> None:
    with pytest.raises(WrongLine) as wrong:
        batches.parse_line(raw, URL, 10_000)

    assert wrong.value.at(3).line == 3
    assert wrong.value.message.endswith(".")


def test_a_body_nested_too_deeply_is_a_wrong_line() -> None:
    body = b"[" * 100_000 + b"]" * 100_000
    raw = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":' + body + b"}"
    with pytest.raises(WrongLine):
        batches.parse_line(raw, URL, 10**6)


def test_a_streamed_line_is_wrong_and_one_that_says_no_is_not() -> None:
    for stream, is_wrong in (("true", True), ("false", False), ("null", False)):
        raw = f'{{"custom_id":"a","method":"POST","url":"{URL}","body":{{"stream": {stream} }}}}'.encode()
        if is_wrong:
            with pytest.raises(WrongLine, match="streamed"):
                batches.parse_line(raw, URL, 10_000)
        else:
            assert batches.parse_line(raw, URL, 10_000) == Line("a", f'{{"stream": {stream} }}'.encode())


@given(names, json_values)
def test_a_result_is_one_line_whose_id_can_be_read_again(custom_id: str, answer: object) -> None:
    for text in (json.dumps(answer), json.dumps(answer, indent=1).replace("\n", "\r\n")):
        line = batches.render_answered("batch_req_1", custom_id, "req_1", 200, text.encode())

        assert b"\n" not in line
        assert b"\r" not in line
        assert batches.custom_id(line) == custom_id
        assert json.loads(line) == {
            "id": "batch_req_1",
            "custom_id": custom_id,
            "response": {"status_code": 200, "request_id": "req_1", "body": answer},
            "error": None,
        }


def test_what_never_ran_says_why() -> None:
    line = batches.render_unanswered("batch_req_1", "a", "batch_expired", "Too late.")

    assert json.loads(line)["response"] is None
    assert json.loads(line)["error"] == {"code": "batch_expired", "message": "Too late."}
    with pytest.raises(ValueError, match="no line of results"):
        batches.custom_id(line[:-5])
