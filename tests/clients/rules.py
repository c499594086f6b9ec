"""What each thing that a client does must have shown. A thing without a rule fails its test."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jsonschema
import pytest

from clients.outcomes import ALIASES, CHAT, EMBEDDER

# The same as in the programs (`programs/telling.py`, `node/telling.mjs`).
TEXTS = ["Привет, мир", "Hello, world", "你好"]
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Moscow", "Paris", "Tokyo"]},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city", "unit", "days"],
    "additionalProperties": False,
}
MIN_PIECES = 5  # fewer arrivals are no stream


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client found, with what it is compared to."""

    client: str
    found: Any
    vectors: Sequence[Sequence[float]]  # of TEXTS, as plain numbers of the service itself


Rule = Callable[[Seen], None]


def says(seen: Seen) -> None:
    """Words; an honest end and whole counts where the client shows them."""
    found = seen.found
    assert re.search(r"\w", found["text"]), found
    if "finish" in found:
        assert found["finish"] in ("stop", "length", "end_turn", "max_tokens", "stop_sequence"), found
    if "usage" in found:
        counts(found["usage"])


def counts(usage: list[int]) -> None:
    prompt, completion, total = usage
    assert prompt > 0
    assert completion > 0
    assert total == prompt + completion


def arrives(seen: Seen) -> None:
    """Several pieces, and the first of them before half of the answer's time had passed."""
    found = seen.found
    pieces = found["pieces"]
    assert len(pieces) >= MIN_PIECES, pieces
    assert re.search(r"\w", "".join(text for _, text in pieces))
    assert pieces[0][0] < found["ended"] / 2, found
    if "usage" in found:
        counts(found["usage"])
    assert found.get("usages", 1) == 1, "usage comes once, at the end"


def calls_weather(seen: Seen) -> None:
    """One call of the function that was forced, its arguments valid."""
    [call] = seen.found["calls"]
    assert call["name"] == "get_weather", call
    jsonschema.validate(call["arguments"], WEATHER)
    assert seen.found.get("finish", "tool_calls") in ("tool_calls", "stop", "tool_use", "tool-calls"), (
        seen.found
    )
    if "after" in seen.found:
        after = seen.found["after"]
        assert re.search(r"\w", after if isinstance(after, str) else after["text"]), after


def calls_something(seen: Seen) -> None:
    """One call at least, of a function that was offered."""
    assert seen.found["calls"]
    for call in seen.found["calls"]:
        assert call["name"] in ("get_weather", "get_time"), call
        if call["name"] == "get_weather":
            jsonschema.validate(call["arguments"], WEATHER)
        else:
            assert call["arguments"].get("zone") in ("MSK", "UTC"), call


def is_weather(seen: Seen) -> None:
    """An object of the schema; where it grew in a stream, in several states."""
    jsonschema.validate(seen.found["object"], WEATHER)
    assert seen.found.get("states", 2) > 1, seen.found


def embeds(seen: Seen) -> None:
    """The service's own vectors."""
    vectors = seen.found["vectors"]
    assert [len(vector) for vector in vectors] == [384] * len(TEXTS)
    for vector, own in zip(vectors, seen.vectors, strict=True):
        # Decimal numbers may be shortened; float32 has 24 bits.
        assert list(vector) == pytest.approx(list(own), abs=2**-22)


def embeds_one(seen: Seen) -> None:
    vector = seen.found["vector"]
    assert len(vector) == 384
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-3)


def finds_hello(seen: Seen) -> None:
    assert seen.found["texts"] == ["Hello, world"]


def carries_headers(seen: Seen) -> None:
    headers = seen.found["headers"]
    assert re.fullmatch(r"req_\w+", headers["x-request-id"])
    assert headers["x-request-id"] == seen.found["request id"]
    assert float(headers["openai-processing-ms"]) >= 0


def tells_kinds(seen: Seen) -> None:
    """The helper's events: chunks, deltas, the end."""
    kinds = seen.found["kinds"]
    assert kinds[0] == "chunk"
    assert {"content.delta", "content.done"} <= set(kinds)
    assert re.search(r"\w", seen.found["text"])


def calls_in_deltas(seen: Seen) -> None:
    calls_weather(seen)
    kinds = seen.found.get("kinds")
    if kinds is not None and "message_stop" not in kinds:
        assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= set(kinds), (
            kinds
        )


def has_two_choices(seen: Seen) -> None:
    assert len(seen.found["texts"]) == 2
    assert all(re.search(r"\w", text) for text in seen.found["texts"])
    assert seen.found["usage"] > 8, "both choices count"


def repeats_itself(seen: Seen) -> None:
    assert len(set(seen.found)) == 1


def has_logprobs(seen: Seen) -> None:
    assert seen.found
    for item in seen.found:
        assert item["top"] == 2
        assert item["logprob"] <= 0
        assert bytes(item["bytes"]).decode("utf-8", "replace") == item["token"]


def stops_before_a_space(seen: Seen) -> None:
    assert seen.found["finish"] == "stop"
    assert " " not in seen.found["text"]


def is_an_object(seen: Seen) -> None:
    assert isinstance(json.loads(seen.found["text"]), dict)


def responds(seen: Seen) -> None:
    assert re.search(r"\w", seen.found["text"])
    assert seen.found["status"] in ("completed", "incomplete")
    counts(seen.found["usage"])


_RESPONSE = ("response.created", "response.output_item.added", "response.content_part.added")


def responds_in_events(seen: Seen) -> None:
    """The documented order: created, the item, its part, deltas, and their ends."""
    kinds = seen.found["kinds"]
    places = [kinds.index(kind) for kind in (*_RESPONSE, "response.output_text.delta")]
    assert places == sorted(places), kinds
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert {"response.output_text.done", "response.content_part.done", "response.output_item.done"} <= set(
        kinds
    )
    if "pieces" in seen.found:
        arrives(seen)
    else:
        responds(seen)


def responds_with_a_call(seen: Seen) -> None:
    calls_weather(seen)
    kinds = seen.found["kinds"]
    wanted = ("response.function_call_arguments.delta", "response.function_call_arguments.done")
    assert set(wanted) <= set(kinds), kinds


def sends_messages_events(seen: Seen) -> None:
    """Anthropic's documented order."""
    assert seen.found["first"] == ["message_start", "content_block_start"]
    assert seen.found["last"] == ["content_block_stop", "message_delta", "message_stop"]
    assert "content_block_delta" in seen.found["kinds"]


def counts_tokens(seen: Seen) -> None:
    assert 10 < seen.found["input_tokens"] < 100


def answers_all(seen: Seen) -> None:
    assert len(seen.found) == 4
    assert all(re.search(r"\w", text) for text in seen.found)


def answers_twenty(seen: Seen) -> None:
    assert all(re.search(r"\w", text) for text in seen.found["texts"])
    assert seen.found["sizes"] == [[384] * len(TEXTS)] * 8
    assert seen.found["ids"] == 12


def times_out(seen: Seen) -> None:
    assert seen.found["error"] == "APITimeoutError"
    assert seen.found["waited"] < 5
    assert seen.found["after"]


def is_cancelled(seen: Seen) -> None:
    assert seen.found["error"] == "CancelledError"
    assert seen.found["after"]


def overlap(seen: Seen) -> None:
    """Of eight streams that were run one after the other, none would overlap with the next."""
    streams = seen.found
    assert len(streams) == 8
    for stream in streams:
        assert stream["text"].strip()
        assert stream["reason"] in ("stop", "length")
        assert stream["completion_tokens"] > 0
        assert stream["models"] == [CHAT]
    ordered = sorted(streams, key=lambda stream: stream["first"])
    assert any(a["last"] > b["first"] for a, b in pairwise(ordered))


def leaves(seen: Seen) -> None:
    assert seen.found["left"] == [3] * 4
    assert seen.found["kinds"][0] == "chunk"
    assert seen.found["kinds"][-1] == "content.delta"
    assert seen.found["text"]


def lists_models(seen: Seen) -> None:
    found = seen.found
    assert {CHAT, EMBEDDER, *ALIASES} <= set(found["listed"])
    assert found["one"] == CHAT
    if "alias" in found:
        assert found["alias"] == ["bge-m3", EMBEDDER]


def offers_tools(seen: Seen) -> None:
    """Whether the model calls is its own choice; that nothing breaks is not."""
    assert seen.found["calls"] or seen.found["text"].strip()


def fails_in_detail(seen: Seen) -> None:
    """Class, status, code and field of every error, its request and a sentence that helps."""
    missing = ("NotFoundError", 404, "model_not_found", "model")
    too_long = ("BadRequestError", 400, "context_length_exceeded", "messages")
    found = seen.found
    assert {
        what: (error["class"], error["status"], error["code"], error["param"])
        for what, error in found.items()
    } == {
        "wrong key": ("AuthenticationError", 401, "invalid_api_key", None),
        "wrong model": missing,
        "wrong model, streamed": missing,
        "wrong model, retrieved": missing,
        "no messages": ("BadRequestError", 400, "invalid_value", "messages"),
        "too long": too_long,
        "too long, streamed": too_long,
        "empty text": ("BadRequestError", 400, "invalid_value", "input"),
    }
    assert all(re.fullmatch(r"req_\w+", error["request_id"]) for error in found.values())
    assert all(error["message"].endswith((".", "!", "?")) for error in found.values())
    assert CHAT in found["wrong model"]["message"], "the nearest name is in the message"


_OPENAIS_ERRORS = {
    "wrong key": "AuthenticationError",
    "wrong model": "NotFoundError",
    "bad request": "BadRequestError",
}
# What 401, 404 and 400 become in clients with names of their own.
_ERRORS = {
    "langchain-openai": {
        "wrong key": "OpenAIAuthenticationError",
        "wrong model": "OpenAIModelNotFoundError",
        "bad request": "OpenAIInvalidRequestError",
    },
    "pydantic-ai": {
        "wrong key": "ModelAuthenticationError 401",
        "wrong model": "ModelNotFoundError 404",
        "bad request": "ModelRequestRejectedError 400",
    },
    "AI SDK": {
        "wrong key": "APICallError 401",
        "wrong model": "APICallError 404",
        "bad request": "APICallError 400",
    },
}


def fails_rightly(seen: Seen) -> None:
    assert seen.found == _ERRORS.get(seen.client, _OPENAIS_ERRORS)


def refuses_responses(seen: Seen) -> None:
    assert seen.found == {**_OPENAIS_ERRORS, "earlier answer": "BadRequestError"}


def keeps_files(seen: Seen) -> None:
    assert seen.found == {
        "object": ["file", "batch", "in.jsonl", 24],
        "same": True,
        "content": True,
        "listed": True,
        "deleted": True,
        "gone": "NotFoundError",
        "refused": "BadRequestError",
    }


def ran_in_the_background(seen: Seen) -> None:
    found = seen.found
    assert found["created"] in ("validating", "in_progress")
    assert found["status"] == "completed"
    assert found["metadata"] == {"job": "test"}
    assert found["counts"] == [3, 2, 1]
    assert set(found["texts"]) == {"line-1", "line-2"}
    assert all(re.search(r"\w", text) for text in found["texts"].values())
    assert found["errors"] == {"line-3": 400}


def names_the_line(seen: Seen) -> None:
    assert seen.found["status"] == "failed"
    [[code, message]] = seen.found["errors"]
    assert code
    assert "line-1" in message


def is_cut_short(seen: Seen) -> None:
    found = seen.found
    assert found["asked"] in ("cancelling", "cancelled")
    assert found["status"] == "cancelled"
    total, completed, failed = found["counts"]
    assert total == 200
    assert completed + failed < 200
    assert found["listed"]
    assert found["after"]


RULES: dict[str, Rule] = {
    "batch_cancelled": is_cut_short,
    "batch_of_chats": ran_in_the_background,
    "batch_of_embeddings": embeds,
    "batch_refused": names_the_line,
    "cancelled": is_cancelled,
    "chat": says,
    "command": says,
    "completion": says,
    "completion_stream": arrives,
    "counted": counts_tokens,
    "eight_streams": overlap,
    "embeddings": embeds,
    "embeddings_as_numbers": embeds,
    "embeddings_by_text": embeds,
    "errors": fails_rightly,
    "errors_in_detail": fails_in_detail,
    "events": sends_messages_events,
    "files": keeps_files,
    "forced_tool": calls_weather,
    "json_object": is_an_object,
    "json_schema": is_weather,
    "leaves_early": leaves,
    "leaves_a_stream": says,
    "logprobs": has_logprobs,
    "long_embedding": embeds_one,
    "models": lists_models,
    "nearest": finds_hello,
    "parse": is_weather,
    "parse_streamed": is_weather,
    "parse_tool": calls_weather,
    "pipeline": finds_hello,
    "raw": carries_headers,
    "required_tool": calls_something,
    "response": responds,
    "response_errors": refuses_responses,
    "response_parse": is_weather,
    "response_schema": is_weather,
    "response_stream": responds_in_events,
    "response_stream_helper": responds_in_events,
    "response_tool": calls_weather,
    "response_tool_stream": responds_with_a_call,
    "responses": says,
    "responses_structured": is_weather,
    "roles": says,
    "seeded": repeats_itself,
    "several": has_two_choices,
    "several_turns": says,
    "stopped": stops_before_a_space,
    "stream": arrives,
    "stream_events": tells_kinds,
    "stream_helper": says,
    "streamed_tool": calls_in_deltas,
    "structured": is_weather,
    "structured_by_tool": is_weather,
    "structured_streamed": is_weather,
    "timeout": times_out,
    "together": answers_all,
    "tool_answered": says,
    "tools_are_offered": offers_tools,
    "twenty_at_once": answers_twenty,
}
