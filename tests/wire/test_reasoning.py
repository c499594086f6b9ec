"""Reasoning text on its way through events and bodies."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.errors import UpstreamBroken
from scibox.core.types import Call, Thinking
from scibox.wire import answers, sse
from scibox.wire.orders import Reading
from scibox.wire.parting import part
from scibox.wire.reasoning import Reasoning, expected

ROLE = {"role": "assistant", "content": None}


def event(delta: dict[str, Any], *, index: int = 0, reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason, **more}
    return json.dumps({"id": "c", "choices": [choice]}, separators=(",", ":"), ensure_ascii=False).encode()


def run(events: list[bytes], reading: Reading) -> list[dict[str, Any]]:
    """The choices that the client sees."""
    raw = b"".join(map(sse.render, events)) + sse.DONE
    chunks = [chunk.data for chunk in answers.Stream(reading).feed(raw)]
    assert chunks.pop() == sse.DONE
    return [choice for chunk in chunks for choice in json.loads(chunk[6:])["choices"]]


def said(choices: list[dict[str, Any]], index: int = 0) -> tuple[str, str]:
    deltas = [choice["delta"] for choice in choices if choice["index"] == index]
    return (
        "".join(delta.get("reasoning_content") or "" for delta in deltas),
        "".join(delta.get("content") or "" for delta in deltas),
    )


def stream(texts: list[str], thinking: Thinking = "auto", reason: str = "stop") -> list[dict[str, Any]]:
    events = [event(ROLE), *(event({"content": text}) for text in texts), event({}, reason=reason)]
    return run(events, Reading(thinking=thinking))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_stream_is_parted_however_it_is_cut(size: int) -> None:
    text = "<think>\nI muse\n</think>\n\nUse <think> and </think>."
    choices = stream([text[at : at + size] for at in range(0, len(text), size)])

    assert said(choices) == ("I muse", "Use <think> and </think>.")
    assert choices[0]["delta"] == ROLE
    assert choices[-1]["finish_reason"] == "stop"
    assert all(choice["delta"] or choice["finish_reason"] for choice in choices)


def test_an_ordinary_answer_passes_byte_for_byte() -> None:
    events = [event(ROLE), event({"content": "Red <think>"}), event({"content": "</think>"})]
    filtered = Reasoning("auto", 1, has_stop_words=False)

    for data in events:
        assert filtered.event(data)[0] is data
    assert filtered.event(b"not even JSON") == [b"not even JSON"]  # the answer has begun: nobody reads it


def test_amid_reasoning_nothing_but_the_name_of_the_text_changes() -> None:
    filtered = Reasoning("auto", 1, has_stop_words=False)
    filtered.event(event({"content": "<think>a"}))
    data = b'{"x": 1.0,"choices":[{"delta":{"content":" b"},"finish_reason":null}]}'

    assert filtered.event(data) == [data.replace(b'"content"', b'"reasoning_content"')]


def test_an_opened_block_that_ends_with_stop_is_told_again_as_content() -> None:
    assert said(stream(["Red", " and", " blue"], "opened")) == ("Red and blue", "Red and blue")
    events = [event({"content": "Red"}), event({"content": " and"}, reason="stop")]
    assert said(run(events, Reading(thinking="opened"))) == ("Red and", "Red and")
    assert said(run(events, Reading(thinking="opened", has_stop_words=True))) == ("Red and", "")


def test_a_budget_that_ends_inside_gives_reasoning_alone() -> None:
    choices = stream(["<think>", "I mu", "se </"], reason="length")

    assert said(choices) == ("I muse </", "")
    assert choices[-1]["finish_reason"] == "length"


def test_a_block_that_the_template_opened() -> None:
    assert said(stream(["I muse", "\n</thi", "nk>", "\n\nRed"], "opened")) == ("I muse", "Red")


def test_the_reason_may_come_with_the_last_text() -> None:
    events = [
        event({"role": "assistant", "content": "<thi"}),
        event({"content": "nk>a</think>"}, reason="stop"),
    ]

    choices = run(events, Reading(thinking="auto"))

    assert said(choices) == ("a", "")
    assert [choice["finish_reason"] for choice in choices] == [None, "stop"]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}


def test_choices_have_states_of_their_own() -> None:
    events = [
        *(event(ROLE, index=index) for index in (0, 1)),
        event({"content": "Red"}, index=0),
        event({"content": "<think>a</th"}, index=1),
        event({"content": " </think>"}, index=0),
        event({"content": "ink>Blue"}, index=1),
        *(event({}, index=index, reason="stop") for index in (0, 1)),
    ]

    choices = run(events, Reading(thinking="auto", choices=2))

    assert said(choices, 0) == ("", "Red </think>")
    assert said(choices, 1) == ("a", "Blue")


def test_two_choices_in_one_event() -> None:
    both = [
        {"index": i, "delta": {"content": text}, "finish_reason": None} for i, text in ((0, "A"), (1, "<th"))
    ]
    [kept] = Reasoning("auto", 2, has_stop_words=False).event(json.dumps({"choices": both}).encode())

    assert [choice["index"] for choice in json.loads(kept)["choices"]] == [0]


def test_an_event_that_has_more_than_text_is_not_held_back() -> None:
    logprobs = {"content": [{"token": "<think>", "logprob": 0.0}]}
    events = [event({"content": "<think>"}, logprobs=logprobs), event({}, reason="stop")]

    assert run(events, Reading(thinking="auto"))[0]["logprobs"] == logprobs


@pytest.mark.parametrize("thinking", ["auto", "opened"])
@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_what_the_upstream_separates_passes(name: str, thinking: Thinking) -> None:
    events = [
        event({"role": "assistant", "content": ""}),
        event({name: "I "}),
        event({name: "muse"}),
        event({"content": "Use </think>", "reasoning": None}),
        event({name: "more"}),
        event({}, reason="stop"),
    ]

    choices = run(events, Reading(thinking=thinking))

    assert said(choices) == ("I musemore", "Use </think>")
    assert choices[1]["delta"][name] == "I "


def test_a_tool_call_settles_what_was_held() -> None:
    call = [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}]
    events = [event({"content": "<"}), event({"tool_calls": call}), event({}, reason="tool_calls")]

    choices = run(events, Reading(thinking="auto"))

    assert choices[0]["delta"] == {"tool_calls": call, "content": "<"}


def test_tool_calls_pass_within_a_block() -> None:
    call = [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}]
    events = [event({"content": "<think>a"}), event({"tool_calls": call}), event({}, reason="tool_calls")]

    choices = run(events, Reading(thinking="auto"))

    assert said(choices) == ("a", "")
    assert choices[1]["delta"] == {"tool_calls": call}


def test_usage_on_the_last_event_is_kept() -> None:
    last = (
        b'{"choices":[{"index":0,"delta":{"content":" "}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
    )
    filtered = Reasoning("opened", 1, has_stop_words=False)

    assert json.loads(filtered.event(last)[0])["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":[{"index":0,"delta":{"content":"x"}',
        b'{"choices":{"delta":1}}',
        b'{"choices":[{"index":"zero","delta":{}}]}',
        b'{"choices":[{"delta":5}]}',
        b'{"choices":[5]}',
        b'{"choices":[{"delta":{"content":"\xff"}}]}',
    ],
)
def test_what_cannot_be_read_is_an_error(data: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        Reasoning("auto", 1, has_stop_words=False).event(data)


def whole(message: dict[str, Any], thinking: Thinking = "auto", reason: str = "stop") -> dict[str, Any]:
    body = {"choices": [{"index": 0, "message": message, "finish_reason": reason}], "x": 0.10}
    chunk = answers.whole(json.dumps(body).encode(), Reading(thinking=thinking))
    found: dict[str, Any] = json.loads(chunk.data)["choices"][0]["message"]
    return found


@pytest.mark.parametrize(
    ("text", "reason", "expected"),
    [
        ("<think>\na\n</think>\n\nRed", "stop", {"content": "Red", "reasoning_content": "a"}),
        ("a\n</think>\n\nRed", "stop", {"content": "Red", "reasoning_content": "a"}),
        ("<think>\n\n</think>\n\nRed", "stop", {"content": "Red"}),
        ("<think>a", "length", {"content": "", "reasoning_content": "a"}),
        ("Red `</think>`", "stop", {"content": "Red `</think>`"}),
    ],
)
def test_a_whole_answer_is_parted(text: str, reason: str, expected: dict[str, str]) -> None:
    assert whole({"role": "assistant", "content": text}, reason=reason) == {"role": "assistant", **expected}


def test_a_whole_answer_without_tags_is_the_same_object() -> None:
    body = b'{"choices":[{"message":{"content":"Red"}}], "usage": {"completion_tokens_details":{"reasoning_tokens":1}}}'

    assert answers.whole(body, Reading(thinking="auto")).data is body


def test_whole_answers_that_the_upstream_separated_pass() -> None:
    for name in ("reasoning", "reasoning_content"):
        message = whole({name: "a", "content": "Use </think>"}, "opened")

        assert (message["reasoning_content"], message["content"]) == ("a", "Use </think>")


def test_reasoning_alone_beside_a_tool_call_leaves_no_content() -> None:
    calls = [{"id": "call_1"}]

    assert whole({"content": "<think>a</think>", "tool_calls": calls})["content"] is None
    assert whole({"content": "<think>a</think>", "tool_calls": []})["content"] == ""


def call(path: str = "/chat/completions", **fields: Any) -> Call:
    raw = {name: json.dumps(value, separators=(",", ":")).encode() for name, value in fields.items()}
    return Call("r", "chat", "m", path, raw)


@pytest.mark.parametrize(
    ("asked", "thinking", "model", "wanted"),
    [
        (call(), "auto", "Qwen3-8B", "auto"),
        (call(), "opened", "Qwen3-8B", "opened"),
        (call(), "none", "DeepSeek-R1", "none"),
        (call(), "auto", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "opened"),
        (call(), "auto", "Qwen/QwQ-32B", "opened"),
        (call(), "auto", "Qwen3-4B-Thinking-2507", "opened"),
        (call(), "auto", "a-thinkingcap", "auto"),
        (call("/completions"), "opened", "DeepSeek-R1", "none"),
        (call(chat_template_kwargs={"enable_thinking": False}), "opened", "m", "auto"),
        (call(chat_template_kwargs={"enable_thinking": True}), "opened", "m", "opened"),
        (call(chat_template_kwargs={"thinking": False}), "opened", "m", "auto"),
        (call(reasoning_effort="none"), "opened", "m", "auto"),
        (call(include_reasoning=False), "opened", "m", "auto"),
        (call(continue_final_message=True), "opened", "m", "auto"),
        (call(response_format={"type": "json_object"}), "opened", "m", "auto"),
        (call(response_format={"type": "text"}), "opened", "m", "opened"),
        (call(guided_choice=["text"]), "opened", "m", "auto"),
        (call(tool_choice="required"), "opened", "m", "auto"),
        (call(tool_choice="auto"), "opened", "m", "opened"),
    ],
)
def test_where_reasoning_is_expected(asked: Call, thinking: Thinking, model: str, wanted: Thinking) -> None:
    assert expected(asked, thinking, model) == wanted


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "\n", "a ", "б", '"\\']), max_size=8).map("".join),
    st.lists(st.integers(0, 60), max_size=6),
    st.sampled_from(["auto", "opened"]),
)
def test_any_cut_of_a_stream_gives_what_one_piece_gives(
    text: str, cuts: list[int], thinking: Thinking
) -> None:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    texts = [text[start:end] for start, end in pairwise(edges)]

    assert said(stream(texts, thinking)) == said(stream([text], thinking))
    loose = [json.dumps(json.loads(event({"content": text}))).encode() for text in texts]  # read, not renamed
    events = [event(ROLE), *loose, event({}, reason="stop")]
    assert run(events, Reading(thinking=thinking)) == stream(texts, thinking)
    if thinking == "opened" and "</think>" in text:
        assert said(stream(texts, thinking)) == part(text, "stop", thinking, has_stop_words=False)
