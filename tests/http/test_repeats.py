"""PROMISES R6: a call that its client repeats under one Idempotency-Key is made once."""

import asyncio
import time
from dataclasses import replace

import httpx
import pytest

from rig import CHAT, STRANGER, Rig, rig
from scibox.core.types import Ending
from scibox.engines.fake_script import Script
from scibox.gate.repeats import Answer, LocalRepeats
from scibox.http.once import Made, Name, Once

SLOW = Script(first_chunk_delay_s=0.3)
WORD = {"idempotency-key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}


async def ask(
    r: Rig, body: object = CHAT, headers: dict[str, str] = WORD, path: str = "/v1/chat/completions"
):
    return await r.client.post(path, json=body, headers=headers)


def made(r: Rig) -> int:
    return len([sent for sent in r.engine.requests if sent.path == "/v1/chat/completions"])


async def until_made(r: Rig, count: int) -> None:
    async with asyncio.timeout(5):
        while made(r) < count:
            await asyncio.sleep(0.005)


async def test_a_repeat_after_the_first_gets_its_answer() -> None:
    async with rig() as r:
        first, again = await ask(r), await ask(r)

    assert first.status_code == again.status_code == 200
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert made(r) == len(r.ended) == 1


async def test_repeats_during_the_first_wait_for_it() -> None:
    async with rig() as r:
        r.engine.script = SLOW
        first = asyncio.create_task(ask(r))
        await until_made(r, 1)
        repeats = [asyncio.create_task(ask(r)) for _ in range(5)]
        await asyncio.sleep(0.05)
        assert r.gate.in_flight == 1  # no ticket for who waits
        answers = await asyncio.gather(first, *repeats)

    assert {answer.content for answer in answers} == {answers[0].content}
    assert [a.headers.get("idempotent-replayed") for a in answers] == [None, *["true"] * 5]
    assert made(r) == len(r.ended) == 1


@pytest.mark.parametrize("during", [True, False])
async def test_another_body_is_refused(during: bool) -> None:
    async with rig() as r:
        r.engine.script = SLOW
        first = asyncio.create_task(ask(r))
        await (until_made(r, 1) if during else first)
        other = await ask(r, {**CHAT, "max_tokens": 7})
        await first

    assert other.status_code == 422
    assert other.json()["error"]["code"] == "idempotency_key_reused"
    assert other.json()["error"]["param"] == "Idempotency-Key"
    assert made(r) == 1


async def test_the_same_word_of_another_key_or_endpoint_or_another_word_is_another_call() -> None:
    async with rig() as r:
        answers = [
            await ask(r),
            await ask(r, headers={**WORD, "authorization": f"Bearer {STRANGER}"}),
            await ask(r, headers={"idempotency-key": "another"}),
            await ask(r, {"model": "chatty", "prompt": "go on"}, path="/v1/completions"),
        ]

    assert not any("idempotent-replayed" in answer.headers for answer in answers)
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len(r.ended) == 4


async def test_a_waiting_repeat_gets_the_answer_of_a_first_whose_client_left() -> None:
    async with rig() as r:
        r.engine.script = SLOW
        first = asyncio.create_task(ask(r))
        await until_made(r, 1)
        repeat = asyncio.create_task(ask(r))
        await asyncio.sleep(0.05)
        first.cancel()
        answer = await repeat

    assert answer.status_code == 200
    assert made(r) == 1
    assert [ended.outcome for ended in r.ended] == [Ending.FINISHED]


async def test_a_client_that_left_and_comes_again_gets_the_answer_of_the_same_call() -> None:
    async with rig() as r:
        r.engine.script = SLOW
        with pytest.raises(httpx.ReadTimeout):
            await r.client.post("/v1/chat/completions", json=CHAT, headers=WORD, timeout=0.1)
        answer = await ask(r)

    assert answer.headers["idempotent-replayed"] == "true"
    assert made(r) == 1


async def test_a_call_whose_clients_have_all_left_is_cancelled() -> None:
    once = Once(LocalRepeats(60.0, 2**20, time.monotonic), asyncio.Event(), linger_s=0.05)
    cancelled = asyncio.Event()

    async def stall() -> Made:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
        raise AssertionError("nobody wants it any more")

    async def quick() -> Made:
        return Made(Answer(200, b"quick"), is_kept=True)

    name = Name(b"name", b"digest")
    clients = [asyncio.create_task(once.make(name, stall)) for _ in range(3)]
    for client in clients:
        await asyncio.sleep(0.1)
        assert not cancelled.is_set()
        client.cancel()
    await asyncio.wait_for(cancelled.wait(), 5)

    assert (await once.make(name, quick)).answer == Answer(200, b"quick")  # nothing was left behind


@pytest.mark.parametrize("fault", [Script(status=500), Script(fault="reset"), Script(fault="garbage")])
async def test_errors_that_may_heal_are_not_remembered(fault: Script) -> None:
    async with rig() as r:
        r.engine.script = fault
        failed = await ask(r)
        r.engine.script = Script()
        again = await ask(r)

    assert failed.status_code >= 500
    assert again.status_code == 200
    assert "idempotent-replayed" not in again.headers


async def test_errors_of_input_are_remembered() -> None:
    body = {**CHAT, "messages": [{"role": "user", "content": "word " * 9_000}]}
    async with rig() as r:
        first, again = await ask(r, body), await ask(r, body)

    assert first.status_code == again.status_code == 400
    assert first.json()["error"]["code"] == "context_length_exceeded"
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert len(r.ended) == 1


async def test_streams_are_made_each_time() -> None:
    async with rig() as r:
        answers = [await ask(r, {**CHAT, "stream": True}) for _ in range(2)]
        whole = await ask(r)

    assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
    assert "idempotent-replayed" not in whole.headers
    assert len(r.ended) == 3


@pytest.mark.parametrize("word", ["", "x" * 256, "не то", "a\tb"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_malformed_word_is_refused(word: str, stream: bool) -> None:
    async with rig() as r:
        headers = {b"idempotency-key": word.encode()}
        answer = await r.client.post("/v1/chat/completions", json={**CHAT, "stream": stream}, headers=headers)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_idempotency_key"
    assert made(r) == 0


async def test_two_different_words_are_refused() -> None:
    async with rig() as r:
        headers = [("idempotency-key", "a"), ("idempotency-key", "b")]
        answer = await r.client.post("/v1/chat/completions", json=CHAT, headers=headers)

    assert answer.status_code == 400


async def test_the_end_of_the_service_ends_first_and_repeat() -> None:
    async with rig() as r:
        r.engine.script = Script(fault="stall")
        clients = [asyncio.create_task(ask(r)) for _ in range(2)]
        await until_made(r, 1)
        await asyncio.sleep(0.05)
        r.door.ending.set()
        answers = await asyncio.gather(*clients)
        await r.until_idle()

    assert [answer.status_code for answer in answers] == [503, 503]


async def test_what_is_remembered_is_bounded() -> None:
    async with rig() as r:
        r.engine.script = replace(Script(), chunks=("x" * 300_000,))
        first = await ask(r)
        for number in range(4):
            await ask(r, headers={"idempotency-key": f"more {number}"})
        again = await ask(r)

    assert first.status_code == again.status_code == 200
    assert "idempotent-replayed" not in again.headers  # the rig keeps a megabyte
