"""The faces in front of the real llama.cpp: what they promise holds there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from chat_answers import events

from rig import socket_folder
from scibox.core.types import ModelCard
from scibox.engines import llama
from scibox.engines.supervisor import Supervisor
from scibox.router.replica import Deployment, Replica, Route
from scibox.router.router import Deadlines, Router
from scibox.upstream.address import Address
from scibox.upstream.client import Client
from scibox.wire.anthropic.face import Messages
from scibox.wire.completions.face import Completions
from scibox.wire.face import Face
from scibox.wire.responses.face import Responses

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 10}},
    "required": ["city"],
    "additionalProperties": False,
}


class Served:
    """One model on one real engine, asked as the pipeline does."""

    def __init__(self, router: Router, replica: Replica) -> None:
        self._router = router
        self._route = Route(ModelCard("m", "chat", "scibox", 1, 1024), (Deployment((replica,)),))

    async def ask(self, face: Face, **fields: Any) -> Any:
        """A whole answer."""
        [body] = await self._told(face, fields)
        return json.loads(body)

    async def stream(self, face: Face, **fields: Any) -> bytes:
        """All of a streamed answer."""
        return b"".join(await self._told(face, {**fields, "stream": True}))

    async def _told(self, face: Face, fields: dict[str, Any]) -> list[bytes]:
        asked = face.parse("req_abc", json.dumps({"model": "m", "temperature": 0, **fields}).encode())
        tell = asked.reply.event if asked.call.stream else asked.reply.whole
        async with aclosing(self._router.stream(asked.call, self._route)) as chunks:
            return [tell(chunk.data) async for chunk in chunks if chunk.data]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(models_dir: Path) -> AsyncIterator[Served]:
    [weights] = sorted((models_dir / "smollm2-135m-instruct").glob("*.gguf"))
    with socket_folder() as folder:
        socket = folder / "e.sock"
        settings = llama.Settings(str(socket), str(weights), "small", slots=4, context=1024)
        supervisor = Supervisor("small", llama.command(settings), socket, report=lambda event: None)
        await supervisor.start()
        client = Client(1.0)
        try:
            await supervisor.wait_ready()
            replica = Replica(Address.parse(f"unix:{socket}"), "small", context=1024, dialect="llama")
            yield Served(Router(client, Deadlines(60, 60, 120)), replica)
        finally:
            client.close()
            await supervisor.stop()


async def test_completions_count_all_prompts_and_choices(served: Served) -> None:
    one = await served.ask(Completions(), prompt="Red, green and", max_tokens=4)
    other = await served.ask(Completions(), prompt="One, two, three,", max_tokens=4)
    both = await served.ask(
        Completions(), prompt=["Red, green and", "One, two, three,"], n=2, max_tokens=4, echo=True
    )

    assert both["usage"]["prompt_tokens"] == sum(a["usage"]["prompt_tokens"] for a in (one, other))
    assert both["usage"]["completion_tokens"] == 16
    texts = [choice["text"] for choice in both["choices"]]
    assert [text[:3] for text in texts] == ["Red", "Red", "One", "One"]
    assert {choice["finish_reason"] for choice in both["choices"]} == {"length"}


@pytest.mark.parametrize("logprobs", [0, 2])
async def test_log_probabilities_of_completions_spell_the_text(served: Served, logprobs: int) -> None:
    answer = await served.ask(Completions(), prompt="Red, green and", max_tokens=5, logprobs=logprobs)

    [choice] = answer["choices"]
    told = choice["logprobs"]
    assert "".join(told["tokens"]) == choice["text"]
    assert [len(tops) for tops in told["top_logprobs"]] == [logprobs] * len(told["tokens"])
    offsets = zip(told["text_offset"], told["tokens"], strict=True)
    assert all(choice["text"][at:].startswith(token) for at, token in offsets)


async def test_a_message_tells_which_stop_sequence_matched(served: Served) -> None:
    wanted: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Count: one two three four five"}],
        "max_tokens": 30,
        "stop_sequences": ["nothing", " three"],
    }
    whole = await served.ask(Messages(), **wanted)
    streamed = events(await served.stream(Messages(), **wanted))

    assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", " three")
    assert " three" not in whole["content"][0]["text"]
    [delta] = [data for name, data in streamed if name == "message_delta"]
    assert delta["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": " three"}
    assert "Count: one two three four five" not in str(streamed)  # llama-server tells the prompt beside it


async def test_a_message_continues_what_the_assistant_has_begun(served: Served) -> None:
    begun = [{"role": "user", "content": "Count to ten"}, {"role": "assistant", "content": "Sure: one, two"}]

    answer = await served.ask(Messages(), messages=begun, max_tokens=6)

    assert "Sure" not in answer["content"][0]["text"]
    assert "three" in answer["content"][0]["text"]


async def test_a_forced_tool_is_used_whatever_the_model_would_rather_say(served: Served) -> None:
    hello = "Weather in Paris?"
    message = await served.ask(
        Messages(),
        messages=[{"role": "user", "content": hello}],
        max_tokens=80,
        tools=[{"name": "weather", "input_schema": SCHEMA}],
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
    )
    told = events(
        await served.stream(
            Responses(),
            input=hello,
            max_output_tokens=80,
            tools=[{"type": "function", "name": "weather", "parameters": SCHEMA}],
            tool_choice="required",
            parallel_tool_calls=False,
        )
    )

    [use] = message["content"]
    assert message["stop_reason"] == "tool_use"
    assert set(use["input"]) == {"city"}
    name, last = told[-1]
    assert name == "response.completed"
    [call] = last["response"]["output"]
    assert call["type"] == "function_call"
    assert set(json.loads(call["arguments"])) == {"city"}


async def test_structured_output_of_a_response_holds(served: Served) -> None:
    form = {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}

    answer = await served.ask(Responses(), input="A city.", max_output_tokens=60, text={"format": form})

    assert answer["status"] == "completed"
    assert set(json.loads(answer["output"][0]["content"][0]["text"])) == {"city"}
