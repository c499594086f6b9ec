"""Slow clients: closed in time, told why where that is possible, and nobody else waits for them."""

import asyncio
import os
import time

import pytest
from http_raw import CHUNKED, GET, GOOD, POST, hear, say

from rig import CHAT, rig
from scibox.engines.fake_script import Script
from scibox.http.protocol import Patience

HASTY = Patience(header_s=0.3, body_s=0.3, keep_alive_s=0.3)
MANY = 2_000 if os.environ.get("SCIBOX_TEST_LONG") == "1" else 300
SWEEP_S = 2.5  # within this a sweep has come by: one a second, on a busy machine


@pytest.mark.parametrize("piece", [b"G", GET[:20], GET[:-2], POST[:-1]])
async def test_headers_that_do_not_come_to_an_end_are_answered_with_408(piece: bytes) -> None:
    async with rig(patience=HASTY) as r:
        heard = await say(r.port, piece, silence_s=SWEEP_S)

    assert heard.statuses == [408]
    assert b'"request_timeout"' in heard.data
    assert heard.is_closed


async def test_a_drop_now_and_then_does_not_help() -> None:
    async with rig(patience=HASTY) as r:
        reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
        heard = asyncio.create_task(hear(reader, 5))
        began_at = time.monotonic()
        for byte in GET * 10:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)
            if heard.done() or time.monotonic() > began_at + 4:
                break
        result = await heard
        writer.close()

    assert result.statuses == [408]
    assert result.is_closed


@pytest.mark.parametrize(
    "body",
    [
        b"content-length: 1000\r\n\r\n",
        b"content-length: 1000\r\n\r\n" + GOOD[:10],
        b"transfer-encoding: chunked\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n5\r\nhel",
        b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
async def test_a_body_that_stalls_is_answered_with_408_and_the_call_is_over(body: bytes) -> None:
    async with rig(patience=HASTY) as r:
        heard = await say(r.port, POST + body, silence_s=SWEEP_S)

        assert heard.statuses == [408]
        assert heard.is_closed
        assert not r.engine.requests
        assert not [event for event in r.events if "failed" in str(event)]


async def test_a_body_in_drops_is_a_stalled_one() -> None:
    async with rig(patience=HASTY) as r:
        reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
        heard = asyncio.create_task(hear(reader, 5))
        writer.write(POST + b"content-length: 100000\r\n\r\n")
        began_at = time.monotonic()
        while not heard.done() and time.monotonic() < began_at + 4:
            writer.write(b" ")
            await asyncio.sleep(0.05)
        result = await heard
        writer.close()

    assert result.statuses == [408]


async def test_a_body_that_is_slow_but_comes_is_read() -> None:
    patience = Patience(header_s=0.3, body_s=1.0, keep_alive_s=0.3)
    body = b" " * 30_000 + GOOD
    async with rig(patience=patience) as r:
        reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
        writer.write(POST + b"content-length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 1_000):
            writer.write(body[at : at + 1_000])
            await asyncio.sleep(0.1)
        heard = await hear(reader, 1)
        writer.close()

    assert heard.statuses == [200]


@pytest.mark.parametrize("sent", [b"", GET, GET + b"\r\n", b"\r\n"])
async def test_an_idle_connection_is_closed_without_a_word(sent: bytes) -> None:
    async with rig(patience=HASTY) as r:
        heard = await say(r.port, sent, silence_s=SWEEP_S)

    assert heard.statuses == ([200] if GET in sent else [])
    assert heard.is_closed


@pytest.mark.parametrize("behind", [b"", b"POST /v1/embed", POST + b"content-length: 100\r\n\r\n{"])
async def test_a_client_that_waits_for_its_answer_is_not_slow(behind: bytes) -> None:
    """Not even one that has begun its next request meanwhile."""
    async with rig(patience=HASTY) as r:
        r.engine.script = Script(first_chunk_delay_s=2.5)
        body = b'{"model":"chatty","messages":[{"role":"user","content":"hi"}]}'
        request = POST.replace(b"embeddings", b"chat/completions")
        heard = await say(
            r.port, request + b"content-length: %d\r\n\r\n" % len(body) + body + behind, silence_s=4
        )

    assert heard.statuses[0] == 200
    assert b"chat.completion" in heard.data


async def test_a_client_that_was_refused_cannot_hold_the_connection() -> None:
    """It neither reads nor closes; nobody is told anything more."""
    async with rig(patience=HASTY) as r:
        _, writer = await asyncio.open_connection("127.0.0.1", r.port)
        writer.write(b"nonsense\r\n\r\n")
        held = CHUNKED.replace(b"authorization", b"x-other")  # 401 while its body goes on
        _, other = await asyncio.open_connection("127.0.0.1", r.port)
        other.write(held)
        async with asyncio.timeout(8):
            while not r.connections:  # or there would be nothing to get rid of
                await asyncio.sleep(0.001)
            while r.connections:
                await asyncio.sleep(0.05)
        assert not r.ended
        writer.close()
        other.close()


async def test_many_slow_clients_do_not_disturb_others() -> None:
    patience = Patience(header_s=1.0, body_s=1.0)
    async with rig(patience=patience) as r:
        tasks = [
            asyncio.create_task(
                say(r.port, GET[:30] if index % 2 else POST + b"content-length: 9999\r\n\r\n{", silence_s=20)
            )
            for index in range(MANY)
        ]
        took = []
        while not all(task.done() for task in tasks):
            began_at = time.monotonic()
            answer = await r.client.post("/v1/chat/completions", json=CHAT)
            took.append(time.monotonic() - began_at)
            assert answer.status_code == 200
        heard = [task.result() for task in tasks]

    assert {tuple(one.statuses) for one in heard} == {(408,)}
    assert all(one.is_closed for one in heard)
    assert sorted(took)[len(took) // 2] < 1.0
