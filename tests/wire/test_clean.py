import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.wire.clean import Clean

BAD = "\ufffd"


@pytest.mark.parametrize("ascii_only", [True, False])
def test_an_answer_cut_inside_a_character_ends_before_it(ascii_only: bool) -> None:
    event = {"choices": [{"delta": {"content": f"при{BAD}"}}]}

    [kept] = Clean().event(json.dumps(event, ensure_ascii=ascii_only).encode())

    assert json.loads(kept) == {"choices": [{"delta": {"content": "при"}}]}


@pytest.mark.parametrize("text", [rb'{"a":"\ufffd"}', rb'{"a":"\uFFFD"}', rb'{"a":"\ufffd\uFfFd"}'])
def test_escaped_ones_go_in_any_case(text: bytes) -> None:
    assert Clean().whole(text) == b'{"a":""}'


@pytest.mark.parametrize("text", [rb'{"a":"\\ufffd"}', rb'{"a":"\\\\ufffd"}', b'{"a":"\\n b\\u0041"}'])
def test_an_escaped_backslash_is_no_escape(text: bytes) -> None:
    assert Clean().whole(text) == text


def test_logprobs_keep_their_bytes() -> None:
    entry = json.dumps({"token": BAD, "logprob": -1.5, "bytes": [208]}, ensure_ascii=False).encode()

    assert json.loads(Clean().event(entry)[0]) == {"token": "", "logprob": -1.5, "bytes": [208]}


def test_an_event_without_it_is_the_same_object() -> None:
    data = '{"content":"привет \\n \\" \\u0041"}'.encode()

    assert Clean().event(data)[0] is data


@given(st.lists(st.sampled_from([BAD, "\\", '"', "u", "я", "\n", "ufffd"])).map("".join), st.booleans())
def test_what_is_left_is_the_text_without_it(text: str, ascii_only: bool) -> None:
    kept = Clean().whole(json.dumps({"a": text}, ensure_ascii=ascii_only).encode())

    assert json.loads(kept)["a"] == text.replace(BAD, "")
