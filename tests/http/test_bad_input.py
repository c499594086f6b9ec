import asyncio
import json

import pytest

from rig import CHAT, SECRET, rig

EMBED = {"model": "vectors", "input": "text"}
HEAD = (
    f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\n"
    "content-type: application/json\r\n"
)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", "body"),
        (b"[]", "body"),
        (b'"hello"', "body"),
        (b"\xff\xfe\x00", "body"),
        (b'{"model":"chatty","messages":[{"role":"user","content":"\xc3\x28"}]}', "body"),
        (rb'{"model":"chatty","messages":[{"role":"user","content":"\ud800"}]}', "body"),
        (b'{"model":"chatty","messages":[]}', "messages"),
        (b'{"model":"chatty","messages":[{"role":"alien","content":"x"}]}', "messages[0].role"),
        (b'{"model":"chatty","messages":[{"role":"user","content":7}]}', "messages[0].content"),
        (b'{"model":5,"messages":[{"role":"user","content":"x"}]}', "model"),
        (json.dumps({**CHAT, "max_token": 5}).encode(), "max_token"),
        (json.dumps({**CHAT, "temperature": 99}).encode(), "temperature"),
        (json.dumps({**CHAT, "url": "http://127.0.0.1:1"}).encode(), "url"),
        (b'{"model":"chatty","messages":' + b"[" * 100_000, "messages[0]"),
    ],
)
async def test_bad_input_is_refused_and_nothing_reaches_the_engine(body: bytes, param: str | None) -> None:
    async with rig() as r:
        answer = await r.client.post("/v1/chat/completions", content=body)
        touched = list(r.engine.requests)
        good = await r.client.post("/v1/chat/completions", json=CHAT)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"].endswith((".", "?"))
    assert touched == []
    assert good.status_code == 200


async def test_a_body_over_the_limit_is_refused() -> None:
    async with rig() as r:
        body = json.dumps({**CHAT, "user": "x" * 20_000_000}).encode()
        answer = await r.client.post("/v1/chat/completions", content=body)
        good = await r.client.post("/v1/chat/completions", json=CHAT)

    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    assert good.status_code == 200


async def test_a_body_without_a_length_is_bounded_too() -> None:
    async with rig() as r:
        reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
        writer.write(HEAD.encode() + b"transfer-encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        with_answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        for _ in range(64):
            if with_answer.done():
                break
            writer.write(piece)
            await asyncio.sleep(0)
        head = await asyncio.wait_for(with_answer, 5)
        writer.close()

    assert b" 413 " in head


async def test_a_client_that_leaves_while_sending_leaves_nothing_behind() -> None:
    async with rig() as r:
        _, writer = await asyncio.open_connection("127.0.0.1", r.port)
        writer.write(HEAD.encode() + b"content-length: 1000\r\n\r\n{")
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.1)

        assert r.gate.in_flight == 0
        assert (await r.client.get("/health")).status_code == 200
        assert not [event for event in r.events if "failed" in str(event)]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", " "]}, "input[1]"),
        ({"input": [[1, 2], [100_257]]}, "input[1]"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"input": "x" * 300_000}, "input"),
        ({"input": ["x", "x" * 300_000]}, "input[1]"),
        ({"dimensions": 5}, "dimensions"),
    ],
)
async def test_bad_texts_are_named(changes: dict[str, object], param: str) -> None:
    async with rig() as r:
        answer = await r.client.post("/v1/embeddings", json={**EMBED, **changes})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert not r.engine.requests
