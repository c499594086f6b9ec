import json
from typing import Any

import pytest

from scibox.core.types import Chunk, Usage
from scibox.wire import sse
from scibox.wire.llama.dialect import Undo
from scibox.wire.llama.tidy import Tidy
from scibox.wire.merging import Merger

OPENING = (
    b'{"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"id":"i"}'
)
TIMED = b'{"choices":[],"usage":{"prompt_tokens":1},"timings":{"cache_n":34,"prompt_ms":1.5},"object":"x"}'


def event(data: bytes, undo: Undo = Undo()) -> bytes:  # noqa: B008 - frozen
    [kept] = Tidy(undo).event(data)
    return kept


def test_the_first_delta_has_text_unless_only_calls_may_follow() -> None:
    assert b'"content":""' in event(OPENING)
    assert event(OPENING, Undo(calls="all")) == OPENING


def test_an_event_that_quotes_our_words_stays() -> None:
    said = json.dumps({"choices": [{"delta": {"content": OPENING.decode() + TIMED.decode()}}]}).encode()

    assert event(said) == said


def test_timings_are_taken_out_and_nothing_else() -> None:
    assert event(TIMED) == b'{"choices":[],"usage":{"prompt_tokens":1},"object":"x"}'
    assert Tidy(Undo()).whole(TIMED) == b'{"choices":[],"usage":{"prompt_tokens":1},"object":"x"}'


def whole(message: dict[str, Any], undo: Undo = Undo(), **choice: object) -> dict[str, Any]:  # noqa: B008
    body = {"choices": [{"message": message, **choice}]}
    sent = json.dumps(body, separators=(",", ":")).encode()
    tidied: dict[str, Any] = json.loads(Tidy(undo).whole(sent))["choices"][0]
    return tidied


def test_a_continued_answer_does_not_repeat_its_beginning() -> None:
    assert whole({"content": "Well, yes"}, Undo(prefix="Well,"))["message"] == {"content": " yes"}
    assert whole({"content": "No"}, Undo(prefix="Well,"))["message"] == {"content": "No"}


def test_text_is_never_null_without_calls() -> None:
    assert whole({"content": None})["message"]["content"] == ""
    assert whole({"content": None, "tool_calls": [{}]})["message"]["content"] is None


ENTRY = {"id": 4, "token": "a", "bytes": [97], "logprob": -0.5}
END = {"id": 2, "token": "", "bytes": [], "logprob": -0.1, "top_logprobs": []}


def test_logprobs_have_as_many_alternatives_as_wanted_and_no_end() -> None:
    logprobs = {"content": [{**ENTRY, "top_logprobs": [ENTRY]}, END]}
    plain = {"token": "a", "bytes": [97], "logprob": -0.5}

    for wanted, alternatives in ((0, []), (1, [plain])):
        choice = whole({"content": "a"}, Undo(top_logprobs=wanted), logprobs=logprobs)
        assert choice["logprobs"]["content"] == [{**plain, "top_logprobs": alternatives}]
        chunk = json.dumps(
            {"choices": [{"delta": {"content": "a"}, "logprobs": logprobs}]}, separators=(",", ":")
        )
        told = json.loads(event(chunk.encode(), Undo(top_logprobs=wanted)))
        assert told["choices"][0]["logprobs"] == choice["logprobs"]


def test_answers_of_several_calls_are_numbered_and_counted_as_one() -> None:
    merger = Merger(2, 2)

    def said(name: str, **more: object) -> bytes:
        return sse.render(json.dumps({"id": name, "created": 1, **more}).encode())

    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": None}
    events = [
        merger.event(0, Chunk(said("a", choices=[choice]))),
        merger.event(1, Chunk(said("b", choices=[choice]))),
        merger.event(1, Chunk(b"", Usage(5, 2))),
        merger.event(0, Chunk(said("a", choices=[], usage={}), Usage(5, 3))),
        merger.event(0, Chunk(sse.DONE)),
    ]

    told = [json.loads(event[6:]) for event in events if event]
    assert [chunk["id"] for chunk in told] == ["a", "a"]
    assert [chunk["choices"][0]["index"] for chunk in told] == [0, 1]
    assert merger.usage == Usage(5, 5)
    assert merger.ending(with_usage=False) == b""
    last = json.loads(merger.ending(with_usage=True)[6:])
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}


def test_prompts_are_counted_once_for_each_group() -> None:
    merger = Merger(4, 2)
    body = json.dumps({"id": "a", "choices": [{"index": 0, "text": "x"}]}).encode()

    answer = merger.whole([Chunk(body, Usage(prompt, 1)) for prompt in (5, 5, 7, 7)])

    assert answer.usage == Usage(12, 4)
    told = json.loads(answer.data)
    assert [choice["index"] for choice in told["choices"]] == [0, 1, 2, 3]
    assert told["usage"]["total_tokens"] == 16


@pytest.mark.parametrize("stop_type", ["word", "eos"])
def test_which_stop_sequence_matched_is_told_as_vllm_tells_it(stop_type: str) -> None:
    told = {"stop_type": stop_type, "stopping_word": "END" if stop_type == "word" else "", "prompt": "secret"}
    choice = {"index": 0, "finish_reason": "stop"}
    event = {"choices": [{**choice, "delta": {}}], "__verbose": told}
    body = {"choices": [{**choice, "message": {"content": "x"}}], "__verbose": told}
    undo = Undo(tells_stop=True)

    [kept] = Tidy(undo).event(json.dumps(event, separators=(",", ":")).encode())
    whole = Tidy(undo).whole(json.dumps(body, separators=(",", ":")).encode())

    for answer in (json.loads(kept), json.loads(whole)):
        assert answer["choices"][0].get("stop_reason") == ("END" if stop_type == "word" else None)
        assert "secret" not in str(answer)
