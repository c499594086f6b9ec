from __future__ import annotations

import json
from typing import Any

import pytest
from chat_answers import TOLD, Told, events
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.errors import (
    BodyTooLarge,
    InvalidRequest,
    ModelNotFound,
    SciBoxError,
    Unauthorized,
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from scibox.wire.anthropic import face as anthropic
from scibox.wire.face import Asked
from scibox.wire.orders import Target, order

GOOD: dict[str, Any] = {"model": "m", "max_tokens": 2000, "messages": [{"role": "user", "content": "hello"}]}
TOOL = {"name": "weather", "description": "Of a city", "input_schema": {"type": "object"}}
USE = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}}
THINKING = {"type": "enabled", "budget_tokens": 1024}


def asked(**more: Any) -> Asked:
    return anthropic.Messages().parse("req_abc", json.dumps({**GOOD, **more}).encode())


def chat(**more: Any) -> dict[str, Any]:
    return {name: json.loads(raw) for name, raw in asked(**more).call.fields.items()}


def refused(**more: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        asked(**more)
    return caught.value


def turn(*blocks: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


def test_a_message_becomes_a_chat_call() -> None:
    fields = chat(
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        temperature=0.5,
        top_k=3,
        stop_sequences=["END"],
        metadata={"user_id": "u"},
    )

    assert fields["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]
    assert fields["max_completion_tokens"] == 2000
    assert (fields["temperature"], fields["top_k"], fields["stop"], fields["user"]) == (0.5, 3, ["END"], "u")


def test_a_round_of_tools_becomes_calls_and_tool_messages() -> None:
    messages = [
        turn({"type": "text", "text": "Weather?"}),
        turn(
            {"type": "thinking", "thinking": "Hm.", "signature": ""},
            {"type": "text", "text": "I look."},
            USE,
            role="assistant",
        ),
        turn(
            {
                "type": "tool_result",
                "tool_use_id": "t1",
                "content": [{"type": "text", "text": "no"}],
                "is_error": True,
            },
            {"type": "text", "text": "And now?"},
        ),
    ]

    assert chat(messages=messages)["messages"] == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "Hm.",
            "tool_calls": [
                {
                    "id": "t1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "Error: no"},
        {"role": "user", "content": "And now?"},
    ]


@pytest.mark.parametrize(
    ("choice", "told", "parallel"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "tool", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}, None),
        ({"type": "none"}, "none", None),
    ],
)
def test_tools_and_their_choice(choice: dict[str, Any], told: Any, parallel: bool | None) -> None:
    fields = chat(tools=[TOOL], tool_choice=choice)

    function = {"name": "weather", "parameters": {"type": "object"}, "description": "Of a city"}
    assert fields["tools"] == [{"type": "function", "function": function}]
    assert fields["tool_choice"] == told
    assert fields.get("parallel_tool_calls") is parallel


@pytest.mark.parametrize(
    ("thinking", "told"),
    [(None, None), (THINKING, True), ({"type": "adaptive"}, True), ({"type": "disabled"}, False)],
)
def test_thinking_is_told_to_the_template_where_there_is_one(thinking: Any, told: bool | None) -> None:
    call = asked(thinking=thinking).call

    for dialect in ("vllm", "llama"):
        body = json.loads(order(call, Target("there", dialect)).body)
        assert body.get("chat_template_kwargs", {}).get("enable_thinking") is told
    assert "chat_template_kwargs" not in json.loads(order(call, Target("there")).body)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 1.1}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [turn()]}, "messages[0].content"),
        ({"messages": [turn({"type": "text"})]}, "messages[0].content[0].text"),
        ({"messages": [turn({"type": "image", "source": {}})]}, "messages[0].content[0].type"),
        ({"messages": [turn(USE)]}, "messages[0].content[0]"),
        ({"messages": [turn({**USE, "input": "x"}, role="assistant")]}, "messages[0].content[0].input"),
        (
            {"messages": [turn({"type": "tool_result", "tool_use_id": "t1"})]},
            "messages[0].content[0].tool_use_id",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "weather"}]}, "tools[0].input_schema"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "no"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1000}}, "thinking.budget_tokens"),
        ({"thinking": THINKING, "max_tokens": 1024}, "thinking.budget_tokens"),
        ({"tools": [{**TOOL, "name": "bad name"}]}, "tools[0].name"),
        ({"tools": [{**TOOL, "input_schema": {"type": "string"}}]}, "tools[0].input_schema"),
        ({"messages": [turn({**USE, "name": ""}, role="assistant")]}, "messages[0].content[0].name"),
        ({"metadata": {"user_id": "u" * 513}}, "metadata.user_id"),
        ({"output_config": {"effort": "enormous"}}, "output_config.effort"),
        ({"stop_sequences": [""]}, "stop_sequences[0]"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"max_completion_tokens": 1}, "max_completion_tokens"),
        ({"base_url": "http://example.com"}, "base_url"),
    ],
)
def test_what_is_wrong_is_named_in_the_clients_words(more: dict[str, Any], param: str) -> None:
    assert refused(**more).param == param


def test_a_field_of_chat_gets_the_name_it_has_here() -> None:
    assert "'stop_sequences'" in refused(stop=["x"]).message


@given(TOLD, st.integers(1, 9), st.booleans())
def test_a_stream_adds_up_to_the_whole_message(told: Told, size: int, thinks: bool) -> None:
    more = {"thinking": THINKING} if thinks else {}
    whole = json.loads(asked(**more).reply.whole(told.whole()))

    reply = asked(stream=True, **more).reply
    streamed = events(b"".join(reply.event(event) for event in told.stream(size)))

    assert all(name == data["type"] for name, data in streamed)
    assert [name for name, _ in streamed[:2]] == ["message_start", "ping"]
    assert [name for name, _ in streamed[-2:]] == ["message_delta", "message_stop"]
    message = accumulate([data for _, data in streamed])
    for block in whole["content"]:  # a cut call's arguments cannot be read whole; here they all can
        block.pop("signature", None)
    assert message == whole


def accumulate(told: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client makes of the events."""
    message: dict[str, Any] = {}
    arguments: dict[int, str] = {}
    for event in told:
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
            case "content_block_delta":
                assert event["index"] == len(message["content"]) - 1
                block, delta = message["content"][-1], event["delta"]
                kind, text = next(
                    (name, delta[name]) for name in ("text", "thinking", "partial_json") if name in delta
                )
                if kind == "partial_json":
                    arguments[event["index"]] = arguments.get(event["index"], "") + text
                else:
                    block[kind] += text
            case "content_block_stop":
                block = message["content"][event["index"]]
                block.pop("signature", None)
                if event["index"] in arguments:
                    block["input"] = json.loads(arguments[event["index"]])
            case "message_delta":
                message |= event["delta"]
                message["usage"] |= event["usage"]
    return message


def test_the_message() -> None:
    told = Told("Hm.", "Hi.", (("weather", '{"city":"Paris"}'),), "tool_calls")

    assert json.loads(asked(thinking=THINKING).reply.whole(told.whole())) == {
        "id": "msg_abc",
        "type": "message",
        "role": "assistant",
        "model": "served",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": ""},
            {"type": "text", "text": "Hi."},
            {"type": "tool_use", "id": "call_0", "name": "weather", "input": {"city": "Paris"}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 7,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 5,
        },
    }


@pytest.mark.parametrize(
    "more", [{}, {"thinking": {"type": "disabled"}}, {"thinking": {**THINKING, "display": "omitted"}}]
)
def test_reasoning_is_told_only_to_who_asked_for_it(more: dict[str, Any]) -> None:
    body = json.loads(asked(**more).reply.whole(Told("Hm.", "Hi.", (), "stop").whole()))

    assert [block["type"] for block in body["content"]] == ["text"]


@pytest.mark.parametrize(
    ("finish", "reason"), [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal")]
)
def test_why_it_stopped(finish: str, reason: str) -> None:
    body = json.loads(asked().reply.whole(Told("", "Hi.", (), finish).whole()))

    assert (body["stop_reason"], body["stop_sequence"]) == (reason, None)


def test_tokens_that_had_been_computed_before_are_told_apart() -> None:
    body = json.loads(Told("", "Hi.", (), "stop").whole())
    body["usage"]["prompt_tokens_details"] = {"cached_tokens": 3}

    usage = json.loads(asked().reply.whole(json.dumps(body).encode()))["usage"]

    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (4, 3)


def test_the_stop_sequence_that_matched_where_the_replica_tells_it() -> None:
    body = json.loads(Told("", "Hi.", (), "stop").whole())
    body["choices"][0]["stop_reason"] = "END"
    request = asked(stop_sequences=["END"])

    told = json.loads(request.reply.whole(json.dumps(body).encode()))

    assert request.call.wants_stop
    assert (told["stop_reason"], told["stop_sequence"]) == ("stop_sequence", "END")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("x"), "invalid_request_error"),
        (Unauthorized("x"), "authentication_error"),
        (ModelNotFound("x"), "not_found_error"),
        (BodyTooLarge("x"), "request_too_large"),
        (UpstreamUnavailable("x"), "overloaded_error"),
        (UpstreamTimeout("x"), "timeout_error"),
        (UpstreamBroken("x"), "api_error"),
        (SciBoxError("x"), "api_error"),
    ],
)
def test_errors_have_anthropics_shape(error: SciBoxError, kind: str) -> None:
    assert json.loads(anthropic.Messages().error(error, "req_abc")) == {
        "type": "error",
        "error": {"type": kind, "message": "x"},
        "request_id": "req_abc",
    }


def test_a_stream_that_breaks_ends_in_an_error_event() -> None:
    reply = asked(stream=True).reply
    reply.event(Told("", "Hello", (), "stop").stream(3)[1])

    [(name, data)] = events(reply.error_event(UpstreamBroken("It broke off.")))

    assert name == "error"
    assert data["error"] == {"type": "api_error", "message": "It broke off."}


def test_tool_calls_that_a_replica_mixes_are_an_error_and_no_nonsense() -> None:
    reply = asked(stream=True).reply
    deltas = [{"index": at, "id": f"c{at}", "function": {"name": "f", "arguments": "{"}} for at in (0, 1, 0)]
    mixed = [json.dumps({"choices": [{"delta": {"tool_calls": [delta]}}]}) for delta in deltas]
    reply.event(f"data: {mixed[0]}\n\ndata: {mixed[1]}\n\n".encode())

    with pytest.raises(UpstreamBroken):
        reply.event(f"data: {mixed[2]}\n\n".encode())


def test_counting_needs_no_max_tokens() -> None:
    body = {"model": "m", "system": "Be brief.", "messages": GOOD["messages"], "tools": [TOOL]}

    call = anthropic.parse_count("req_abc", json.dumps(body).encode())

    assert [message["role"] for message in json.loads(call.fields["messages"])] == ["system", "user"]
    assert "tools" in call.fields
    with pytest.raises(InvalidRequest, match="max_tokens"):
        anthropic.parse_count("req_abc", json.dumps({**body, "max_tokens": 4}).encode())
