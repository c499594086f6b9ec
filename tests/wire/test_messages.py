import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.errors import InvalidRequest
from scibox.wire import chat

CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
ASKED = {"role": "user", "content": "1+1?"}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TEXT = [{"type": "text", "text": "hi"}]


def body(messages: Any, **more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": messages, **more}).encode()


def refused(messages: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        chat.parse("r", body(messages))
    return caught.value


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "s", "name": "n"}, ASKED],
        [{"role": "developer", "content": TEXT}, ASKED],
        [{"role": "user", "content": TEXT * 3}],
        [ASKED, {"role": "assistant", "content": "2"}],
        [ASKED, {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, ASKED],
        [ASKED, {"role": "assistant", "content": None, "refusal": "no"}, ASKED],
        [ASKED, {"role": "assistant", "content": "x", "tool_calls": [], "audio": None, "annotations": []}],
        [ASKED, {"role": "assistant", "content": "x", "reasoning_content": "because"}],
        [ASKED, CALLED, {"role": "tool", "tool_call_id": "call_1", "content": "2"}],
        [ASKED, {**CALLED, "tool_calls": [{**CALL, "index": 0}]}],
        [
            ASKED,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "2"},
        ],
    ],
)
def test_dialogues_of_the_reference_are_taken(messages: list[dict[str, Any]]) -> None:
    call = chat.parse("r", body(messages))

    assert call.items == len(messages)
    assert json.loads(chat.render(call, "m"))["messages"] == messages


def called(**changes: Any) -> list[dict[str, Any]]:
    return [ASKED, {"role": "assistant", "content": None, "tool_calls": [{**CALL, **changes}]}]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": ["hi"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"text": "hi"}]}], "messages[0].content[0].type"),
        ([{"role": "assistant", "content": [{"text": "hi"}]}], "messages[0].content[0].type"),
        ([{"content": "hi"}], "messages[0].role"),
        ([{"role": "user", "content": "x", "name": ""}], "messages[0].name"),
        ([{"role": "user", "content": "x", "tool_calls": [CALL]}], "messages[0].tool_calls"),
        ([{"role": "user", "content": "x", "conten": "y"}], "messages[0].conten"),
        ([{"role": "system", "content": [{"type": "refusal", "refusal": "x"}]}], "messages[0].content[0]"),
        ([{"role": "assistant"}], "messages[0].content"),
        ([{"role": "assistant", "content": None, "tool_calls": []}], "messages[0].content"),
        ([{"role": "assistant", "audio": {"id": "a"}}], "messages[0].audio"),
        ([ASKED, {"role": "tool", "content": "x"}], "messages[1].tool_call_id"),
        ([ASKED, {"role": "tool", "content": "x", "tool_call_id": "call_1"}], "messages[1].tool_call_id"),
        ([{"role": "tool", "content": "x", "tool_call_id": "call_1"}, CALLED], "messages[0].tool_call_id"),
        (
            [ASKED, CALLED, {"role": "tool", "tool_call_id": "call_2", "content": "2"}],
            "messages[2].tool_call_id",
        ),
        ([ASKED, CALLED, {"role": "tool", "tool_call_id": "call_1", "content": None}], "messages[2].content"),
        ([ASKED, {"role": "function", "content": "x"}], "messages[1].name"),
        (called(id=""), "messages[1].tool_calls[0].id"),
        (called(id=7), "messages[1].tool_calls[0].id"),
        (called(type="custom"), "messages[1].tool_calls[0].type"),
        (called(function=None), "messages[1].tool_calls[0].function"),
        (called(function={"name": "f"}), "messages[1].tool_calls[0].function.arguments"),
        (
            called(function={"name": "f", "arguments": {"a": 1}}),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (called(function={"name": "f", "arguments": "{"}), "messages[1].tool_calls[0].function.arguments"),
        (called(function={"name": "f", "arguments": "5"}), "messages[1].tool_calls[0].function.arguments"),
        (
            called(function={"name": "f", "arguments": '{"a":' * 100_000}),
            "messages[1].tool_calls[0].function.arguments",
        ),
        ([ASKED, {"role": "assistant", "tool_calls": "x"}], "messages[1].tool_calls"),
        (
            [{"role": "assistant", "function_call": {"name": "f", "arguments": ""}}],
            "messages[0].function_call.arguments",
        ),
    ],
)
def test_what_does_not_fit_is_named(messages: list[Any], param: str) -> None:
    error = refused(messages)

    assert error.status == 400
    assert (error.param or "").startswith(param)
    assert param.rpartition(".")[2] in error.message


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url"])
def test_what_is_no_text_is_refused_in_a_sentence(kind: str) -> None:
    error = refused([{"role": "user", "content": [*TEXT, {"type": kind, kind: {"url": "https://x/y.png"}}]}])

    assert error.param == "messages[0].content[1].type"
    assert "text only" in error.message


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
dialogues = st.lists(
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "system"]), texts)
    | st.builds(
        lambda parts: {"role": "user", "content": parts},
        st.lists(texts.map(lambda text: {"type": "text", "text": text}), min_size=1, max_size=3),
    )
    | st.builds(
        lambda text, reason: {"role": "assistant", "content": text, "reasoning_content": reason}, texts, texts
    ),
    min_size=1,
    max_size=5,
)


def said(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


@given(dialogues, st.booleans())
def test_the_bounds_hold_whatever_is_said_and_however_it_is_written(
    messages: list[dict[str, Any]], escaped: bool
) -> None:
    call = chat.parse("r", json.dumps({"model": "m", "messages": messages}, ensure_ascii=escaped).encode())
    text = "".join(said(message) for message in messages)
    reasons = "".join(message.get("reasoning_content", "") for message in messages)

    assert call.text_bytes >= len((text + reasons).encode())
    assert chat.least_bytes(call) == chat.solid_bytes(text) <= len(text.encode())


def test_escapes_do_not_make_a_text_look_long() -> None:
    messages = [{"role": "user", "content": "слово " * 1000}]

    call = chat.parse("r", body(messages))

    assert 11_000 <= call.text_bytes <= 11_100


def test_tools_count_as_text() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "x" * 5000}}]

    assert chat.parse("r", body([ASKED], tools=tools)).text_bytes > 5000
