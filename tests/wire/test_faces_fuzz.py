"""No body makes a face fail: it is a call, or an `InvalidRequest` with a field and a sentence."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scibox.core.errors import InvalidRequest, SciBoxError, UpstreamBroken
from scibox.wire.anthropic.face import Messages
from scibox.wire.anthropic.request import MessagesRequest
from scibox.wire.completions.face import CompletionRequest, Completions
from scibox.wire.face import Face
from scibox.wire.responses.face import Responses
from scibox.wire.responses.request import ResponsesRequest

WORDS = st.sampled_from(
    [
        *("message", "function_call", "function_call_output", "reasoning", "item_reference", "input_text"),
        *("text", "tool_use", "tool_result", "thinking", "image", "function", "json_schema", "auto", "tool"),
        *("user", "assistant", "system", "c1", "{}", "", "high", "enabled"),
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | st.text(max_size=5)
NAMES = st.sampled_from(
    [
        *("type", "role", "content", "text", "call_id", "name", "arguments", "output", "id", "input"),
        *("tool_use_id", "thinking", "input_schema", "parameters", "schema", "format", "effort", "tools"),
        *("budget_tokens", "summary", "function", "strict", "user_id", "refusal"),
    ]
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)
FACES: list[tuple[Face, type, dict[str, Any]]] = [
    (Responses(), ResponsesRequest, {"model": "m", "input": "x"}),
    (
        Messages(),
        MessagesRequest,
        {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]},
    ),
    (Completions(), CompletionRequest, {"model": "m", "prompt": "x"}),
]


@pytest.mark.parametrize(("face", "record", "good"), FACES)
@settings(max_examples=150)
@given(data=st.data())
def test_no_body_makes_it_fail(face: Face, record: type, good: dict[str, Any], data: st.DataObject) -> None:
    fields = st.sampled_from(sorted(record.__struct_fields__))  # type: ignore[attr-defined]
    body = {**good, **data.draw(st.dictionaries(fields, JSON, max_size=3))}

    error = fault(face, json.dumps(body).encode())
    assert error is None or (error.param and error.message)


def fault(face: Face, raw: bytes) -> InvalidRequest | None:
    try:
        face.parse("req_abc", raw)
    except InvalidRequest as error:
        return error
    return None


@pytest.mark.parametrize("face", [face for face, _, _ in FACES])
@given(raw=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_make_it_fail(face: Face, raw: bytes) -> None:
    with suppress(InvalidRequest):
        face.parse("req_abc", raw)


ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "choices": JSON
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "delta": JSON,
                    "message": JSON,
                    "text": JSON,
                    "finish_reason": JSON,
                    "logprobs": JSON,
                },
            ),
            max_size=2,
        ),
        "usage": JSON,
        "model": LEAVES,
        "created": LEAVES,
    },
)


@pytest.mark.parametrize(("face", "good"), [(face, good) for face, _, good in FACES])
@settings(max_examples=80)
@given(answers=st.lists(ANSWERS, max_size=4))
def test_no_answer_of_a_replica_makes_it_fail(face: Face, good: dict[str, Any], answers: list[Any]) -> None:
    raw = json.dumps({**good, "stream": True}).encode()
    reply = face.parse("req_abc", raw).reply
    with suppress(UpstreamBroken):
        for answer in answers:
            reply.event(b"data: " + json.dumps(answer).encode() + b"\n\n")
        reply.event(b"data: [DONE]\n\n")
    assert reply.error_event(SciBoxError("It failed.")).endswith(b"\n\n")
    for answer in answers:
        with suppress(UpstreamBroken):
            json.loads(face.parse("req_abc", raw).reply.whole(json.dumps(answer).encode()))
