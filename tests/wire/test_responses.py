from __future__ import annotations

import json
from typing import Any

import pytest
from chat_answers import TOLD, Told, events
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.errors import ContextTooLong, InvalidRequest, UpstreamBroken
from scibox.wire.face import Asked
from scibox.wire.responses.face import Responses

GOOD: dict[str, Any] = {"model": "m", "input": "hello"}
FUNCTION = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Paris"}'}


def asked(**more: Any) -> Asked:
    return Responses().parse("req_abc", json.dumps({**GOOD, **more}).encode())


def chat(**more: Any) -> dict[str, Any]:
    return {name: json.loads(raw) for name, raw in asked(**more).call.fields.items()}


def refused(**more: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        asked(**more)
    return caught.value


def test_a_text_becomes_a_chat_call() -> None:
    call = asked(instructions="Be brief.", max_output_tokens=9, temperature=0.5).call

    assert call.path == "/chat/completions"
    assert json.loads(call.fields["messages"]) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]
    assert call.fields["max_completion_tokens"] == b"9"
    assert call.fields["temperature"] == b"0.5"


def test_usage_of_a_stream_is_always_asked_for() -> None:
    assert asked(stream=True).call.wants_usage


def test_what_the_model_said_in_one_turn_is_one_message() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "Hm."}],
        },
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        CALL,
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
        },
    ]

    assert chat(input=items)["messages"] == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "Hm.",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]


def test_tools_and_their_choice() -> None:
    fields = chat(
        tools=[FUNCTION], tool_choice={"type": "function", "name": "weather"}, parallel_tool_calls=False
    )

    function = {name: value for name, value in FUNCTION.items() if name != "type"}
    assert fields["tools"] == [{"type": "function", "function": function}]
    assert fields["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert fields["parallel_tool_calls"] is False


def test_only_allowed_tools_are_offered() -> None:
    other = {**FUNCTION, "name": "time"}
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "time"}]}

    fields = chat(tools=[FUNCTION, other], tool_choice=choice)

    assert [tool["function"]["name"] for tool in fields["tools"]] == ["time"]
    assert fields["tool_choice"] == "required"


def test_formats_effort_and_log_probabilities() -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    wanted = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}

    fields = chat(
        text={"format": wanted},
        reasoning={"effort": "low"},
        include=["message.output_text.logprobs"],
        top_logprobs=2,
    )

    assert fields["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": schema, "strict": True},
    }
    assert fields["reasoning_effort"] == "low"
    assert (fields["logprobs"], fields["top_logprobs"]) == (True, 2)
    assert "response_format" not in chat(text={"format": {"type": "text"}})


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": []}]}, "input[0].content"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"content": "x"}]}, "input[0].type"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"type": "function_call_output", "call_id": "c1", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{**CALL, "arguments": {}}]}, "input[0].arguments"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "no"}}, "tool_choice.name"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"tools": [{**FUNCTION, "name": "bad name"}]}, "tools[0].name"),
        ({"tools": [{**FUNCTION, "parameters": {"type": "array"}}]}, "tools[0].parameters"),
        ({"tools": [FUNCTION, FUNCTION]}, "tools[1].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"input": [{**CALL, "arguments": "no json"}]}, "input[0].arguments"),
        ({"input": [{**CALL, "name": ""}]}, "input[0].name"),
        ({"text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}}, "text.format.name"),
        ({"text": {"verbosity": "shouting"}}, "text.verbosity"),
        ({"reasoning": {"effort": "enormous"}}, "reasoning.effort"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"user": "u" * 513}, "user"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 1e9}, "max_output_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"include": ["everything"]}, "include[0]"),
        ({"metadata": {"k": "v" * 513}}, "metadata[...]"),
        ({"max_tokens": 3}, "max_tokens"),
        ({"api_base": "http://example.com"}, "api_base"),
    ],
)
def test_what_is_wrong_is_named_in_the_clients_words(more: dict[str, Any], param: str) -> None:
    error = refused(**more)

    assert error.param == param
    assert not any(
        name in error.message for name in ("messages", "function.", "response_format", "json_schema.")
    )


def test_a_field_of_chat_gets_the_name_it_has_here() -> None:
    assert "'max_output_tokens'" in refused(max_tokens=3).message
    assert "'text.format'" in refused(response_format={}).message


def test_a_schema_that_cannot_be_enforced_is_named_where_the_client_wrote_it() -> None:
    properties = {"city": {"$ref": "http://example.com/city"}}
    error = refused(tools=[{**FUNCTION, "parameters": {"type": "object", "properties": properties}}])

    assert error.param == "tools[0].parameters.properties.city.$ref"
    assert "'tools[0].parameters.properties.city.$ref'" in error.message


def test_errors_of_the_way_name_the_clients_fields() -> None:
    told = asked().told(ContextTooLong("The text in 'messages' is too long.", param="messages"))

    assert isinstance(told, ContextTooLong)
    assert (told.param, told.message) == ("input", "The text in 'input' is too long.")
    far = asked(input=[{"role": "user", "content": "x"}, CALL]).told(
        InvalidRequest(
            "'messages[1].tool_calls[0].function.name' is odd.",
            param="messages[1].tool_calls[0].function.name",
        )
    )
    assert far.message == "'input[1].name' is odd."


@given(TOLD, st.integers(1, 9), st.booleans())
def test_a_stream_ends_in_the_object_of_the_whole_answer(told: Told, size: int, as_summary: bool) -> None:
    more = {"reasoning": {"summary": "auto"}} if as_summary else {}
    whole = json.loads(asked(**more).reply.whole(told.whole()))

    reply = asked(stream=True, **more).reply
    streamed = events(b"".join(reply.event(event) for event in told.stream(size)))

    assert streamed[-1][1]["response"] == whole
    assert [data["sequence_number"] for _, data in streamed] == list(range(len(streamed)))
    assert all(name == data["type"] for name, data in streamed)
    assert [name for name, _ in streamed[:2]] == ["response.created", "response.in_progress"]
    assert streamed[-1][0] == f"response.{whole['status']}"
    done = [data["item"] for name, data in streamed if name == "response.output_item.done"]
    assert done == whole["output"]


@given(TOLD, st.integers(1, 9))
def test_deltas_add_up_to_the_items(told: Told, size: int) -> None:
    reply = asked(stream=True).reply
    streamed = events(b"".join(reply.event(event) for event in told.stream(size)))

    def grown(kind: str) -> str:
        return "".join(data["delta"] for name, data in streamed if name == f"response.{kind}.delta")

    assert grown("output_text") == told.text
    assert grown("reasoning_text") == told.reasoning
    assert grown("function_call_arguments") == "".join(arguments for _, arguments in told.calls)
    opened = [data["output_index"] for name, data in streamed if name == "response.output_item.added"]
    assert opened == list(range(len(opened)))


def test_the_response_says_what_was_asked_and_counted() -> None:
    told = Told("", "Hi.", (), "stop")

    body = json.loads(asked(metadata={"k": "v"}, store=True, tools=[FUNCTION]).reply.whole(told.whole()))

    assert body["id"] == "resp_abc"
    assert (body["object"], body["status"], body["model"]) == ("response", "completed", "served")
    assert body["store"] is False
    assert body["metadata"] == {"k": "v"}
    assert body["tools"] == [{**FUNCTION, "description": None}]
    assert body["output"][0]["content"][0]["text"] == "Hi."
    assert (body["usage"]["input_tokens"], body["usage"]["output_tokens"]) == (7, 5)


def test_a_cut_answer_is_incomplete() -> None:
    body = json.loads(asked().reply.whole(Told("", "Hi", (), "length").whole()))

    assert body["status"] == "incomplete"
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert body["output"][-1]["status"] == "incomplete"


def test_a_stream_that_breaks_ends_in_a_failed_response() -> None:
    reply = asked(stream=True).reply
    for event in Told("", "Hello there", (), "stop").stream(3)[:3]:
        reply.event(event)

    [(name, data)] = events(reply.error_event(UpstreamBroken("It broke off.")))

    assert name == "response.failed"
    assert data["response"]["status"] == "failed"
    assert data["response"]["error"]["message"] == "It broke off."


def test_a_stream_that_never_began_ends_in_an_error() -> None:
    [(name, data)] = events(
        asked(stream=True).reply.error_event(UpstreamBroken("No.", code="upstream_error"))
    )

    assert name == "error"
    assert (data["code"], data["message"], data["sequence_number"]) == ("upstream_error", "No.", 0)
