from __future__ import annotations

import asyncio
import base64
from array import array
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from plain_client import ask, chat, events, read_head, read_pieces, send, stream

from scibox.engines.fake import FakeEngine
from scibox.engines.fake_script import Script

CHAT = "/v1/chat/completions"


@pytest.fixture(params=["unix", "tcp"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FakeEngine]:
    address = f"unix:{tmp_path}/e.sock" if request.param == "unix" else "http://127.0.0.1:0"
    async with FakeEngine(address, context=100) as fake:
        yield fake


async def until(condition: object, timeout_s: float = 1.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_answers_depend_on_the_prompt_alone(engine: FakeEngine) -> None:
    first = await ask(engine.address, CHAT, chat("one"))
    again = await ask(engine.address, CHAT, chat("one"))
    other = await ask(engine.address, CHAT, chat("two"))

    texts = [answer["choices"][0]["message"]["content"] for _, answer in (first, again, other)]
    assert texts[0] == texts[1] != texts[2]
    assert first[1]["choices"][0]["finish_reason"] == "stop"
    assert engine.finished == 3
    assert engine.requests[0].json["messages"][0]["content"] == "one"


async def test_max_tokens_cuts_with_finish_reason_length(engine: FakeEngine) -> None:
    _, answer = await ask(engine.address, CHAT, chat(max_tokens=3))

    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3
    assert engine.answers[0].usage.completion_tokens == 3


async def test_streams_what_it_answers_and_usage_only_when_asked(engine: FakeEngine) -> None:
    _, whole = await ask(engine.address, CHAT, chat())
    plain, ended = await stream(engine.address, CHAT, chat(stream=True))
    with_usage, _ = await stream(
        engine.address, CHAT, chat(stream=True, stream_options={"include_usage": True})
    )

    assert ended
    chunks = events(plain)
    assert chunks.pop() == "[DONE]"
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    last = events(with_usage)[-2]
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]


async def test_a_prompt_over_the_context_is_refused(engine: FakeEngine) -> None:
    status, answer = await ask(engine.address, CHAT, chat("word " * 100))

    assert status == 400
    assert answer["error"]["type"] == "exceed_context_size_error"


@pytest.mark.parametrize("split_bytes", [1, 7])
async def test_split_streams_carry_the_same_bytes(engine: FakeEngine, split_bytes: int) -> None:
    script = Script(chunks=("при", "вет"), split_bytes=split_bytes)
    engine.next_scripts.append(script)

    pieces, ended = await stream(engine.address, CHAT, chat(stream=True))

    assert ended
    assert max(map(len, pieces)) == split_bytes
    texts = [e["choices"][0]["delta"].get("content") for e in events(pieces)[:-1]]
    assert texts == [None, "при", "вет", None]


async def test_faults_strike_after_the_scripted_chunk(engine: FakeEngine) -> None:
    for fault, ends in (("close", False), ("end", True), ("error", True), ("garbage", True)):
        engine.script = Script(fault=fault, after_chunks=2)
        pieces, ended = await stream(engine.address, CHAT, chat(stream=True))
        body = b"".join(pieces)
        assert ended == ends, fault
        assert b"[DONE]" not in body
        assert body.count(b'"content":"') == 2
        assert (b'"error"' in body) == (fault == "error")
    assert engine.broken == 4
    assert engine.finished == engine.abandoned == engine.in_flight == 0


async def test_reset_is_rst_on_tcp_and_a_bare_close_on_a_unix_socket(engine: FakeEngine) -> None:
    engine.script = Script(fault="reset", after_chunks=1, chunk_delay_s=0.05)
    reader, writer = await send(engine.address, CHAT, chat(stream=True))
    _, headers = await read_head(reader)

    if engine.address.startswith("unix:"):
        assert (await read_pieces(reader, headers))[1] is False
    else:
        with pytest.raises(ConnectionResetError):
            await read_pieces(reader, headers)
    writer.close()


async def test_a_fault_before_the_first_chunk_shows_no_headers(engine: FakeEngine) -> None:
    engine.script = Script(fault="close")
    for body in (chat(stream=True), chat()):
        reader, writer = await send(engine.address, CHAT, body)
        assert await reader.read() == b""
        writer.close()


async def test_a_broken_json_answer_is_shorter_than_its_length(engine: FakeEngine) -> None:
    engine.script = Script(fault="close", after_chunks=1)
    reader, writer = await send(engine.address, CHAT, chat())
    _, headers = await read_head(reader)

    _, whole = await read_pieces(reader, headers)

    assert not whole
    writer.close()


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_while_it_waits_is_seen_at_once(
    engine: FakeEngine, streamed: bool
) -> None:
    engine.script = Script(first_chunk_delay_s=60)
    _, writer = await send(engine.address, CHAT, chat(stream=streamed))
    await until(lambda: engine.in_flight == 1)

    writer.close()

    await until(lambda: engine.abandoned == 1)
    assert engine.in_flight == 0


async def test_a_stall_lasts_until_the_client_leaves(engine: FakeEngine) -> None:
    engine.script = Script(fault="stall", after_chunks=1)
    reader, writer = await send(engine.address, CHAT, chat(stream=True))
    await reader.readuntil(b'"content":"')
    assert engine.in_flight == 1

    writer.close()

    await until(lambda: engine.abandoned == 1)


async def test_scripted_errors_carry_status_headers_and_body(engine: FakeEngine) -> None:
    engine.script = Script(status=429, body=b'{"error":{}}', headers=(("Retry-After", "7"),))
    reader, writer = await send(engine.address, CHAT, chat())
    status, headers = await read_head(reader)

    assert (status, headers["retry-after"]) == (429, "7")
    assert (await read_pieces(reader, headers))[0] == [b'{"error":{}}']
    writer.close()


async def test_html_with_200_is_not_json(engine: FakeEngine) -> None:
    engine.script = Script(html_with_200=True)
    reader, writer = await send(engine.address, CHAT, chat())
    status, headers = await read_head(reader)

    assert (status, headers["content-type"]) == (200, "text/html")
    writer.close()


async def test_refuse_drops_new_connections(engine: FakeEngine) -> None:
    engine.script = Script(refuse=True)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await ask(engine.address, "/health")

    engine.script = Script()
    assert (await ask(engine.address, "/health"))[0] == 200


async def test_base64_and_float_vectors_are_the_same(engine: FakeEngine) -> None:
    body = {"input": ["кот", "cat"]}
    _, floats = await ask(engine.address, "/v1/embeddings", body)
    _, coded = await ask(engine.address, "/v1/embeddings", {**body, "encoding_format": "base64"})

    for plain, packed in zip(floats["data"], coded["data"], strict=True):
        assert array("f", base64.b64decode(packed["embedding"])).tolist() == plain["embedding"]
    assert floats["data"][0]["embedding"] != floats["data"][1]["embedding"]
    assert sum(x * x for x in floats["data"][0]["embedding"]) == pytest.approx(1.0, abs=1e-5)


async def test_the_small_routes(engine: FakeEngine) -> None:
    assert (await ask(engine.address, "/v1/models"))[1]["data"][0]["meta"] == {"n_ctx": 100}
    assert len((await ask(engine.address, "/tokenize", {"content": "a b a"}))[1]["tokens"]) == 3
    assert "user: hello" in (await ask(engine.address, "/apply-template", chat()))[1]["prompt"]
    assert (await ask(engine.address, "/nowhere"))[0] == 404
    assert (await ask(engine.address, CHAT, {"messages": 7}))[0] == 400
    assert engine.finished == 0


async def test_starts_again_after_a_stop(engine: FakeEngine) -> None:
    await engine.stop()
    with pytest.raises(OSError):
        await ask(engine.address, "/health")

    await engine.start()
    assert (await ask(engine.address, "/health"))[0] == 200
