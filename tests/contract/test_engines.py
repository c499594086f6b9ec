"""One suite for every engine: what the gateway relies on. The fake must be no better than the real ones."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from array import array
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from plain_client import ask, chat, events, read_head, send, stream

from scibox.core.errors import InvalidRequest
from scibox.core.types import ModelCard
from scibox.engines import llama
from scibox.engines.embedder import settings as embedder
from scibox.engines.fake import FakeEngine
from scibox.engines.fake_script import Script
from scibox.engines.supervisor import Supervisor
from scibox.router.replica import Deployment, Replica, Route
from scibox.router.tokenizer import Tokenizer
from scibox.upstream.address import Address
from scibox.upstream.client import Client
from scibox.wire import chat as wire_chat
from scibox.wire.tokenize import Wanted

CHAT = "/v1/chat/completions"
CONTEXT = 1024


@dataclass(frozen=True)
class Engine:
    address: str
    name: str
    slow_down: Callable[[], None]
    embeds: bool


async def fake_engine(folder: Path) -> AsyncIterator[Engine]:
    engine = FakeEngine(f"unix:{folder}/e.sock", name="small", context=CONTEXT)

    def slow_down() -> None:
        engine.script = Script(chunks=tuple("word " for _ in range(500)), chunk_delay_s=0.01)

    async with engine:
        yield Engine(engine.address, engine.name, slow_down, embeds=True)


async def llama_engine(folder: Path, *, embedding: bool = False) -> AsyncIterator[Engine]:
    socket = folder / "e.sock"
    # One slot: a call that keeps it after its client has left blocks the next one, and is seen.
    settings = llama.Settings(
        str(socket),
        str(weights()),
        "small",
        slots=1,
        context=CONTEXT,
        embedding=embedding,
        pooling="mean" if embedding else None,
    )
    supervisor = Supervisor("small", llama.command(settings), socket, report=lambda event: None)
    await supervisor.start()
    try:
        await supervisor.wait_ready()
        yield Engine(f"unix:{socket}", "small", lambda: None, embeds=embedding)
    finally:
        await supervisor.stop()


async def embedder_engine(folder: Path) -> AsyncIterator[Engine]:
    socket = folder / "e.sock"
    settings = embedder.Settings(
        str(socket), str(weights("multilingual-e5-small/model.onnx").parent), "small"
    )
    supervisor = Supervisor("small", embedder.command(settings), socket, report=lambda event: None)
    await supervisor.start()
    try:
        await supervisor.wait_ready()
        yield Engine(f"unix:{socket}", "small", lambda: None, embeds=True)
    finally:
        await supervisor.stop()


def weights(pattern: str = "smollm2-135m-instruct/*.gguf") -> Path:
    folder = os.environ.get("SCIBOX_TEST_MODELS")
    if not folder:
        pytest.skip("SCIBOX_TEST_MODELS names no folder of models")
    found = sorted(Path(folder).glob(pattern))
    if not found:
        pytest.skip(f"no {pattern} in {folder}")
    return found[0]


@pytest.fixture(params=["fake", pytest.param("llama", marks=pytest.mark.real)])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    started = fake_engine(tmp_path) if request.param == "fake" else llama_engine(tmp_path)
    async for engine in started:
        yield engine


async def text_of(engine: Engine, **more: Any) -> dict[str, Any]:
    status, answer = await ask(engine.address, CHAT, chat(**{"max_tokens": 8, "temperature": 0, **more}))
    assert status == 200
    decoded: dict[str, Any] = answer
    return decoded


async def test_health_models_and_context(engine: Engine) -> None:
    assert (await ask(engine.address, "/health"))[0] == 200
    status, models = await ask(engine.address, "/v1/models")

    assert status == 200
    assert [model["id"] for model in models["data"]] == [engine.name]
    assert models["data"][0]["meta"]["n_ctx"] == CONTEXT


async def test_a_chat_answer_names_its_model_and_counts_its_tokens(engine: Engine) -> None:
    answer = await text_of(engine)

    assert answer["object"] == "chat.completion"
    assert answer["model"] == engine.name
    choice = answer["choices"][0]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert choice["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage["completion_tokens"] == 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + 8


async def test_greedy_answers_are_the_same_streamed_or_not(engine: Engine) -> None:
    answer = await text_of(engine)
    body = chat(max_tokens=8, temperature=0, stream=True, stream_options={"include_usage": True})
    pieces, ended = await stream(engine.address, CHAT, body)

    assert ended
    chunks = events(pieces)
    assert chunks.pop() == "[DONE]"
    usage_chunk = chunks.pop()
    assert usage_chunk["choices"] == []
    assert {
        key: usage_chunk["usage"][key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")
    } == {key: answer["usage"][key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")}
    deltas = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert "".join(deltas) == answer["choices"][0]["message"]["content"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1])


async def test_events_come_whole_and_without_usage_unless_asked(engine: Engine) -> None:
    pieces, ended = await stream(engine.address, CHAT, chat(max_tokens=8, stream=True))

    assert ended
    assert all(piece.startswith(b"data: ") and piece.endswith(b"\n\n") for piece in pieces)
    assert b'"usage":{' not in b"".join(pieces)
    assert pieces[-1].endswith(b"data: [DONE]\n\n")


async def test_a_prompt_over_the_context_is_refused_at_once(engine: Engine) -> None:
    for streamed in (False, True):
        body = chat("word " * (CONTEXT + 1), max_tokens=5, stream=streamed)
        status, answer = await ask(engine.address, CHAT, body)
        assert status == 400
        assert answer["error"]["type"] == "exceed_context_size_error"
        assert answer["error"]["n_ctx"] == CONTEXT


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("after", ["at once", "the first delta"])
async def test_a_client_that_leaves_frees_the_slot_within_a_second(
    engine: Engine, streamed: bool, after: str
) -> None:
    if after == "the first delta" and not streamed:
        after = "a while"
    endless = chat("Write a very long story.", max_tokens=900, stream=streamed, ignore_eos=True)
    engine.slow_down()
    reader, writer = await send(engine.address, CHAT, endless)
    if after == "the first delta":
        await read_head(reader)
        await reader.readuntil(b'"content":"')
    else:
        await asyncio.sleep(0.05 if after == "at once" else 0.5)

    writer.close()
    began = time.monotonic()
    await text_of(engine, max_tokens=1)

    # A second for the slot, and what one completion token takes on a machine that others use too.
    assert time.monotonic() - began < 3.0


async def test_tokenize_and_template(engine: Engine) -> None:
    _, tokens = await ask(engine.address, "/tokenize", {"content": "one two three"})
    _, template = await ask(engine.address, "/apply-template", chat("one two three"))

    assert len(tokens["tokens"]) >= 3
    assert all(isinstance(token, int) for token in tokens["tokens"])
    assert "one two three" in template["prompt"]


async def test_a_counted_prompt_is_what_the_engine_then_reports(engine: Engine) -> None:
    body = chat("Hello, how are you today?", model="small", max_tokens=1)
    call = wire_chat.parse("req", json.dumps(body).encode())
    client = Client(2.0)
    try:
        count = await Tokenizer(client).count(call, route_to(engine))
    finally:
        client.close()
    _, said = await ask(engine.address, CHAT, body)

    assert count == said["usage"]["prompt_tokens"]


async def test_bad_bodies_are_4xx_and_the_next_call_works(engine: Engine) -> None:
    assert (await ask(engine.address, CHAT, {"messages": "x"}))[0] in (400, 500)
    assert (await ask(engine.address, CHAT, {}))[0] == 400
    await text_of(engine, max_tokens=1)


EMBEDDING = {
    "fake": fake_engine,
    "llama": partial(llama_engine, embedding=True),
    "embedder": embedder_engine,
}


every_engine = pytest.mark.parametrize(
    "kind", ["fake", *(pytest.param(kind, marks=pytest.mark.real) for kind in ("llama", "embedder"))]
)


@every_engine
async def test_texts_become_tokens_and_text_again(kind: str, tmp_path: Path) -> None:
    wanted = Wanted("small", "one two", None, adds_special=False, wants_texts=True)
    client = Client(2.0)
    tokenizer = Tokenizer(client)
    try:
        async for engine in EMBEDDING[kind](tmp_path):
            route = route_to(engine)
            told = await tokenizer.tokenize(wanted, route)
            text = await tokenizer.detokenize(told.tokens, route)
            nothing = await tokenizer.tokenize(replace(wanted, prompt=""), route)

            assert told.count == len(told.tokens) == len(told.token_strs or []) >= 2
            assert "two" in (told.token_strs or [])[-1]
            assert kind == "fake" or text == "one two"  # the fake keeps no vocabulary
            assert (nothing.count, nothing.tokens) == (0, [])
            if kind != "fake":
                with pytest.raises(InvalidRequest) as refused:
                    await tokenizer.detokenize([0, 2**31 - 1], route)
                assert (refused.value.param or "").startswith("tokens")
    finally:
        client.close()


def route_to(engine: Engine) -> Route:
    replica = Replica(Address.parse(engine.address), engine.name, counts=True)
    return Route(ModelCard("small", "chat", "scibox", 1), (Deployment((replica,)),))


@every_engine
async def test_embeddings_are_unit_vectors_in_order_float_or_base64(kind: str, tmp_path: Path) -> None:
    async for engine in EMBEDDING[kind](tmp_path):
        assert (await ask(engine.address, "/health"))[0] == 200
        _, models = await ask(engine.address, "/v1/models")
        assert [model["id"] for model in models["data"]] == [engine.name]
        body = {"model": engine.name, "input": ["a cat", "a much longer text about dogs"]}
        status, floats = await ask(engine.address, "/v1/embeddings", body)
        _, coded = await ask(engine.address, "/v1/embeddings", {**body, "encoding_format": "base64"})

        assert status == 200
        assert floats["model"] == engine.name
        assert [item["index"] for item in floats["data"]] == [0, 1]
        assert floats["usage"]["prompt_tokens"] >= 2
        for plain, packed in zip(floats["data"], coded["data"], strict=True):
            vector = array("f", base64.b64decode(packed["embedding"]))
            assert vector.tolist() == pytest.approx(plain["embedding"], abs=1e-4)
            assert sum(x * x for x in vector) == pytest.approx(1.0, abs=1e-3)
