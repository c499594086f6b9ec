import asyncio
import json

import pytest

from rig import CHAT, rig
from scibox.core.types import Ending
from scibox.engines.fake_script import Script
from scibox.router.router import Deadlines

STREAM = {**CHAT, "stream": True}


def events(body: str) -> list[str]:
    assert body.endswith("\n\n")
    return [event.removeprefix("data: ") for event in body.split("\n\n")[:-1]]


async def test_an_answer_and_its_accounting() -> None:
    async with rig() as r:
        answer = await r.client.post("/v1/chat/completions", json=CHAT)
        await r.until_idle()

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    body = answer.json()
    assert body["choices"][0]["message"]["content"]
    assert body["model"] == "fake-model"  # the model that really served
    [ended] = r.ended
    assert ended.outcome is Ending.FINISHED
    assert ended.usage.completion_tokens == body["usage"]["completion_tokens"] > 0
    assert ended.request_id == answer.headers["x-request-id"]
    [sent] = [received for received in r.engine.requests if received.path == "/v1/chat/completions"]
    assert sent.json["model"] == "fake-model"
    assert sent.headers["authorization"] == "Bearer upstream-secret"


async def test_the_path_works_without_v1_and_the_model_by_its_alias() -> None:
    async with rig() as r:
        answer = await r.client.post("/chat/completions", json={**CHAT, "model": "gpt-test"})

    assert answer.status_code == 200


@pytest.mark.parametrize("split_bytes", [None, 1, 7])
async def test_a_stream_is_whole_events_however_it_arrives(split_bytes: int | None) -> None:
    async with rig() as r:
        r.engine.script = Script(chunks=("при", "вет", " мир"), split_bytes=split_bytes)
        answer = await r.client.post("/v1/chat/completions", json=STREAM)
        await r.until_idle()

    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events(answer.text)
    assert done == "[DONE]"
    parsed = [json.loads(chunk) for chunk in chunks]
    assert all(chunk["choices"] for chunk in parsed)
    assert not any(chunk.get("usage") for chunk in parsed)
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in parsed) == "привет мир"
    assert "\nid:" not in answer.text
    assert r.ended[0].usage.completion_tokens > 0


async def test_usage_of_a_stream_comes_when_it_is_asked_for() -> None:
    async with rig() as r:
        body = {**STREAM, "stream_options": {"include_usage": True}}
        answer = await r.client.post("/v1/chat/completions", json=body)

    *_, last, done = events(answer.text)
    assert done == "[DONE]"
    assert json.loads(last)["choices"] == []
    assert json.loads(last)["usage"]["completion_tokens"] > 0


async def test_each_event_leaves_as_it_comes() -> None:
    async with rig() as r:
        r.engine.script = Script(chunks=("a", "b", "c", "d"), chunk_delay_s=0.05)
        pieces = []
        async with r.client.stream("POST", "/v1/chat/completions", json=STREAM) as answer:
            async for piece in answer.aiter_raw():
                pieces.append(piece)

    contents = [piece for piece in pieces if b'"content":"' in piece]
    assert len(contents) >= 4
    assert all(piece.startswith(b"data: ") and piece.endswith(b"\n\n") for piece in pieces if piece)


async def test_heartbeats_while_waiting() -> None:
    async with rig(heartbeat_s=0.05) as r:
        r.engine.script = Script(chunks=("a",), first_chunk_delay_s=0.3)
        answer = await r.client.post("/v1/chat/completions", json=STREAM)

    assert answer.text.count(": heartbeat\n\n") >= 3
    assert answer.text.index(": heartbeat") < answer.text.index("data: ")
    assert answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "delay", [Script(first_chunk_delay_s=30), Script(chunks=("a",) * 100, chunk_delay_s=0.3)]
)
async def test_a_client_that_leaves_frees_the_slot(stream: bool, delay: Script) -> None:
    async with rig() as r:
        r.engine.script = delay
        call = asyncio.create_task(r.client.post("/v1/chat/completions", json={**CHAT, "stream": stream}))
        async with asyncio.timeout(5):
            while not r.engine.in_flight:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        call.cancel()

        await r.until_idle(seconds=1.0)

        assert r.engine.abandoned == 1
        assert [ended.outcome for ended in r.ended] == [Ending.CLIENT_GONE]


@pytest.mark.parametrize("fault", ["reset", "close", "end", "garbage", "error"])
@pytest.mark.parametrize("after", [1, 3])
async def test_a_broken_stream_ends_in_one_error_event(fault: str, after: int) -> None:
    async with rig() as r:
        r.engine.script = Script(chunks=("a", "b", "c", "d"), fault=fault, after_chunks=after)  # type: ignore[arg-type]
        answer = await r.client.post("/v1/chat/completions", json=STREAM)
        await r.until_idle()

    *chunks, last = events(answer.text)
    assert "[DONE]" not in answer.text
    assert sum("error" in json.loads(chunk) for chunk in [*chunks, last]) == 1
    assert set(json.loads(last)["error"]) == {"message", "type", "param", "code"}
    assert [ended.outcome for ended in r.ended] == [Ending.UPSTREAM_ERROR]


async def test_a_stalled_stream_ends_at_its_deadline() -> None:
    async with rig(deadlines=Deadlines(5.0, 0.2, 20.0)) as r:
        r.engine.script = Script(chunks=("a", "b"), fault="stall", after_chunks=1)
        answer = await r.client.post("/v1/chat/completions", json=STREAM)
        await r.until_idle()

    assert json.loads(events(answer.text)[-1])["error"]["code"] == "upstream_timeout"
    assert [ended.outcome for ended in r.ended] == [Ending.DEADLINE]


@pytest.mark.parametrize("stream", [True, False])
async def test_no_first_chunk_in_time_is_504(stream: bool) -> None:
    async with rig(deadlines=Deadlines(0.2, 5.0, 0.4)) as r:
        r.engine.script = Script(first_chunk_delay_s=30)
        answer = await r.client.post("/v1/chat/completions", json={**CHAT, "stream": stream})

    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "upstream_timeout"
    assert 1 <= int(answer.headers["retry-after"]) <= 60


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("script", "status"),
    [
        (Script(status=500), 502),
        (Script(status=401), 503),
        (Script(status=404), 503),
        (Script(html_with_200=True), 502),
        (Script(fault="reset", after_chunks=0), 502),
        (Script(fault="garbage", after_chunks=0), 502),
        (Script(status=400, body=b'{"error":{"message":"bad grammar","type":"x"}}'), 400),
    ],
)
async def test_a_failure_before_the_first_chunk_is_a_plain_error(
    stream: bool, script: Script, status: int
) -> None:
    async with rig(remote=True) as r:
        r.engine.script = script
        answer = await r.client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
        await r.until_idle()

        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        r.engine.script = Script()
        again = await r.client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
        assert again.status_code == 200


async def test_a_dead_replica_is_passed_over() -> None:
    async with rig(fallback=True) as r:
        answer = await r.client.post("/v1/chat/completions", json=CHAT)

    assert answer.status_code == 200


async def test_a_child_that_is_being_restarted_is_waited_for() -> None:
    async with rig() as r:
        await r.engine.stop()
        call = asyncio.create_task(r.client.post("/v1/chat/completions", json=CHAT))
        await asyncio.sleep(0.3)
        await r.engine.start()

        assert (await call).status_code == 200


async def test_when_the_service_ends_a_running_stream_says_so() -> None:
    async with rig() as r:
        r.engine.script = Script(chunks=("a",) * 100, chunk_delay_s=0.1)
        call = asyncio.create_task(r.client.post("/v1/chat/completions", json=STREAM))
        await asyncio.sleep(0.5)
        r.gate.drain()
        refused = await r.client.post("/v1/chat/completions", json=STREAM)
        r.door.ending.set()

        answer = await call

    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "draining"
    assert json.loads(events(answer.text)[-1])["error"]["code"] == "draining"


@pytest.mark.parametrize(("words", "asks"), [(100, 0), (9_000, 2), (900_000, 0)])
async def test_a_prompt_beyond_the_context_does_not_reach_the_engine(words: int, asks: int) -> None:
    """Short ones are not counted, long ones are counted without a slot, huge ones are refused at once."""
    async with rig(max_body_bytes=2**26) as r:
        body = {**CHAT, "messages": [{"role": "user", "content": "слово " * words}]}
        answer = await r.client.post("/v1/chat/completions", json=body)

        called = [q.path for q in r.engine.requests]
        assert len([p for p in called if p in {"/tokenize", "/apply-template"}]) == asks
        if words == 100:
            assert answer.status_code == 200
        else:
            assert answer.status_code == 400
            error = answer.json()["error"]
            assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
            assert "/v1/chat/completions" not in called


async def test_many_calls_at_once_all_settle() -> None:
    async with rig() as r:
        r.engine.script = Script(chunks=("a",) * 5, chunk_delay_s=0.01)
        answers = await asyncio.gather(
            *(r.client.post("/v1/chat/completions", json=STREAM if n % 2 else CHAT) for n in range(100))
        )
        await r.until_idle()

    assert [answer.status_code for answer in answers] == [200] * 100
    assert len({answer.headers["x-request-id"] for answer in answers}) == 100
    assert len(r.ended) == 100


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("deaths", "status"), [(1, 200), (2, 502)])
async def test_a_child_that_dies_unanswered_gets_the_call_once_more(
    stream: bool, deaths: int, status: int
) -> None:
    async with rig() as r:
        r.engine.next_scripts.extend([Script(fault="close", after_chunks=0)] * deaths)
        answer = await r.client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
        await r.until_idle()

        assert answer.status_code == status
        assert r.engine.broken == deaths
        assert len(r.ended) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_the_key_of_a_server_is_hidden_where_its_error_quotes_it(stream: bool) -> None:
    said = b'{"error":{"message":"no model for key upstream-secret here"}}'
    async with rig() as r:
        r.engine.script = Script(status=400, body=said)
        answer = await r.client.post("/v1/chat/completions", json={**CHAT, "stream": stream})

    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "no model for key [hidden] here."
