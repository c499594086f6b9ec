"""A chat call in llama-server's words."""

import json
from typing import Any

import pytest

from scibox.core.errors import InvalidRequest
from scibox.core.types import Call
from scibox.wire import body, chat
from scibox.wire.llama.dialect import Undo, render
from scibox.wire.orders import Reading, Target, order, split

HI = [{"role": "user", "content": "hi"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "does f",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}
OTHER = {"type": "function", "function": {"name": "g"}}
BEGUN = {"role": "assistant", "content": "Well,"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def called(**fields: object) -> Call:
    return chat.parse("r", json.dumps({"model": "m", "messages": HI, **fields}).encode())


def sent(has_tools: bool = False, is_hermes: bool = False, **fields: object) -> tuple[dict[str, Any], Undo]:
    target = Target("there", "llama", has_tools=has_tools, is_hermes=is_hermes)
    rendered, undo = render(called(**fields), target)
    return json.loads(body.encode(rendered)), undo


def test_a_plain_call_stays_as_it_is() -> None:
    fields, undo = sent(temperature=0.5, user="u")

    assert fields == {"model": "there", "messages": HI, "temperature": 0.5, "user": "u"}
    assert undo == Undo()


def test_the_order_of_a_remote_replica_has_its_tools_and_formats_untouched() -> None:
    made = order(called(tools=[TOOL], response_format={"type": "json_object"}, n=2), Target("there", "vllm"))

    fields = json.loads(made.body)
    assert fields["tools"] == [TOOL]
    assert fields["response_format"] == {"type": "json_object"}
    assert fields["n"] == 2
    assert made.reading == Reading(wants_usage=False, thinking="auto", choices=2, is_chat=True)


def test_messages_become_what_any_template_can_show() -> None:
    calls = [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    fields, _ = sent(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "1", "content": "one"},
            {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "two"}]},
        ]
    )

    assert fields["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
            '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>',
        },
        {
            "role": "user",
            "content": "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>",
        },
    ]


def test_an_answer_that_comes_back_with_all_its_empty_fields_has_none_of_them() -> None:
    empty = dict.fromkeys(["refusal", "audio", "function_call", "tool_calls", "reasoning_content"])
    answer = {"role": "assistant", "content": "Hello.", "annotations": [], **empty}
    for has_tools in (False, True):
        fields, _ = sent(has_tools, messages=[{"role": "user", "content": "a"}, answer, *HI])

        assert None not in fields["messages"][1].values()
        assert fields["messages"][1]["content"] == "Hello."


def test_a_template_with_tools_gets_calls_and_results_as_they_are() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "one"},
    ]
    fields, undo = sent(has_tools=True, messages=messages, tools=[TOOL])

    assert fields["messages"][1:] == [{**messages[1], "content": ""}, messages[2]]
    assert fields["tools"] == [TOOL]
    assert "grammar" not in fields
    assert undo == Undo()


@pytest.mark.parametrize("has_tools", [True, False])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_forced_calls_are_described_and_forced_whatever_the_template_shows(
    choice: object, has_tools: bool
) -> None:
    fields, undo = sent(has_tools, tools=[TOOL, OTHER], tool_choice=choice)

    system, user = fields["messages"]
    assert system["role"] == "system"
    assert '"description":"does f"' in system["content"]
    assert user == HI[0]
    assert "start: calls\n" in fields["grammar"]
    assert ('"g\\"' in fields["grammar"]) == ("tool1" in fields["grammar"]) == (choice == "required")
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & fields.keys()
    assert undo.calls == "all"


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_template_of_the_same_form_shows_the_tools_itself(choice: str) -> None:
    fields, undo = sent(True, True, tools=[TOOL], tool_choice=choice)

    assert fields["messages"] == HI
    assert fields["chat_template_kwargs"]["tools"] == [TOOL]
    assert "tool0" in fields["grammar"]
    assert "tools" not in fields
    assert undo.calls == ("some" if choice == "auto" else "all")


def test_words_beside_tools_may_follow_reasoning() -> None:
    fields, undo = sent(tools=[TOOL])
    assert not undo.is_bound
    assert "chat_template_kwargs" not in fields

    fields, undo = sent(tools=[TOOL], tool_choice="required")
    assert undo.is_bound
    assert fields["chat_template_kwargs"] == {"enable_thinking": False}


def test_instructions_join_the_callers_system_message() -> None:
    messages = [{"role": "system", "content": "Be kind."}, *HI]
    fields, _ = sent(messages=messages, tools=[TOOL])

    [system, _] = fields["messages"]
    assert system["content"].startswith("Be kind.\n\nYou can call these functions:\n")


def test_tools_that_may_be_called_leave_room_for_words() -> None:
    fields, undo = sent(tools=[TOOL])

    assert "start: TEXT | begun\n" in fields["grammar"]
    assert undo.calls == "some"


def test_words_beside_tools_may_have_a_form_of_their_own() -> None:
    fields, undo = sent(True, tools=[TOOL], response_format={"type": "json_object"})

    assert "start: calls | answer\n" in fields["grammar"]
    assert 'answer: %json {"type":"object"' in fields["grammar"]
    assert "tools" not in fields
    assert undo.calls == "some"


def test_tools_that_must_not_be_called_are_not_offered() -> None:
    fields, undo = sent(True, tools=[TOOL], tool_choice="none")

    assert not {"tools", "tool_choice", "grammar"} & fields.keys()
    assert fields["messages"] == HI
    assert undo.calls == "none"


@pytest.mark.parametrize(
    ("choice", "parallel", "most"),
    [
        ("auto", None, "{0,7}"),
        ("auto", False, None),
        ("required", None, None),
        ("required", True, "{0,7}"),
        ("required", False, None),
    ],
)
def test_calls_at_once_are_bounded(choice: str, parallel: bool | None, most: str | None) -> None:
    fields, _ = sent(tools=[TOOL], tool_choice=choice, parallel_tool_calls=parallel)

    assert ("{0," in fields["grammar"]) == (most is not None)
    assert most is None or most in fields["grammar"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [TOOL], "tool_choice": "required", "stop": ["x"]}, "stop"),
        ({"response_format": {"type": "json_object"}, "stop": "x"}, "stop"),
        ({"tools": [TOOL], "logprobs": True}, "logprobs"),
        ({"logprobs": True, "stop": "x"}, "logprobs"),
        ({"guided_regex": "(a"}, "guided_regex"),
        ({"guided_json": {"type": "nope"}}, "guided_json.type"),
        ({"guided_grammar": "start: nothing"}, "guided_grammar"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"continue_final_message": False, "messages": [*HI, BEGUN]}, "continue_final_message"),
        ({"add_generation_prompt": True, "messages": [*HI, BEGUN]}, "add_generation_prompt"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(fields: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(**fields)

    assert caught.value.param == param


@pytest.mark.parametrize(
    "ways",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
        {"guided_json": SCHEMA},
        {"structured_outputs": {"json": SCHEMA}},
        {"json_schema": SCHEMA},
    ],
)
def test_all_ways_to_constrain_are_one_grammar(ways: dict[str, object]) -> None:
    fields, undo = sent(**ways)

    assert fields["grammar"].startswith('%llguidance {}\nstart: %json {"type":"object"')
    assert not ways.keys() & fields.keys()
    assert undo == Undo(is_bound=True)


def test_an_answer_with_a_form_or_a_beginning_has_no_room_for_reasoning() -> None:
    fields, _ = sent(guided_regex="a", chat_template_kwargs={"x": 1})
    assert fields["chat_template_kwargs"] == {"x": 1, "enable_thinking": False}

    fields, undo = sent(messages=[*HI, BEGUN], continue_final_message=True, add_generation_prompt=False)
    assert not {"continue_final_message", "add_generation_prompt"} & fields.keys()
    assert fields["chat_template_kwargs"] == {"enable_thinking": False}
    assert undo.prefix == "Well,"


def test_no_effort_to_reason_is_no_reasoning() -> None:
    fields, undo = sent(reasoning_effort="none")
    assert fields["chat_template_kwargs"] == {"enable_thinking": False}
    assert not undo.is_bound

    fields, _ = sent(reasoning_effort="low")
    assert "chat_template_kwargs" not in fields


@pytest.mark.parametrize(
    ("asked", "sent_top", "wanted"),
    [
        ({"logprobs": True}, 1, 0),
        ({"logprobs": True, "top_logprobs": 0}, 1, 0),
        ({"logprobs": True, "top_logprobs": 3}, 3, 3),
        ({"logprobs": False}, None, None),
        ({}, None, None),
    ],
)
def test_logprobs_without_alternatives_are_asked_for_with_one(
    asked: dict[str, object], sent_top: int | None, wanted: int | None
) -> None:
    fields, undo = sent(**asked)

    assert fields.get("top_logprobs") == sent_top
    assert undo.top_logprobs == wanted


@pytest.mark.parametrize(("seed", "theirs"), [(5, 5), (-1, 2**32 - 2), (2**32 - 1, 0), (2**40, 256)])
def test_a_seed_is_never_the_one_that_means_any(seed: int, theirs: int) -> None:
    fields, _ = sent(seed=seed)

    assert fields["seed"] == theirs
    assert fields["cache_prompt"] is False  # what is cached changes the last digits


def test_one_call_for_each_choice_with_seeds_that_count_up() -> None:
    calls = split(called(n=3, seed=7))

    assert [call.n for call in calls] == [1, 1, 1]
    assert [call.fields["seed"] for call in calls] == [b"7", b"8", b"9"]
    assert all("n" not in call.fields for call in calls)
    assert all("seed" not in call.fields for call in split(called(n=2)))
    one = called()
    assert split(one) == (one,)
