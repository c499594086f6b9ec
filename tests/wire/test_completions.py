from __future__ import annotations

import json
from typing import Any

import pytest

from scibox.core.errors import InvalidRequest
from scibox.core.types import Dialect
from scibox.wire.completions.face import Completions
from scibox.wire.face import Asked
from scibox.wire.orders import Target, order, split

GOOD: dict[str, Any] = {"model": "m", "prompt": "Once upon"}


def asked(**more: Any) -> Asked:
    return Completions().parse("req_abc", json.dumps({**GOOD, **more}).encode())


def sent(dialect: Dialect = "llama", **more: Any) -> dict[str, Any]:
    return dict(json.loads(order(asked(**more).call, Target("there", dialect)).body))


def body(*texts: str, finish: str = "stop", logprobs: Any = None) -> bytes:
    choices = [
        {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    return json.dumps(
        {"id": "x", "created": 1, "model": "there", "choices": choices, "usage": usage}
    ).encode()


def event(text: str, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": finish}
    return (
        b"data: "
        + json.dumps({"created": 1, "model": "there", "choices": [choice], **more}).encode()
        + b"\n\n"
    )


def data(told: bytes) -> list[dict[str, Any]]:
    events = [line.removeprefix("data: ") for line in told.decode().split("\n\n")[:-1]]
    assert events[-1] == "[DONE]"
    return [json.loads(line) for line in events[:-1]]


def test_the_order_goes_to_completions_itself() -> None:
    made = order(asked(stop=["END"], stream=True).call, Target("there", "llama"))

    assert made.path == "/completions"
    assert json.loads(made.body) == {
        "model": "there",
        "prompt": "Once upon",
        "stop": ["END"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 16,  # OpenAI's default; llama-server would go on to the end of the context
    }


def test_a_call_is_split_by_prompt_and_choice() -> None:
    call = asked(prompt=["a", "b"], n=2, seed=5).call

    assert call.n == 4
    fields = [{name: json.loads(raw) for name, raw in part.fields.items()} for part in split(call)]
    assert [(field["prompt"], field["seed"]) for field in fields] == [("a", 5), ("a", 6), ("b", 5), ("b", 6)]
    assert not any("n" in field for field in fields)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"prompt": [1, 2]}, "prompt[0]"),
        ({"prompt": [[1, 2]]}, "prompt[0]"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": ["a"] * 128, "n": 5}, "n"),
        ({"prompt": None}, "prompt"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"n": 0}, "n"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"chat_template_kwargs": {}}, "chat_template_kwargs"),
    ],
)
def test_what_is_wrong_is_refused(more: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(**more)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("dialect", "more", "param"),
    [
        ("llama", {"suffix": "end"}, "suffix"),
        ("vllm", {"suffix": "end"}, "suffix"),
        ("llama", {"best_of": 2}, "best_of"),
        ("llama", {"echo": True, "logprobs": 0}, "echo"),
        ("llama", {"echo": True, "max_tokens": 0}, "max_tokens"),
        ("llama", {"logprobs": 1, "stop": "x"}, "logprobs"),
        ("llama", {"stop": "x", "guided_choice": ["a"]}, "stop"),
    ],
)
def test_what_an_engine_would_ignore_is_refused(dialect: Dialect, more: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(dialect, **more)
    assert caught.value.param == param


def test_what_an_engine_has_is_passed_on() -> None:
    wanted = {"suffix": "end", "best_of": 2, "echo": True, "logprobs": 0}

    assert sent("openai", **wanted).items() >= wanted.items()
    assert "best_of" not in sent("llama", n=2, best_of=2)
    assert sent("llama", logprobs=0)["logprobs"] == 1


def test_a_seed_and_a_constraint_become_llama_servers_own() -> None:
    told = sent("llama", seed=-1, guided_choice=["red", "blue"])

    assert told["seed"] == 2**32 - 2
    assert told["cache_prompt"] is False
    assert "red" in told["grammar"]
    assert "guided_choice" not in told


def test_the_answer_has_openais_shape() -> None:
    assert json.loads(asked().reply.whole(body("a time"))) == {
        "id": "cmpl-abc",
        "object": "text_completion",
        "created": 1,
        "model": "there",
        "choices": [{"index": 0, "text": "a time", "logprobs": None, "finish_reason": "stop"}],
        "system_fingerprint": None,
        "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
    }


def test_each_choice_echoes_its_own_prompt() -> None:
    reply = asked(prompt=["a", "b"], n=2, echo=True).reply

    texts = [choice["text"] for choice in json.loads(reply.whole(body("1", "2", "3", "4")))["choices"]]

    assert texts == ["a1", "a2", "b3", "b4"]
    assert "echo" not in sent(echo=True)


def test_log_probabilities_are_told_in_the_older_shape() -> None:
    tops = [{"token": " a", "logprob": -0.1}, {"token": " b", "logprob": -2.0}]
    given = {
        "content": [{"token": " a", "logprob": -0.1, "top_logprobs": tops}, {"token": "é", "logprob": -1.0}]
    }

    whole = json.loads(asked(logprobs=1).reply.whole(body(" aé", logprobs=given)))

    assert whole["choices"][0]["logprobs"] == {
        "tokens": [" a", "é"],
        "token_logprobs": [-0.1, -1.0],
        "top_logprobs": [{" a": -0.1}, {}],
        "text_offset": [0, 2],
    }


def test_offsets_go_on_through_a_stream() -> None:
    logged = asked(stream=True, logprobs=0).reply
    given = {"content": [{"token": " a", "logprob": -0.1}]}
    events = [event(" a").replace(b'"logprobs": null', b'"logprobs": ' + json.dumps(given).encode())] * 2

    told = data(b"".join(map(logged.event, events)) + logged.event(b"data: [DONE]\n\n"))

    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in told] == [[0], [2]]


@pytest.mark.parametrize("wants_usage", [True, False])
def test_usage_of_a_stream_stands_in_an_event_of_its_own(wants_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    reply = asked(stream=True, echo=True, **options).reply
    usage = {"prompt_tokens": 2, "completion_tokens": 1}

    told = data(
        reply.event(event(" a"))
        + reply.event(event("", "length", usage=usage))
        + reply.event(b"data: [DONE]\n\n")
    )

    assert "".join(chunk["choices"][0]["text"] for chunk in told if chunk["choices"]) == "Once upon a"
    if wants_usage:
        assert told[-1]["choices"] == []
        assert told[-1]["usage"] == {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
        assert all(chunk["usage"] is None for chunk in told[:-1])
    else:
        assert not any("usage" in chunk for chunk in told)


def test_a_constraint_reaches_llama_cpp_as_a_grammar() -> None:
    fields = sent(guided_choice=["yes", "no"])

    assert "guided_choice" not in fields
    assert "yes" in fields["grammar"]
