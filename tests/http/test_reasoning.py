"""Reasoning, replacement characters and extra parameters, the whole way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rig import CHAT, Rig, rig
from scibox.core.types import Dialect
from scibox.engines.fake_script import Script

STREAM = {**CHAT, "stream": True}
TEXT = "<think>\nI muse\n</think>\n\nRed <think>."


def cut(text: str, size: int) -> tuple[str, ...]:
    return tuple(text[at : at + size] for at in range(0, len(text), size))


async def said(r: Rig, body: dict[str, Any], index: int = 0) -> tuple[str, str]:
    """Reasoning and content of an answer, streamed or not."""
    answer = await r.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    if not body.get("stream"):
        message = answer.json()["choices"][index]["message"]
        return message.get("reasoning_content", ""), message["content"]
    events = [
        event.removeprefix("data: ") for event in answer.text.split("\n\n") if event.startswith("data: ")
    ]
    assert events.pop() == "[DONE]"
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    deltas = [choice["delta"] for choice in choices if choice["index"] == index]
    return (
        "".join(delta.get("reasoning_content") or "" for delta in deltas),
        "".join(delta.get("content") or "" for delta in deltas),
    )


def asked(r: Rig) -> dict[str, Any]:
    """The body of the last call at the engine."""
    body: dict[str, Any] = [q for q in r.engine.requests if q.path == "/v1/chat/completions"][-1].json
    return body


@pytest.mark.parametrize("body", [CHAT, STREAM])
@pytest.mark.parametrize("size", [1, 4, 100])
async def test_a_remote_replica_that_separates_nothing(body: dict[str, Any], size: int) -> None:
    async with rig(remote=True) as r:
        r.engine.script = Script(chunks=cut(TEXT, size), split_bytes=11)

        assert await said(r, {**body, "n": 2}, index=1) == ("I muse", "Red <think>.")


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_budget_that_ends_inside(body: dict[str, Any]) -> None:
    async with rig(remote=True) as r:
        r.engine.script = Script(chunks=cut(TEXT, 4))

        assert await said(r, {**body, "max_tokens": 3}) == ("I mu", "")


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_template_that_opens_the_block_is_asked_once(body: dict[str, Any]) -> None:
    async with rig(thinking=None) as r:
        r.engine.prompt_end = "<think>\n"
        r.engine.script = Script(chunks=("I mu", "se\n</think>", "\n\nRed"))

        assert [await said(r, body) for _ in range(3)] == [("I muse", "Red")] * 3
        r.engine.prompt_end = "<think>\n\n</think>\n\n"
        r.engine.script = Script(chunks=("Re", "d"))
        off = {**body, "chat_template_kwargs": {"enable_thinking": False}}
        with_extras = await r.client.post("/v1/chat/completions", json=off)

        assert with_extras.status_code == 400  # this replica's dialect is OpenAI's
        assert [q.path for q in r.engine.requests].count("/apply-template") == 2


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_template_is_asked_for_each_set_of_variables(body: dict[str, Any]) -> None:
    async with rig(thinking=None, dialect="llama") as r:
        r.engine.script = Script(chunks=("Re", "d"))
        off = {**body, "chat_template_kwargs": {"enable_thinking": False}, "max_tokens": 2}

        assert await said(r, off) == ("", "Red")
        r.engine.prompt_end = "<think>\n"
        assert await said(r, {**body, "max_tokens": 1}) == ("Re", "")
        assert asked(r)["reasoning_format"] == "none"
        assert await said(r, off) == ("", "Red")


async def test_the_switches_reach_the_engine() -> None:
    message = {"role": "user", "content": "hello /no_think"}
    async with rig(remote=True, dialect="vllm") as r:
        r.engine.script = Script(chunks=("<think>\n\n</think>\n\n", "Red"))
        body = {**STREAM, "messages": [message], "chat_template_kwargs": {"enable_thinking": False}}

        assert await said(r, body) == ("", "Red")
        assert asked(r)["messages"] == [message]
        assert asked(r)["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_an_answer_cut_inside_a_character_ends_before_it(body: dict[str, Any]) -> None:
    async with rig(remote=True) as r:
        r.engine.script = Script(chunks=("при", "вет", " \ufffd"))
        answer = await r.client.post("/v1/chat/completions", json=body)

        assert "\ufffd" not in answer.text
        assert "ufffd" not in answer.text
        assert (await said(r, body))[1] == "привет "


@pytest.mark.parametrize(
    ("owned_by", "dialect"),
    [("vllm", "vllm"), ("sglang", "vllm"), ("scibox", "vllm"), ("llamacpp", "llama"), ("library", "openai")],
)
async def test_a_remote_replica_is_asked_what_it_is(owned_by: str, dialect: Dialect) -> None:
    async with rig(remote=True, dialect=None) as r:
        r.engine.owned_by = owned_by
        answers = [
            await r.client.post("/v1/chat/completions", json={**CHAT, "repetition_penalty": 1.1})
            for _ in range(2)
        ]

        assert [q.path for q in r.engine.requests].count("/v1/models") == 1
        if dialect == "openai":
            error = answers[0].json()["error"]
            assert (error["param"], error["code"]) == ("repetition_penalty", "unsupported_parameter")
            assert "'chatty'" in error["message"]
            assert not [q for q in r.engine.requests if q.path == "/v1/chat/completions"]
        else:
            name = "repetition_penalty" if dialect == "vllm" else "repeat_penalty"
            assert answers[1].status_code == 200
            assert asked(r)[name] == 1.1


async def test_a_replica_that_cannot_be_asked_is_not_guessed_at() -> None:
    async with rig(remote=True, dialect=None) as r:
        await r.engine.stop()
        answer = await r.client.post("/v1/chat/completions", json={**CHAT, "top_k": 5})

    assert answer.status_code == 503
    assert answer.headers["retry-after"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_parameter_of_another_engine_is_refused_before_anything_is_sent(stream: bool) -> None:
    async with rig(remote=True, dialect="llama") as r:
        answer = await r.client.post("/v1/chat/completions", json={**CHAT, "stream": stream, "min_tokens": 5})

        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "min_tokens"
        assert r.engine.requests == []
