"""The real llama.cpp: reasoning is separated by us alone, and what we let pass is taken."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from plain_client import ask, stream

from scibox.engines import llama
from scibox.engines.supervisor import Supervisor
from scibox.router.learning import learn
from scibox.router.replica import Replica
from scibox.router.tokenizer import Tokenizer
from scibox.upstream.address import Address
from scibox.upstream.client import Client
from scibox.wire import answers, extras
from scibox.wire import chat as wire_chat
from scibox.wire.orders import Order, Target, order

pytestmark = pytest.mark.real
TARGET = Target("small", "llama", has_tools=False)
TEXT = "<think>\nI muse\n</think>\n\nRed <think> x</think>"
# The ends of every range that `Extras` allows for llama.cpp.
EXTREMES: dict[str, list[Any]] = {
    "top_k": [-1, 0, 2**31 - 1],
    "min_p": [0, 1],
    "repetition_penalty": [0.001, 100],
    "repeat_last_n": [0, 65_536],
    "typical_p": [0, 1],
    "top_n_sigma": [-1, 100],
    "dynatemp_range": [0, 2],
    "dynatemp_exponent": [0, 10],
    "mirostat": [0, 1, 2],
    "mirostat_tau": [0, 100],
    "mirostat_eta": [0, 1],
    "xtc_probability": [0, 1],
    "xtc_threshold": [0, 1],
    "dry_multiplier": [0, 100],
    "dry_base": [1, 100],
    "dry_allowed_length": [0, 65_536],
    "dry_penalty_last_n": [0, 65_536],
    "dry_sequence_breakers": [["a"], ["x" * 40] * 32],
    "min_keep": [0, 1_000],
    "ignore_eos": [True],
    "add_generation_prompt": [True, False],
    "chat_template_kwargs": [{}, {"enable_thinking": False}],
}


@pytest.fixture
async def engine(tmp_path: Path, models_dir: Path) -> AsyncIterator[str]:
    """The address of a llama.cpp with one slot."""
    socket = tmp_path / "e.sock"
    [weights] = (models_dir / "smollm2-135m-instruct").glob("*.gguf")
    settings = llama.Settings(str(socket), str(weights), "small", slots=1, context=1024)
    supervisor = Supervisor("small", llama.command(settings), socket, report=lambda event: None)
    await supervisor.start()
    try:
        await supervisor.wait_ready()
        yield f"unix:{socket}"
    finally:
        await supervisor.stop()


def written(**fields: Any) -> Order:
    body = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, **fields}
    call = wire_chat.parse("r", json.dumps(body).encode())
    return order(call, TARGET)


async def said(engine: str, text: str, **fields: Any) -> tuple[str, str]:
    """Reasoning and content of an answer whose words a grammar fixes."""
    sent = written(**fields)
    body = {**json.loads(sent.body), "grammar": f"root ::= {json.dumps(text)}"}
    if not fields.get("stream"):
        status, answer = await ask(engine, "/v1/chat/completions", body)
        assert status == 200
        read = answers.whole(json.dumps(answer).encode(), sent.reading).data
        message = json.loads(read)["choices"][0]["message"]
        return message.get("reasoning_content", ""), message["content"]
    pieces, _ = await stream(engine, "/v1/chat/completions", body)
    chunks = answers.Stream(sent.reading).feed(b"".join(pieces))
    deltas = [json.loads(chunk.data[6:])["choices"][0]["delta"] for chunk in chunks if b"delta" in chunk.data]
    return (
        "".join(delta.get("reasoning_content") or "" for delta in deltas),
        "".join(delta.get("content") or "" for delta in deltas),
    )


@pytest.mark.parametrize("more", [{}, {"stream": True}])
async def test_reasoning_is_separated(engine: str, more: dict[str, Any]) -> None:
    assert await said(engine, TEXT, **more) == ("I muse", "Red <think> x</think>")
    assert await said(engine, "<think>\n\n</think>\n\nRed", **more) == ("", "Red")
    for most in range(2, 9):
        assert (await said(engine, TEXT, max_tokens=most, **more))[1] == ""


async def test_the_template_is_read(engine: str) -> None:
    replica = Replica(
        Address.parse(engine), "small", is_local=True, counts=True, dialect="llama", thinking=None
    )
    call = wire_chat.parse("r", b'{"model":"small","messages":[{"role":"user","content":"hi"}]}')
    client = Client(1.0)

    target = await learn(client, Tokenizer(client), call, replica)
    client.close()

    assert target.thinking == "auto"
    assert replica.opens == {b"null": False}


async def test_the_ends_of_every_range_are_taken(engine: str) -> None:
    allowed = extras.UNDERSTOOD["llama"] - extras.STRUCTURES - {"repeat_penalty", "continue_final_message"}
    assert allowed == EXTREMES.keys()
    refused = []
    for name, values in EXTREMES.items():
        for value in values:
            sent = json.loads(written(max_tokens=1, **{name: value}).body)
            status, answer = await ask(engine, "/v1/chat/completions", sent)
            if status != 200:
                refused.append((name, value, answer))

    assert refused == []
