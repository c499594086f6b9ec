"""What another replica is asked for, and how its events join those of the first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.errors import UpstreamBroken
from scibox.core.types import Call, Dialect, Thinking
from scibox.wire import chat
from scibox.wire.completions.face import Completions
from scibox.wire.orders import Target, order
from scibox.wire.resuming.joiner import Joiner
from scibox.wire.resuming.memory import MAX_TEXT_BYTES, Memory, Said
from scibox.wire.resuming.order import Rest, keeps, rest

ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


def call(**more: Any) -> Call:
    return chat.parse("req_1", json.dumps(ASKED | more).encode())


def event(text: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "a", "created": 1, "model": "m", "choices": [choice], **more}).encode()


def said(*texts: str, ended: bool = False) -> Said:
    memory = Memory()
    memory.add(b'{"id":"a","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant"}}]}')
    for text in texts:
        memory.add(event(text))
    if ended:
        memory.add(event(finish="stop"))
    found = memory.said()
    assert found
    return found


def wanted(*texts: str, dialect: Dialect = "vllm", thinking: Thinking = "auto", **more: Any) -> Rest | None:
    return rest(call(**more), said(*texts), dialect, thinking)


def sent(*texts: str, dialect: Dialect = "vllm", counted: int | None = None, **more: Any) -> dict[str, Any]:
    found = wanted(*texts, dialect=dialect, **more)
    assert found
    body = order(found.call(call(**more), counted), Target("m", dialect)).body
    answer: dict[str, Any] = json.loads(body)
    return answer


def test_a_message_of_the_assistant_is_continued() -> None:
    body = sent("One", " two")

    assert body["messages"] == [*ASKED["messages"], {"role": "assistant", "content": "One two"}]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_llama_server_continues_without_being_told() -> None:
    body = sent("One", " two", dialect="llama")

    assert body["messages"][-1] == {"role": "assistant", "content": "One two"}
    assert "continue_final_message" not in body


def test_a_message_that_the_caller_began_gets_longer() -> None:
    begun = [*ASKED["messages"], {"role": "assistant", "content": "Well,"}]

    body = sent(" yes", messages=begun, continue_final_message=True, add_generation_prompt=False)

    assert body["messages"] == [*ASKED["messages"], {"role": "assistant", "content": "Well, yes"}]


def test_only_the_rest_is_asked_for() -> None:
    assert sent("One", " two", max_tokens=10, min_tokens=5)["max_tokens"] == 8
    assert sent("One", " two", max_tokens=10, min_tokens=5)["min_tokens"] == 3
    assert sent("One", " two", counted=4, max_tokens=10)["max_tokens"] == 6
    assert sent("One", " two", counted=4, max_tokens=3)["max_tokens"] == 1


def test_white_space_and_half_a_stop_sequence_are_said_again() -> None:
    found = wanted("One.", "\n", "\n")
    assert found
    assert (found.sent, found.overlap, found.sent_deltas) == ("One.", "\n\n", 1)

    found = wanted("One", "EN", stop=["END"])
    assert found
    assert (found.sent, found.overlap) == ("One", "EN")


def test_older_completions_go_on_from_any_text() -> None:
    body = {"model": "m", "prompt": "Once", "stream": True, "max_tokens": 10}
    asked = Completions().parse("req_1", json.dumps(body).encode()).call
    memory = Memory()
    memory.add(b'{"id":"a","choices":[{"index":0,"text":" upon","finish_reason":null}]}')
    told = memory.said()
    assert told

    found = rest(asked, told, "openai", "none")

    assert found
    fields = found.call(asked, None).fields
    assert (json.loads(fields["prompt"]), json.loads(fields["max_tokens"])) == ("Once upon", 9)


def test_who_cannot_go_on() -> None:
    assert wanted("One", dialect="openai") is None
    assert wanted("One", thinking="opened") is None
    assert wanted("<thi") is None
    assert wanted("<think>Hm") is None


def test_of_what_nothing_was_said_anybody_can_be_asked_again() -> None:
    found = rest(call(), said(), "openai", "opened")

    assert found
    assert found.call(call(), None) == call()


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"guided_regex": "a+"},
        {"logprobs": True},
    ],
)
def test_answers_that_are_more_than_their_text_are_not_kept(more: dict[str, Any]) -> None:
    assert keeps(call(**more)) == 0
    memory = Memory(0)
    memory.add(event("One"))
    assert memory.said() is None


def test_plain_answers_are_kept() -> None:
    assert keeps(call()) == MAX_TEXT_BYTES
    assert keeps(call(response_format={"type": "text"})) == MAX_TEXT_BYTES
    assert keeps(call(n=2)) is None
    assert keeps(call(stream=False)) is None


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_and_calls_are_not_gone_on_with(field: str) -> None:
    memory = Memory()
    memory.add(b'{"choices":[{"index":0,"delta":{"%b":"Hm"}}]}' % field.encode())
    assert memory.said() is None


def test_so_much_is_kept_and_no_more() -> None:
    memory, piece = Memory(), "x" * 1024
    for _ in range(64):
        memory.add(event(piece))
    found = memory.said()
    assert found
    assert len(found.text) == MAX_TEXT_BYTES

    memory.add(event("x"))
    assert memory.said() is None


@given(st.lists(st.text(max_size=40), max_size=60))
def test_what_is_kept_is_what_was_said(texts: list[str]) -> None:
    memory = Memory()
    for text in texts:
        memory.add(
            json.dumps({"choices": [{"index": 0, "delta": {"content": text}}], "x": "y" * 900}).encode()
        )
    found = memory.said()
    assert found
    assert found.text == "".join(texts)
    assert found.deltas == sum(1 for text in texts if text)


# Joining


def joiner(*texts: str, ended: bool = False, complete: bool = False, echoes: bool = False) -> Joiner:
    asked, told = call(), said(*texts, ended=ended)
    found = rest(asked, told, "llama" if echoes else "vllm", "auto")
    assert found
    tokens = found.tokens(None)
    return Joiner(found, tokens, tokens, is_complete=complete or ended, echoes=echoes, undo=None)


def text_of(joined: list[bytes | None]) -> str:
    events = [json.loads(one) for one in joined if one is not None]
    return "".join(one["choices"][0]["delta"].get("content", "") for one in events if one["choices"])


def test_one_answer_has_one_id_and_one_role() -> None:
    join = joiner("One")
    other = {"id": "b", "created": 2, "model": "n", "system_fingerprint": "z"}
    role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}

    assert join.event(json.dumps({**other, "choices": [role]}).encode()) is None
    joined = join.event(json.dumps({**json.loads(event(" two")), **other}).encode())

    assert joined
    told = json.loads(joined)
    assert (told["id"], told["created"], told["model"]) == ("a", 1, "m")
    assert "system_fingerprint" not in told


def test_the_prompt_is_counted_once_and_the_answer_whole() -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    joined = joiner("One", " two").event(json.dumps({"id": "b", "choices": [], "usage": usage}).encode())

    assert joined
    assert json.loads(joined)["usage"] == {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17}


def test_of_a_complete_answer_only_the_end_is_taken() -> None:
    join = joiner("One", complete=True)
    assert join.event(event(" two")) is None
    last = join.event(event(finish="length"))
    assert last
    assert json.loads(last)["choices"][0]["finish_reason"] == "length"

    join = joiner("One", ended=True)
    assert join.event(event(finish="length")) is None


@pytest.mark.parametrize(
    ("overlap", "texts", "expected"),
    [
        ("\n\n", ["\n", "\n", "Two"], "Two"),
        ("\n\n", ["\n\nTwo"], "Two"),
        ("\n\n", ["\n", " Two"], "Two"),
        ("\n\n", [" Two"], "Two"),
        ("\n", ["\n\nTwo"], "\nTwo"),
    ],
)
def test_white_space_is_not_doubled(overlap: str, texts: list[str], expected: str) -> None:
    join = joiner("One", overlap)

    joined = [join.event(event(text)) for text in texts] + [join.event(event(finish="stop"))]

    assert text_of(joined) == expected


@given(st.lists(st.integers(1, 30), max_size=8))
def test_a_text_that_is_repeated_is_cut_off_in_any_pieces(cuts: list[int]) -> None:
    begun, more = "Once upon a time there", " was a king."
    join = joiner(begun, echoes=True)
    whole, at, joined = begun + more, 0, []
    for size in [*cuts, len(whole)]:
        if piece := whole[at : at + size]:
            joined.append(join.event(event(piece)))
        at += size
    joined.append(join.event(event(finish="stop")))

    assert text_of(joined) == more


def test_a_beginning_like_the_first_text_is_held_back_and_not_lost() -> None:
    join = joiner("Once upon a time there", echoes=True)

    joined = [join.event(event("Once")), join.event(event(" upon")), join.event(event(finish="stop"))]

    assert text_of(joined) == "Once upon"


@pytest.mark.parametrize("field", ["reasoning_content", "tool_calls"])
def test_another_kind_of_answer_does_not_join(field: str) -> None:
    with pytest.raises(UpstreamBroken):
        joiner("One").event(json.dumps({"choices": [{"index": 0, "delta": {field: ["x"]}}]}).encode())


@pytest.mark.parametrize("data", [b"{", b'{"choices":[1]}', b'{"choices":[{"delta":{"content":1}}]}'])
def test_what_cannot_be_read_is_an_error(data: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        joiner("One").event(data)
