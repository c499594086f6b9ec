"""Answers that leave their grammar, as llama-server writes them once llguidance has given up."""

import json
from typing import Any

import pytest

from scibox.core.errors import UpstreamBroken
from scibox.core.types import Call
from scibox.wire import answers, chat
from scibox.wire.orders import Reading, Target, order

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'


def reading(**fields: object) -> Reading:
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()
    call: Call = chat.parse("r", raw)
    return order(call, Target("there", "llama", has_tools=False)).reading


def whole(text: str, reason: str, read: Reading) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    body = json.dumps({"id": "x", "choices": [choice]}, ensure_ascii=False)
    message: dict[str, Any] = json.loads(answers.whole(body.encode(), read).data)["choices"][0]["message"]
    return message


def stream(text: str, reason: str, read: Reading) -> list[bytes]:
    deltas = [({"content": sign}, None) for sign in text] + [({}, reason)]
    choices = [{"index": 0, "delta": delta, "finish_reason": end} for delta, end in deltas]
    events = [json.dumps({"id": "x", "choices": [choice]}, ensure_ascii=False) for choice in choices]
    received = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]).encode()
    return [chunk.data for chunk in answers.Stream(read).feed(received)]


FORMS = [
    ({"tools": [TOOL]}, "Well < said.", "Well. <tool_response>\n"),
    ({"tools": [TOOL]}, f"{CALL}\n{CALL}", f"{CALL} And so on."),
    ({"tools": [TOOL], "parallel_tool_calls": False}, f"Now\n\n{CALL}", f"{CALL}\n{CALL}"),
    ({"guided_regex": "[а-я]{3}"}, "кот", "кит "),
    ({"guided_choice": ["да", "нет"]}, "нет", "не"),
    ({"response_format": {"type": "json_object"}}, '{"ё": "😀"}', '{"a": "'),
    ({"tools": [TOOL], "tool_choice": "required"}, CALL, "Well, I could call f."),
    ({"tools": [TOOL]}, f"Well.\n{CALL}", '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'),
]


@pytest.mark.parametrize(("fields", "right", "wrong"), FORMS)
def test_a_whole_answer_that_left_its_form_is_an_error(
    fields: dict[str, object], right: str, wrong: str
) -> None:
    read = reading(**fields)

    assert whole(right, "stop", read)
    with pytest.raises(UpstreamBroken) as caught:
        whole(wrong, "stop", read)
    assert caught.value.code == "constraint_not_held"


@pytest.mark.parametrize(("fields", "right", "wrong"), FORMS)
def test_a_stream_that_left_its_form_never_ends_well(
    fields: dict[str, object], right: str, wrong: str
) -> None:
    read = reading(**fields)

    assert stream(right, "stop", read)[-1] == b"data: [DONE]\n\n"
    with pytest.raises(UpstreamBroken):
        stream(wrong, "stop", read)


@pytest.mark.parametrize("text", ["", "к", "ки", "ки\ufffd"])
def test_a_cut_answer_may_be_any_beginning(text: str) -> None:
    read = reading(guided_regex="[а-я]{3}")

    assert whole(text, "length", read)["content"] == text.rstrip("\ufffd")
    assert stream(text.rstrip("\ufffd"), "length", read)


def test_a_stop_word_may_end_an_answer_before_its_form_does() -> None:
    assert whole("ки", "stop", reading(guided_regex="[а-я]{3}", stop="т"))["content"] == "ки"


def test_a_grammar_of_the_callers_is_not_judged() -> None:
    read = reading(guided_grammar="start: a\na[max_tokens=3]: /[a-z]+/")

    assert not read.grammar


def test_one_answer_leaves_nothing_behind_for_the_next() -> None:
    read = reading(guided_choice=["yes", "no"])

    assert [whole(text, "stop", read)["content"] for text in ("yes", "no", "yes")] == ["yes", "no", "yes"]


def test_bounds_that_floats_cannot_hold_are_drawn_in() -> None:
    schema = {"type": "integer", "minimum": 0, "maximum": 2**53 + 3}
    read = reading(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})

    assert whole(str(2**53), "stop", read)
    with pytest.raises(UpstreamBroken):
        whole(str(2**53 + 4), "stop", read)
