import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.errors import UpstreamBroken
from scibox.wire import answers, sse
from scibox.wire.llama.called import Arguments, Begun, CallReader, Calls, Piece, Text
from scibox.wire.llama.dialect import Undo
from scibox.wire.orders import Reading

ONE = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Pa}\\"{ris\\\\", "l": [{}]}}\n</tool_call>'
TWO = '<tool_call>\n{"name": "say \\"hi\\"", "arguments": {}}\n</tool_call>'


OPENING = '<tool_call>\n{"name": "'


def read(*texts: str) -> list[Piece]:
    reader = CallReader()
    return [piece for text in texts for piece in reader.feed(text)] + reader.finish()


def joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of one kind as one."""
    result: list[Piece] = []
    for piece in pieces:
        last = result[-1] if result else None
        if isinstance(piece, Text) and isinstance(last, Text):
            result[-1] = Text(last.text + piece.text)
        elif isinstance(piece, Arguments) and isinstance(last, Arguments) and last.index == piece.index:
            result[-1] = Arguments(piece.index, last.text + piece.text)
        else:
            result.append(piece)
    return result


def test_a_call_is_a_name_and_its_arguments() -> None:
    assert read(ONE) == [
        Begun(0, "get_weather"),
        Arguments(0, '{"city": "Pa}\\"{ris\\\\", "l": [{}]}'),
    ]


def test_calls_and_words_are_told_apart() -> None:
    assert joined(read(f"Let me see.\n\n{ONE}\n{TWO}")) == [
        Text("Let me see."),
        Begun(0, "get_weather"),
        Arguments(0, '{"city": "Pa}\\"{ris\\\\", "l": [{}]}'),
        Begun(1, 'say "hi"'),
        Arguments(1, "{}"),
    ]


@given(st.sampled_from([f"Hm. \n{ONE}\n{TWO}", ONE, " a <tool_call> b \n", "x <tool", "\n\n"]), st.data())
def test_any_split_of_the_text_reads_the_same(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    assert joined(read(*pieces)) == joined(read(text))


WORDS = st.lists(st.sampled_from(["<tool_call>", "<tool_", "\n", " ", '{"name": "', "{", "x", "<"])).map(
    "".join
)


@given(WORDS.filter(lambda text: OPENING not in text))
def test_words_without_a_call_stay_as_they_are(text: str) -> None:
    mark = text.rfind("<tool_call>")
    is_cut = mark >= 0 and OPENING.startswith(text[mark:])  # a call that ends before it has a name

    said = "".join(piece.text for piece in read(*text) if isinstance(piece, Text))

    assert said == (text[:mark].rstrip() if is_cut else text)


def test_words_come_at_once_and_only_what_may_be_a_call_waits() -> None:
    reader = CallReader()

    assert reader.feed("Look") == [Text("Look")]
    assert reader.feed(" here ") == [Text(" here")]
    assert reader.feed("<to") == []
    assert reader.feed("p>") == [Text(" <top>")]


def test_arguments_come_as_they_are_written() -> None:
    reader = CallReader()
    reader.feed('<tool_call>\n{"name": "f", "arguments": ')

    assert reader.feed('{"a') == [Arguments(0, '{"a')]
    assert reader.feed('": 1}') == [Arguments(0, '": 1}')]
    assert reader.feed("}\n</tool_call>") == []


def test_a_call_that_is_cut_tells_what_there_is() -> None:
    assert read('<tool_call>\n{"name": "f", "arguments": {"a": "b') == [
        Begun(0, "f"),
        Arguments(0, '{"a": "b'),
    ]
    assert read('<tool_call>\n{"name": "f') == []


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "chatcmpl-1", "choices": [choice], "model": "m"}).encode()


def played(*events: bytes, is_forced: bool = False) -> list[dict[str, Any]]:
    stage = Calls(is_forced=is_forced)
    return [json.loads(event)["choices"][0] for sent in events for event in stage.event(sent)]


def test_a_streamed_call_comes_in_the_order_clients_expect() -> None:
    opening, begun, *more, last = played(
        chunk({"role": "assistant", "content": None}),
        *(chunk({"content": ONE[at : at + 7]}) for at in range(0, len(ONE), 7)),
        chunk({}, "stop"),
    )

    assert opening["delta"] == {"role": "assistant", "content": None}
    [call] = begun["delta"]["tool_calls"]
    assert call["id"].startswith("call_")
    assert call == {
        "index": 0,
        "id": call["id"],
        "type": "function",
        "function": {"name": "get_weather", "arguments": ""},
    }
    assert len(more) > 2
    assert all(set(piece["delta"]["tool_calls"][0]) == {"index", "function"} for piece in more)
    arguments = "".join(piece["delta"]["tool_calls"][0]["function"]["arguments"] for piece in more)
    assert json.loads(arguments) == {"city": 'Pa}"{ris\\', "l": [{}]}
    assert last == {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    assert all(event["finish_reason"] is None for event in [opening, begun, *more])


def test_streamed_words_end_as_they_ended() -> None:
    events = played(chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi "}), chunk({}, "stop"))

    assert [event["delta"] for event in events] == [
        {"role": "assistant", "content": ""},
        {"content": "Hi"},
        {"content": " "},
        {},
    ]
    assert events[-1]["finish_reason"] == "stop"


def test_a_cut_call_says_length() -> None:
    events = played(chunk({"content": ONE[:60]}), chunk({}, "length"))

    assert events[-1]["finish_reason"] == "length"
    assert "tool_calls" in events[0]["delta"]


def whole(text: str, finish: str = "stop", is_forced: bool = False) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    body = {"id": "chatcmpl-1", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    choice: dict[str, Any] = json.loads(Calls(is_forced=is_forced).whole(json.dumps(body).encode()))[
        "choices"
    ][0]
    return choice


def test_a_whole_answer_has_its_calls_and_no_text() -> None:
    choice = whole(f"{ONE}\n{TWO}")

    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    first, second = choice["message"]["tool_calls"]
    assert first["id"] != second["id"]
    assert second["function"] == {"name": 'say "hi"', "arguments": "{}"}
    assert set(first) == {"id", "type", "function"}


def test_a_whole_answer_of_words_is_text() -> None:
    choice = whole("Hello. \n")

    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": "Hello. \n"},
        "finish_reason": "stop",
    }


def test_ids_are_the_same_streamed_or_not() -> None:
    streamed = played(chunk({"content": ONE}))[0]["delta"]["tool_calls"][0]["id"]

    assert streamed == whole(ONE)["message"]["tool_calls"][0]["id"]


def test_where_only_calls_can_be_a_piece_of_one_is_no_text() -> None:
    assert whole("<tool_c", "length", is_forced=True)["message"] == {"role": "assistant", "content": ""}
    events = played(chunk({"content": "<tool_c"}), chunk({}, "length"), is_forced=True)
    assert [event["delta"] for event in events] == [{}]


LLAMA = Reading(undo=Undo("begun", "some", 1))


@pytest.mark.parametrize(
    "garbage",
    [
        b'{"delta": x}',
        b'{"choices":[{"delta":5}]}',
        b'{"choices":[{"delta":{"content":5}}]}',
        b'{"choices":[5],"delta":1}',
        b'{"choices":[{"delta":{},"logprobs":{"content":[{}]}}]}',
        b'{"choices":[{"delta":{}}],"d":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_what_cannot_be_read_is_the_replicas_fault(garbage: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        list(answers.Stream(LLAMA).feed(sse.render(garbage)))


@pytest.mark.parametrize(
    "garbage",
    [
        b'{"choices":[{"message":{"content":5},"finish_reason":"stop"}],"id":"x"}',
        b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop","logprobs":[]}],"id":"x"}',
    ],
)
def test_a_whole_answer_that_cannot_be_read_is_the_replicas_fault(garbage: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        answers.whole(garbage, LLAMA)
