"""Choices and calls of tools at the door, on a fake llama-server."""

import asyncio
import json

import pytest

from rig import CHAT, rig
from scibox.core.types import Ending
from scibox.engines.fake_script import Script

PATH = "/v1/chat/completions"
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": PARAMETERS}}]
CALL = ("<tool_call>\n", '{"name": "f", "argu', 'ments": {"a"', ": 1}", "}\n</tool_call>")


@pytest.mark.parametrize("stream", [False, True])
async def test_each_choice_is_a_call_of_its_own(stream: bool) -> None:
    async with rig(dialect="llama") as r:
        answer = await r.client.post(PATH, json={**CHAT, "n": 3, "stream": stream})
        await r.until_idle()

    asked = [request.json for request in r.engine.requests if request.path == PATH]
    assert len(asked) == 3
    assert all("n" not in body for body in asked)
    [ended] = r.ended
    assert ended.outcome is Ending.FINISHED
    assert ended.usage.completion_tokens == sum(one.usage.completion_tokens for one in r.engine.answers) == 36
    assert ended.usage.prompt_tokens == r.engine.answers[0].usage.prompt_tokens
    if not stream:
        assert len(answer.json()["choices"]) == 3
        assert answer.json()["usage"]["completion_tokens"] == 36


@pytest.mark.parametrize("stream", [False, True])
async def test_one_choice_that_fails_before_the_first_word_fails_the_call(stream: bool) -> None:
    async with rig(dialect="llama") as r:
        r.engine.script = Script(first_chunk_delay_s=0.2)
        r.engine.next_scripts.extend([Script(first_chunk_delay_s=0.2), Script(status=500)])
        answer = await r.client.post(PATH, json={**CHAT, "n": 3, "stream": stream})
        await r.until_idle()

    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_error"
    [ended] = r.ended
    assert ended.outcome is Ending.UPSTREAM_ERROR


async def test_a_client_that_leaves_ends_all_choices() -> None:
    async with rig(dialect="llama") as r:
        r.engine.script = Script(chunks=("word ",) * 500, chunk_delay_s=0.02)
        async with r.client.stream("POST", PATH, json={**CHAT, "n": 3, "stream": True}) as answer:
            await anext(answer.aiter_lines())
            async with asyncio.timeout(2):
                while r.engine.in_flight < 3:
                    await asyncio.sleep(0.005)
        await r.until_idle()

    assert r.engine.abandoned == 3
    [ended] = r.ended
    assert ended.outcome is Ending.CLIENT_GONE


async def test_a_forced_call_reaches_the_client_as_one() -> None:
    async with rig(dialect="llama") as r:
        r.engine.script = Script(chunks=CALL)
        body = {**CHAT, "tools": TOOLS, "tool_choice": "required"}
        whole = (await r.client.post(PATH, json=body)).json()["choices"][0]
        streamed = await r.client.post(PATH, json={**body, "stream": True})

    assert whole["finish_reason"] == "tool_calls"
    assert whole["message"]["content"] is None
    assert whole["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    *events, done = streamed.text.strip().split("\n\n")
    assert done == "data: [DONE]"
    deltas = [json.loads(event[6:])["choices"][0] for event in events]
    pieces = [call["function"]["arguments"] for d in deltas for call in d["delta"].get("tool_calls", ())]
    assert pieces == ["", '{"a"', ": 1}"]
    assert deltas[-1]["finish_reason"] == "tool_calls"


async def test_what_the_engine_cannot_do_is_refused_before_it_is_asked() -> None:
    async with rig(dialect="llama") as r:
        answer = await r.client.post(PATH, json={**CHAT, "guided_regex": "a", "guided_choice": ["b"]})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "guided_regex"
    assert not any(request.path == PATH for request in r.engine.requests)


async def test_other_replicas_make_their_choices_themselves() -> None:
    async with rig(remote=True) as r:
        answer = await r.client.post(PATH, json={**CHAT, "n": 3, "tools": TOOLS, "tool_choice": "required"})

    [asked] = [request.json for request in r.engine.requests if request.path == PATH]
    assert (asked["n"], asked["tools"], asked["tool_choice"]) == (3, TOOLS, "required")
    assert len(answer.json()["choices"]) == 3
