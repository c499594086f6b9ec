"""The real llama.cpp through the router: what is asked for holds, whatever the small model would rather say."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import pytest_asyncio
from served import HI, Served, calls_of, finish_of, text_of

from rig import socket_folder
from scibox.core.errors import InvalidRequest
from scibox.core.types import Usage
from scibox.engines import llama
from scibox.engines.supervisor import Supervisor
from scibox.router.replica import Replica
from scibox.router.router import Deadlines, Router
from scibox.upstream.address import Address
from scibox.upstream.client import Client

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 7, "maximum": 70, "multipleOf": 7},
        "tags": {"type": "array", "items": {"enum": ["math", "poetry"]}, "minItems": 1, "maxItems": 2},
        "born": {"type": "string", "pattern": r"^\d{4}-\d{2}$"},
        "friend": {"anyOf": [{"$ref": "#/$defs/friend"}, {"type": "null"}]},
    },
    "required": ["name", "age", "tags", "born", "friend"],
    "$defs": {
        "friend": {
            "type": "object",
            "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
            "required": ["n"],
        }
    },
}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 10}, "days": {"type": "integer", "maximum": 9}},
    "required": ["city"],
}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "w", "parameters": CITY}}
CLOCK = {"type": "function", "function": {"name": "get_time"}}
SCHEMAS = {"get_weather": CITY, "get_time": {"type": "object", "maxProperties": 0}}


async def started(folder: Path, weights: Path) -> AsyncIterator[Served]:
    socket = folder / "e.sock"
    settings = llama.Settings(str(socket), str(weights), "small", slots=4, context=1024)
    supervisor = Supervisor("small", llama.command(settings), socket, report=lambda event: None)
    await supervisor.start()
    client = Client(1.0)
    try:
        await supervisor.wait_ready()
        replica = Replica(Address.parse(f"unix:{socket}"), "small", context=1024, dialect="llama")
        yield Served(Router(client, Deadlines(60, 60, 120)), replica)
    finally:
        client.close()
        await supervisor.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(models_dir: Path) -> AsyncIterator[Served]:
    [weights] = sorted((models_dir / "smollm2-135m-instruct").glob("*.gguf"))
    with socket_folder() as folder:
        async for one in started(folder, weights):
            yield one


async def test_the_template_of_smollm_shows_no_tools(served: Served) -> None:
    await served.ask(tools=[CLOCK], max_tokens=1)

    assert served.replica.has_tools is False


@pytest.mark.parametrize("strict", [True, False, None])
async def test_a_schema_holds_streamed_or_not(served: Served, strict: bool | None) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON, "strict": strict}}
    answer = await served.ask(response_format=wanted)
    chunks = await served.stream(response_format=wanted)

    [choice] = answer["choices"]
    assert (choice["finish_reason"], finish_of(chunks)) == ("stop", "stop")
    jsonschema.validate(json.loads(choice["message"]["content"]), PERSON)
    assert text_of(chunks) == choice["message"]["content"]


@pytest.mark.parametrize(
    "way", [{"guided_json": PERSON}, {"json_schema": PERSON}, {"structured_outputs": {"json": PERSON}}]
)
async def test_other_words_for_a_schema(served: Served, way: dict[str, Any]) -> None:
    [choice] = (await served.ask(**way))["choices"]

    jsonschema.validate(json.loads(choice["message"]["content"]), PERSON)


async def test_a_json_object_is_an_object_or_says_that_it_is_cut(served: Served) -> None:
    asked = [{"role": "user", "content": 'Answer with {"answer": 4} and nothing else.'}]
    for seed in range(3):
        answer = await served.ask(
            messages=asked, response_format={"type": "json_object"}, temperature=1, seed=seed
        )
        [choice] = answer["choices"]
        text = choice["message"]["content"]
        assert text.startswith("{")
        if choice["finish_reason"] == "stop":
            assert isinstance(json.loads(text), dict)
        else:
            assert choice["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("way", "pattern"),
    [
        ({"guided_regex": r"^\d{3}-[a-z]/x$"}, r"[0-9]{3}-[a-z]/x"),
        ({"structured_outputs": {"regex": "(yes|no)!"}}, "(yes|no)!"),
        ({"guided_choice": ['a "quoted" one', "не\\я"]}, r'a "quoted" one|не\\я'),
        ({"guided_grammar": 'start: "x" many\nmany: "y"{3}'}, "xyyy"),
    ],
)
async def test_other_forms_hold(served: Served, way: dict[str, Any], pattern: str) -> None:
    [choice] = (await served.ask(**way))["choices"]
    chunks = await served.stream(**way)

    assert re.fullmatch(pattern, choice["message"]["content"])
    assert text_of(chunks) == choice["message"]["content"]
    assert choice["finish_reason"] == "stop"


async def test_a_cut_answer_says_so(served: Served) -> None:
    [choice] = (await served.ask(guided_json=PERSON, max_tokens=5))["choices"]

    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"].startswith('{"name": "')


@pytest.mark.parametrize(
    ("choice", "parallel", "names"),
    [
        ("required", None, {"get_weather", "get_time"}),
        ("required", False, {"get_weather", "get_time"}),
        ("required", True, {"get_weather", "get_time"}),
        ({"type": "function", "function": {"name": "get_weather"}}, None, {"get_weather"}),
        ({"type": "function", "function": {"name": "get_time"}}, None, {"get_time"}),
    ],
)
async def test_forced_calls_are_made_with_arguments_that_fit(
    served: Served, choice: object, parallel: bool | None, names: set[str]
) -> None:
    fields = {
        "tools": [WEATHER, CLOCK],
        "tool_choice": choice,
        "parallel_tool_calls": parallel,
        "max_tokens": 300,
    }
    answer = await served.ask(**fields)
    chunks = await served.stream(**fields)

    [told] = answer["choices"]
    assert told["finish_reason"] == finish_of(chunks) == "tool_calls"
    assert told["message"]["content"] is None
    assert text_of(chunks) == ""
    calls = told["message"]["tool_calls"]
    assert parallel or len(calls) == 1
    for call in calls:
        assert call["type"] == "function"
        assert call["function"]["name"] in names
        jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMAS[call["function"]["name"]])
    assert len({call["id"] for call in calls}) == len(calls)
    assert [(call["function"]["name"], call["function"]["arguments"]) for call in calls] == [
        (call["name"], call["arguments"]) for call in calls_of(chunks)
    ]


async def test_the_arguments_of_a_call_are_streamed_as_they_come(served: Served) -> None:
    chunks = await served.stream(
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        stream_options={"include_usage": True},
    )

    first, begun, *_ = chunks
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": None}
    [call] = begun["choices"][0]["delta"]["tool_calls"]
    assert (call["function"], call["index"]) == ({"name": "get_weather", "arguments": ""}, 0)
    assert sum("tool_calls" in chunk["choices"][0]["delta"] for chunk in chunks[:-1]) > 4
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] > 8


async def test_a_cut_call_says_length(served: Served) -> None:
    fields = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 20}
    [choice] = (await served.ask(**fields))["choices"]
    chunks = await served.stream(**fields)

    assert choice["finish_reason"] == finish_of(chunks) == "length"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "get_weather"
    assert not choice["message"]["content"]


async def test_tools_that_may_be_called_give_words_or_calls(served: Served) -> None:
    fields = {"tools": [WEATHER], "max_tokens": 24}
    [choice] = (await served.ask(**fields))["choices"]
    chunks = await served.stream(**fields)

    message = choice["message"]
    assert message.get("tool_calls") or message["content"]
    assert "<tool_call>" not in (message["content"] or "")
    assert text_of(chunks) == (message["content"] or "")


async def test_a_model_that_may_call_and_does_makes_a_call(served: Served) -> None:
    messages: list[dict[str, Any]] = []
    for index, city in enumerate(("Oslo", "Rome", "Bern")):  # by example: it is a very small model
        arguments = json.dumps({"city": city})
        call = {
            "id": f"c{index}",
            "type": "function",
            "function": {"name": "get_weather", "arguments": arguments},
        }
        messages += [
            {"role": "user", "content": city},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{index}", "content": "ok"},
        ]
    messages.append({"role": "user", "content": "Paris"})
    fields = {"messages": messages, "tools": [WEATHER], "parallel_tool_calls": False}
    [choice] = (await served.ask(**fields))["choices"]
    chunks = await served.stream(**fields)

    assert choice["finish_reason"] == finish_of(chunks) == "tool_calls"
    [call] = choice["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"])["city"] == "Paris"
    assert calls_of(chunks)[0]["arguments"] == call["function"]["arguments"]


async def test_tools_that_must_not_be_called_are_not(served: Served) -> None:
    [choice] = (await served.ask(tools=[WEATHER], tool_choice="none", max_tokens=8))["choices"]

    assert choice["message"]["content"]
    assert "tool_calls" not in choice["message"]


async def test_a_dialogue_with_calls_and_results_goes_on(served: Served) -> None:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
    }
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "How is Oslo?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    [choice] = (await served.ask(messages=messages, tools=[WEATHER], max_tokens=16))["choices"]

    assert isinstance(choice["message"]["content"], str)
    assert choice["finish_reason"] in {"stop", "length"}


async def test_usage_counts_every_choice(served: Served) -> None:
    one = await served.ask(max_tokens=6)
    three = await served.ask(max_tokens=6, n=3, temperature=1, seed=3)

    assert [choice["index"] for choice in three["choices"]] == [0, 1, 2]
    assert three["usage"]["completion_tokens"] == 18
    assert three["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    assert served.usage == Usage(one["usage"]["prompt_tokens"], 18)


async def test_choices_have_seeds_that_count_up_streamed_or_not(served: Served) -> None:
    asked = [{"role": "user", "content": "Tell me about Ada."}]
    fields = {"messages": asked, "max_tokens": 8, "temperature": 1}
    alone = [
        (await served.ask(**fields, seed=7 + index))["choices"][0]["message"]["content"] for index in range(2)
    ]
    chunks = await served.stream(**fields, seed=7, n=2, stream_options={"include_usage": True})

    told = ["", ""]
    for chunk in chunks:
        for choice in chunk["choices"]:
            told[choice["index"]] += choice["delta"].get("content") or ""
    assert told == alone
    assert alone[0] != alone[1]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert sum(bool(c["finish_reason"]) for chunk in chunks for c in chunk["choices"]) == 2
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 16


async def test_calls_for_several_choices_have_ids_of_their_own(served: Served) -> None:
    answer = await served.ask(tools=[CLOCK], tool_choice="required", parallel_tool_calls=False, n=2)

    ids = [choice["message"]["tool_calls"][0]["id"] for choice in answer["choices"]]
    assert len(set(ids)) == 2


@pytest.mark.parametrize("top", [None, 0, 2])
async def test_logprobs_speak_of_the_text_and_of_as_many_alternatives_as_wanted(
    served: Served, top: int | None
) -> None:
    wanted = {"logprobs": True, "max_tokens": 4} | ({} if top is None else {"top_logprobs": top})
    [choice] = (await served.ask(**wanted))["choices"]
    chunks = await served.stream(**wanted)

    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    assert [len(entry["top_logprobs"]) for entry in entries] == [top or 0] * 4
    assert all(entry["logprob"] <= 0 for entry in entries)
    streamed = [e for c in chunks for x in c["choices"] for e in (x.get("logprobs") or {}).get("content", [])]
    assert [entry["token"] for entry in streamed] == [entry["token"] for entry in entries]


async def test_logprobs_of_a_whole_answer_are_those_of_its_text(served: Served) -> None:
    [choice] = (await served.ask(guided_choice=["yes", "no"], logprobs=True))["choices"]

    tokens = [entry["token"] for entry in choice["logprobs"]["content"]]
    assert "".join(tokens) == choice["message"]["content"]


async def test_a_continued_answer_is_only_what_is_new(served: Served) -> None:
    messages = [*HI, {"role": "assistant", "content": "Ada was"}]
    [choice] = (await served.ask(messages=messages, max_tokens=5))["choices"]
    chunks = await served.stream(messages=messages, max_tokens=5)

    assert not choice["message"]["content"].startswith("Ada was")
    assert text_of(chunks) == choice["message"]["content"]


async def test_a_stop_is_not_in_the_text(served: Served) -> None:
    [free] = (await served.ask(max_tokens=12))["choices"]
    words = free["message"]["content"].split(" ")
    [choice] = (await served.ask(max_tokens=12, stop=[words[3]]))["choices"]

    assert choice["finish_reason"] == "stop"
    assert free["message"]["content"].startswith(choice["message"]["content"])
    assert words[3] not in choice["message"]["content"]


async def test_the_same_seed_gives_the_same_text_also_with_a_cached_prompt(served: Served) -> None:
    for temperature in (0, 1):
        asked = [{"role": "user", "content": f"A story number {temperature}, of a cat and a dog and a bird."}]
        texts = {
            (await served.ask(messages=asked, seed=-1, temperature=temperature, max_tokens=16))["choices"][0][
                "message"
            ]["content"]
            for _ in range(3)
        }
        assert len(texts) == 1


async def test_a_bias_bans_a_token(served: Served) -> None:
    [free] = (await served.ask(max_tokens=1, logprobs=True))["choices"]
    ids = {"4503": -100}  # "Ad"
    [biased] = (await served.ask(max_tokens=1, logit_bias=ids))["choices"]

    assert free["message"]["content"] == "Ad"
    assert biased["message"]["content"] != "Ad"


@pytest.mark.parametrize("penalty", ["frequency_penalty", "presence_penalty"])
async def test_a_penalty_changes_what_repeats(served: Served, penalty: str) -> None:
    asked = [{"role": "user", "content": "Write: ha ha ha ha ha ha ha ha ha ha ha ha"}]
    free = await served.ask(messages=asked, max_tokens=24)
    kept = await served.ask(messages=asked, max_tokens=24, **{penalty: 2})

    assert free["choices"][0]["message"] != kept["choices"][0]["message"]


@pytest.mark.parametrize("size", range(1, 7))
async def test_text_cut_inside_a_character_shows_none_of_it(served: Served, size: int) -> None:
    fields = {"guided_choice": ["a😀😀б"], "max_tokens": size}
    [choice] = (await served.ask(**fields))["choices"]
    chunks = await served.stream(**fields)

    assert choice["finish_reason"] == "length"
    assert "\N{REPLACEMENT CHARACTER}" not in choice["message"]["content"] + text_of(chunks)
    assert "a😀😀б".startswith(choice["message"]["content"])
    assert all(isinstance(c["delta"].get("content", ""), str) for chunk in chunks for c in chunk["choices"])


async def test_answers_have_no_timings(served: Served) -> None:
    answer = await served.ask(max_tokens=1)
    chunks = await served.stream(max_tokens=1, stream_options={"include_usage": True})

    assert not any("timings" in told for told in [answer, *chunks])


async def test_a_prompt_is_counted_as_it_is_sent(served: Served) -> None:
    long = [{"role": "user", "content": "word " * 700}]
    many = [
        {
            "type": "function",
            "function": {"name": f"tool_{index}", "description": "word " * 50, "parameters": CITY},
        }
        for index in range(12)
    ]
    await served.ask(messages=long, max_tokens=1)
    with pytest.raises(InvalidRequest) as caught:
        await served.ask(messages=long, tools=many, max_tokens=1)

    assert caught.value.code == "context_length_exceeded"
