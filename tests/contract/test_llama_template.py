"""Tools on a llama.cpp whose chat template shows them, as Qwen's and Hermes' do; there are no such weights here."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import llama_with_template
import pytest
import pytest_asyncio
from served import Served, calls_of, finish_of

from rig import socket_folder
from scibox.router.replica import Replica
from scibox.router.router import Deadlines, Router
from scibox.upstream.address import Address
from scibox.upstream.client import Client

CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 10}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

TEMPLATE = r"""
{%- if tools %}{{ '<|im_start|>system\nYou can call these functions:' }}
{%- for tool in tools %}{{ '\n' + (tool.function | tojson) }}{% endfor %}
{{- '\nCall in this form:\n<tool_call>\n{"name": <name>, "arguments": <arguments>}\n</tool_call><|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == "tool" %}
{{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
{%- if call.function.arguments is string %}{{ call.function.arguments }}
{%- else %}{{ call.function.arguments | tojson }}{% endif %}
{{- '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(models_dir: Path) -> AsyncIterator[Served]:
    [weights] = sorted((models_dir / "smollm2-135m-instruct").glob("*.gguf"))
    with socket_folder() as folder:
        (folder / "template").write_text(TEMPLATE, "utf-8")
        socket = folder / "e.sock"
        script = [
            sys.executable,
            llama_with_template.__file__,
            str(socket),
            str(weights),
            str(folder / "template"),
        ]
        child = await asyncio.create_subprocess_exec(*script, stdin=asyncio.subprocess.PIPE)
        client = Client(1.0)
        try:
            async with asyncio.timeout(60):
                while not socket.exists():
                    assert child.returncode is None
                    await asyncio.sleep(0.1)
            replica = Replica(
                Address.parse(f"unix:{socket}"), "small", context=1024, is_local=True, dialect="llama"
            )
            yield Served(Router(client, Deadlines(60, 60, 120)), replica)
        finally:
            client.close()
            assert child.stdin is not None
            child.stdin.close()
            await child.wait()


def by_example(question: str) -> list[dict[str, Any]]:
    """A dialogue in which the assistant has always called: the model is a very small one."""
    messages: list[dict[str, Any]] = []
    for index, city in enumerate(("Oslo", "Rome", "Bern")):
        called = {"name": "get_weather", "arguments": json.dumps({"city": city})}
        messages += [
            {"role": "user", "content": city},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": f"c{index}", "type": "function", "function": called}],
            },
            {"role": "tool", "tool_call_id": f"c{index}", "content": "ok"},
        ]
    return [*messages, {"role": "user", "content": question}]


async def test_the_template_is_asked_when_a_call_first_speaks_of_tools(served: Served) -> None:
    await served.ask(max_tokens=1)
    assert served.replica.has_tools is None

    await served.ask(tools=[WEATHER], max_tokens=1)

    assert (served.replica.has_tools, served.replica.is_hermes) == (True, True)


@pytest.mark.parametrize("is_hermes", [True, False])
async def test_a_call_that_the_model_decides_on(served: Served, is_hermes: bool) -> None:
    served.replica.has_tools, served.replica.is_hermes = True, is_hermes  # False: read by the engine itself
    fields = {"messages": by_example("Paris"), "tools": [WEATHER], "max_tokens": 60}
    fields["parallel_tool_calls"] = False
    [choice] = (await served.ask(**fields))["choices"]
    chunks = await served.stream(**fields)

    assert choice["finish_reason"] == finish_of(chunks) == "tool_calls"
    [call] = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"])["city"] == "Paris"
    assert not choice["message"]["content"]
    [streamed] = calls_of(chunks)
    assert streamed["arguments"] == call["function"]["arguments"]


@pytest.mark.parametrize("is_hermes", [True, False])
async def test_a_forced_call_is_forced(served: Served, is_hermes: bool) -> None:
    served.replica.has_tools, served.replica.is_hermes = True, is_hermes
    [choice] = (await served.ask(tools=[WEATHER], tool_choice="required", parallel_tool_calls=False))[
        "choices"
    ]

    assert choice["finish_reason"] == "tool_calls"
    [call] = choice["message"]["tool_calls"]
    assert set(json.loads(call["function"]["arguments"])) == {"city"}


@pytest.mark.parametrize("is_hermes", [True, False])
async def test_words_where_the_model_decides_on_words(served: Served, is_hermes: bool) -> None:
    served.replica.has_tools, served.replica.is_hermes = True, is_hermes
    messages = [{"role": "user", "content": "Say: I am fine."}, {"role": "assistant", "content": "I am"}]
    [choice] = (await served.ask(messages=messages, tools=[WEATHER], max_tokens=4))["choices"]

    assert choice["message"]["content"]
    assert not choice["message"].get("tool_calls")
