"""Whatever bytes come, from clients or replicas: a result or one of our errors, never anything else.

The faces are those of the door's own table: a new one is fuzzed from its first day.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import odd_bytes

from scibox.core.errors import SciBoxError
from scibox.wire import answers, faces, tokenize
from scibox.wire.document import openapi
from scibox.wire.face import Asked, Face
from scibox.wire.orders import Reading, Target, order
from scibox.wire.sse import EventSplitter

IS_LONG = os.environ.get("SCIBOX_TEST_LONG") == "1"
often = settings(max_examples=20_000 if IS_LONG else 250, derandomize=not IS_LONG)

FACES: dict[str, Face] = dict(faces.FACES)
TARGETS = [
    Target("m", dialect, has_tools, thinking)
    for dialect in ("openai", "vllm", "llama")
    for has_tools in (True, False)
    for thinking in ("auto", "opened", "none")
]

FUNCTION = {
    "name": "get_weather",
    "description": "x",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOL = {"type": "function", "function": FUNCTION}
TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city":"x"}'},
}
CHAT = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "12 degrees"},
    ],
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
    "parallel_tool_calls": False,
}
OUTPUT = {
    "model": "m",
    "messages": [{"role": "user", "content": "hello"}],
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "n", "strict": True, "schema": FUNCTION["parameters"]},
    },
    "stream": True,
    "stream_options": {"include_usage": True},
    "stop": ["a", "b"],
    "seed": 1,
    "n": 2,
    "logprobs": True,
    "top_logprobs": 2,
    "logit_bias": {"5": 1},
    "temperature": 0.5,
    "max_completion_tokens": 5,
    "chat_template_kwargs": {"enable_thinking": False},
    "reasoning_effort": "low",
    "metadata": {"a": "b"},
}
INPUTS: list[Any] = [["a", "b"], [1, 2], [[1], [2, 3]], "text"]
RESPONSES = {
    "model": "m",
    "instructions": "s",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
        {"type": "function_call", "call_id": "c", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "12"},
    ],
    "tools": [{"type": "function", **FUNCTION}],
    "text": {"format": {"type": "json_schema", "name": "n", "schema": FUNCTION["parameters"]}},
    "max_output_tokens": 5,
    "stream": True,
}
MESSAGES = {
    "model": "m",
    "max_tokens": 5,
    "system": [{"type": "text", "text": "s"}],
    "messages": [
        {"role": "user", "content": "hello"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t", "name": "get_weather", "input": {}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "12"}]},
    ],
    "tools": [{"name": "get_weather", "input_schema": FUNCTION["parameters"]}],
    "tool_choice": {"type": "auto"},
    "stream": True,
}
RERANK = {
    "model": "m",
    "query": "q",
    "documents": ["a", {"text": "b"}],
    "top_n": 1,
    "text_1": "a",
    "text_2": ["b"],
}
# Every face is given all of them: what is right for one is odd for another.
BODIES = [
    *(CHAT, OUTPUT, RESPONSES, MESSAGES, RERANK, openapi.CHAT_EXAMPLE, openapi.EMBEDDING_EXAMPLE),
    *({"model": "m", "input": one, "encoding_format": "base64", "dimensions": 8} for one in INPUTS),
    {
        "model": "m",
        "prompt": ["a", "b"],
        "echo": True,
        "suffix": "x",
        "logprobs": 1,
        "best_of": 2,
        "max_tokens": 5,
    },
    *(openapi.TOKENIZE_EXAMPLE, openapi.DETOKENIZE_EXAMPLE),
]

ENVELOPE = {"id": "chatcmpl-1", "created": 1, "model": "m"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
WHOLE = [
    {
        **ENVELOPE,
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": USAGE,
    }
    for message in (
        {"role": "assistant", "content": "<think>why</think>because"},
        {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
        {
            "role": "assistant",
            "content": '{"name":"get_weather","arguments":{"city":"x"}}',
            "reasoning_content": "r",
        },
    )
] + [
    {"object": "list", "model": "m", "data": [{"index": 0, "embedding": [0.1, 0.2]}], "usage": USAGE},
    {
        **ENVELOPE,
        "object": "text_completion",
        "choices": [{"index": 0, "text": "x", "finish_reason": "length"}],
    },
    {"error": {"message": "no", "type": "t", "code": 500}},
]
EVENTS = [
    {
        **ENVELOPE,
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": end}],
    }
    for delta, end in (
        ({"role": "assistant", "content": None}, None),
        ({"content": "<th"}, None),
        ({"content": "ink>why</think>\n\nso"}, None),
        ({"reasoning_content": "r"}, None),
        ({"tool_calls": [{"index": 0, **TOOL_CALL}]}, None),
        ({"tool_calls": [{"index": 0, "function": {"arguments": '"}'}}]}, None),
        ({}, "tool_calls"),
        ({}, "stop"),
    )
] + [
    {**ENVELOPE, "object": "chat.completion.chunk", "choices": [], "usage": USAGE},
    {**ENVELOPE, "object": "text_completion", "choices": [{"index": 0, "text": "x", "finish_reason": None}]},
    {"error": {"message": "no", "type": "t", "code": 500}},
]


def refusal(work: Callable[[], object]) -> SciBoxError | None:
    """The error of ours that ended the work, if one did; any other goes on."""
    try:
        work()
    except SciBoxError as error:
        return error
    return None


def ask(face: Face, body: bytes) -> Asked | None:
    """What a face makes of a body; a refusal must be one that a client can read."""
    found: list[Asked] = []
    check_refusal(refusal(lambda: found.append(face.parse("req_1", body))))
    return found[0] if found else None


def check_refusal(error: SciBoxError | None) -> None:
    if error is None:
        return
    assert 400 <= error.status < 500
    assert error.message.endswith((".", "?", ")")), error.message
    assert len(error.message) < 4_000
    assert error.param is None or len(error.param) < 1_000


def as_stream(events: list[bytes]) -> bytes:
    return (
        b"".join(b"data: " + event.replace(b"\n", b" ") + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    )


def test_every_face_of_the_door_is_here() -> None:
    assert {"/chat/completions", "/embeddings"} <= set(FACES)


@pytest.mark.parametrize("path", FACES)
@often
@given(body=odd_bytes(BODIES), target=st.sampled_from(TARGETS))
def test_a_body_becomes_an_order_in_json_or_a_refusal(path: str, body: bytes, target: Target) -> None:
    asked = ask(FACES[path], body)
    if asked is None:
        return
    call = asked.call
    assert call.text_bytes >= call.solid_bytes >= 0
    assert call.model
    with suppress(SciBoxError):
        json.loads(order(call, target).body)


@pytest.mark.parametrize("path", FACES)
@often
@given(
    body=st.sampled_from(BODIES),
    target=st.sampled_from(TARGETS),
    whole=odd_bytes(WHOLE),
    events=st.lists(odd_bytes(EVENTS), max_size=6),
)
def test_what_a_replica_answers_is_told_or_is_its_fault(
    path: str, body: Any, target: Target, whole: bytes, events: list[bytes]
) -> None:
    asked = ask(FACES[path], json.dumps(body).encode())
    if asked is None:
        return
    reading = Reading()
    with suppress(SciBoxError):
        reading = order(asked.call, target).reading
    fault = refusal(lambda: json.loads(asked.reply.whole(answers.whole(whole, reading).data)))
    assert fault is None or fault.status >= 500 or fault.code == "context_length_exceeded"
    stream = answers.Stream(reading)
    fault = refusal(
        lambda: [asked.reply.event(chunk.data).decode() for chunk in stream.feed(as_stream(events))]
    )
    fault = fault or refusal(stream.close)
    assert fault is None or asked.reply.error_event(fault)


@often
@given(st.integers(400, 599), odd_bytes(WHOLE))
def test_a_replicas_refusal_is_always_one_of_ours(status: int, body: bytes) -> None:
    error = answers.refusal(status, body)

    assert error.status in {400, 502, 503}
    assert error.message


@often
@given(odd_bytes(BODIES))
def test_what_is_to_be_split_is_read_or_refused(body: bytes) -> None:
    for parse in (tokenize.parse, tokenize.parse_ids):
        check_refusal(refusal(lambda parse=parse: parse("req_1", body)))  # type: ignore[misc]


TOKENS = [
    {"tokens": [1, 2]},
    {"tokens": [{"id": 1, "piece": "a"}, {"id": 2, "piece": [226, 130]}]},
    {"count": 1, "max_model_len": 5, "tokens": [1], "token_strs": ["a"]},
    {"prompt": "text", "content": "text"},
]


@often
@given(odd_bytes(TOKENS))
def test_what_tokenizers_answer_is_read_or_is_their_fault(body: bytes) -> None:
    for read in (
        lambda: tokenize.read_llama(body, 5, texts=True),
        lambda: tokenize.read_vllm(body),
        lambda: tokenize.read_prompt(body),
        lambda: tokenize.read_content(body),
    ):
        fault = refusal(read)
        assert fault is None or fault.status == 502


@often
@given(odd_bytes(EVENTS), st.lists(st.integers(0, 2_000), max_size=5))
def test_any_bytes_cut_anywhere_give_the_same_events(raw: bytes, cuts: list[int]) -> None:
    raw = raw.replace(b",", b"\n\ndata: ").replace(b":", b"\r\n")
    whole, pieces = EventSplitter(), EventSplitter()
    at = 0
    found: list[bytes] = []
    for cut in sorted(cuts):
        found += pieces.feed(raw[at:cut])
        at = max(at, cut)
    found += pieces.feed(raw[at:])

    assert found == whole.feed(raw)
