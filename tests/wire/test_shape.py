"""What remote servers leave out of their answers."""

import json
from typing import Any

import pytest

from scibox.wire import answers
from scibox.wire.orders import Reading

READING = Reading(is_chat=True)
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def message(**said: object) -> dict[str, Any]:
    body = json.dumps({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}).encode()
    told: dict[str, Any] = json.loads(answers.whole(body, READING).data)["choices"][0]["message"]
    return told


@pytest.mark.parametrize(
    "said",
    [{}, {"content": None}, {"role": "assistant"}, {"content": None, "tool_calls": []}, {"content": []}],
)
def test_content_is_text_where_there_are_no_calls(said: dict[str, object]) -> None:
    told = message(**said)

    assert told["role"] == "assistant"
    assert told["content"] == ""


def test_content_beside_calls_may_be_null_but_is_there() -> None:
    assert message(role="assistant", tool_calls=[CALL]) == {
        "role": "assistant",
        "content": None,
        "tool_calls": [CALL],
    }


def test_parts_become_text() -> None:
    assert message(content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])["content"] == "ab"


def test_a_message_that_is_complete_stays_byte_for_byte() -> None:
    body = (
        b'{"choices": [ {"index":0, "message":{"role":"assistant", "content":"x"},"finish_reason":"stop"}]}'
    )

    assert answers.whole(body, READING).data == body


def streamed(*calls: list[dict[str, Any]], choice: int = 0) -> list[dict[str, Any]]:
    deltas = [{"index": choice, "delta": {"tool_calls": told}, "finish_reason": None} for told in calls]
    ending = {"index": choice, "delta": {}, "finish_reason": "tool_calls"}
    events = [json.dumps({"choices": [one]}) for one in [*deltas, ending]]
    received = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]).encode()
    told = [json.loads(chunk.data[6:]) for chunk in list(answers.Stream(READING).feed(received))[:-2]]
    return [call for event in told for call in event["choices"][0]["delta"]["tool_calls"]]


@pytest.mark.parametrize("missing", [{}, {"index": None}])
def test_calls_are_numbered(missing: dict[str, None]) -> None:
    def more(text: str, **named: str) -> dict[str, Any]:
        return {**missing, **named, "function": {"arguments": text}}

    told = streamed(
        [more("", id="a")], [more('{"x":')], [more("1}")], [more("{}", id="b"), more("{}", id="c")]
    )

    assert [call["index"] for call in told] == [0, 0, 0, 1, 2]


def test_events_with_numbered_calls_are_not_decoded() -> None:
    event = b'{"choices":[ {"index":0,"delta":{"tool_calls":[{"id":"a","type":"function","index": 0}]}}]}'

    assert next(answers.Stream(READING).feed(b"data: " + event + b"\n\n")).data == b"data: " + event + b"\n\n"
