"""One entry for each call, whatever became of it, and written before its answer is complete."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from rig import CHAT, KEYS, SECRET, Notebook, Rig, key, rig
from scibox.core import secret
from scibox.core.entries import Entry
from scibox.core.limits import Windows
from scibox.core.types import Call, Chunk, Ending, Limits, ModelCard, Price, Usage
from scibox.engines.fake_script import Script
from scibox.gate.desk import LocalDesk
from scibox.gate.gate import Gate
from scibox.gate.keyring import KeyRing, Known
from scibox.router.vectors import Packing

STREAM = CHAT | {"stream": True}
PRICE = Price(prompt=1_000_000.0, completion=2_000_000.0)


async def one(r: Rig) -> Entry:
    """The only entry there is."""
    await r.until_idle()
    [entry] = r.entries
    return entry


@pytest.mark.parametrize("stream", [False, True])
async def test_a_finished_call_is_told_whole(stream: bool) -> None:
    async with rig(price=PRICE) as r:
        before = time.time()
        answer = await r.client.post("/chat/completions", json=CHAT | {"stream": stream})
        entry = await one(r)
        usage = r.engine.answers[0].usage

    assert entry.request_id == answer.headers["x-request-id"]
    assert before - 1 <= entry.opened_at <= time.time()
    assert (entry.key_id, entry.owner, entry.model, entry.kind) == ("key_full", "team", "chatty", "chat")
    assert (entry.endpoint, entry.outcome, entry.code) == ("/chat/completions", Ending.FINISHED, "")
    assert (entry.stream, entry.is_background) == (stream, False)
    assert entry.usage.prompt_tokens == usage.prompt_tokens
    assert entry.usage.completion_tokens == usage.completion_tokens == entry.delivered_tokens
    assert not entry.is_estimate
    assert (entry.deployment, entry.attempts) == (0, 1)
    assert entry.replica.endswith("fake.sock")
    assert 0 <= (entry.first_chunk_s or 0) <= entry.total_s
    assert entry.price == usage.prompt_tokens + 2 * usage.completion_tokens


@pytest.mark.parametrize("path", ["/responses", "/messages", "/completions", "/score"])
async def test_the_endpoint_is_the_one_that_was_called(path: str) -> None:
    bodies: dict[str, Any] = {
        "/responses": {"model": "chatty", "input": "hi"},
        "/messages": CHAT | {"max_tokens": 20},
        "/completions": {"model": "chatty", "prompt": "hi"},
        "/score": {"model": "vectors", "text_1": "a", "text_2": "b"},
    }
    async with rig() as r:
        assert (await r.client.post(f"/v1{path}", json=bodies[path])).status_code == 200
        entry = await one(r)

    assert entry.endpoint == path
    assert entry.usage.prompt_tokens > 0


class Slow(Notebook):
    """A journal that is strict and slow."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def settled(self) -> None:
        self.asked.set()
        await self.may_go_on.wait()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_entry_is_safe_before_the_last_chunk_leaves(stream: bool, tmp_path: Path) -> None:
    async with rig() as r:
        journal = Slow(tmp_path)
        r.gate.journal = journal
        heard: list[bytes] = []

        async def ask() -> None:
            async with r.client.stream(
                "POST", "/v1/chat/completions", json=CHAT | {"stream": stream}
            ) as answer:
                async for data in answer.aiter_raw():
                    heard.append(data)

        asking = asyncio.create_task(ask())
        await asyncio.wait_for(journal.asked.wait(), 5)
        await asyncio.sleep(0.05)
        before, entries = b"".join(heard), list(journal.entries)
        journal.may_go_on.set()
        await asking

    assert [entry.outcome for entry in entries] == [Ending.FINISHED]
    assert b"[DONE]" not in before
    assert bool(before) == stream
    assert [record.request_id for record in journal.begun] == [entries[0].request_id]


async def test_a_client_that_leaves_is_charged_for_what_was_generated() -> None:
    async with rig() as r:
        r.engine.script = Script(chunks=tuple(f"word{n} " for n in range(100)), chunk_delay_s=0.01)
        async with r.client.stream("POST", "/v1/chat/completions", json=STREAM) as answer:
            lines = answer.aiter_lines()
            while "word9 " not in await anext(lines):
                pass
        entry = await one(r)

    assert entry.outcome is Ending.CLIENT_GONE
    assert entry.is_estimate
    assert entry.usage.prompt_tokens > 0
    assert 9 <= entry.delivered_tokens <= entry.usage.completion_tokens <= 90


async def test_a_stream_that_breaks_off_is_an_upstream_error_with_what_came() -> None:
    async with rig() as r:
        r.engine.script = Script(fault="close", after_chunks=5)
        await r.client.post("/v1/chat/completions", json=STREAM)
        entry = await one(r)

    assert (entry.outcome, entry.code) == (Ending.UPSTREAM_ERROR, "upstream_broke_off")
    assert 4 <= entry.usage.completion_tokens <= 7
    assert entry.delivered_tokens == entry.usage.completion_tokens
    assert entry.is_estimate


async def test_a_failure_before_the_first_word_costs_nothing() -> None:
    async with rig(fallback=True, remote=True) as r:
        r.engine.script = Script(status=500)
        await r.client.post("/v1/chat/completions", json=CHAT)
        entry = await one(r)

    assert entry.outcome is Ending.UPSTREAM_ERROR
    assert entry.usage.prompt_tokens == entry.usage.completion_tokens == 0
    assert (entry.attempts, entry.deployment) == (2, 1)


def gate_with(journal: Notebook) -> Gate:
    desk = LocalDesk(lambda model: (1,), Windows(), time.monotonic, time.time)
    return Gate(
        KeyRing(Known(KEYS, {})), desk, journal, lambda event: None, clock=time.monotonic, now=time.time
    )


@pytest.mark.parametrize(
    ("chunks", "completion_tokens"),
    [
        ([*[Chunk(b"data: {}", deltas=1)] * 7, Chunk(b"data: [DONE]", is_last=True)], 7),
        ([Chunk(b"x" * 400, Usage(), is_last=True)], 100),
    ],
)
async def test_what_an_engine_does_not_count_is_estimated(
    chunks: list[Chunk], completion_tokens: int, tmp_path: Path
) -> None:
    journal = Notebook(tmp_path)
    call = Call("req_1", "chat", "m", "/chat/completions", {}, text_bytes=400)
    async with gate_with(journal).ticket(key("full"), call, ModelCard("m", "chat", "us", 1)) as ticket:
        ticket.tried(0, "somewhere")
        for chunk in chunks:
            ticket.count(chunk)

    [entry] = journal.entries
    assert entry.is_estimate
    assert entry.outcome is Ending.FINISHED
    assert 90 <= entry.usage.prompt_tokens <= 120
    assert entry.usage.completion_tokens == entry.delivered_tokens == completion_tokens


async def test_closing_a_ticket_twice_settles_once(tmp_path: Path) -> None:
    journal = Notebook(tmp_path)
    gate = gate_with(journal)
    call = Call("req_1", "chat", "m", "/chat/completions", {})
    async with gate.ticket(key("full"), call, ModelCard("m", "chat", "us", 1)) as ticket:
        ticket.count(Chunk(b"", Usage(3, 4), is_last=True))
        assert gate.in_flight == 1  # its answer has not left yet
    await ticket.__aexit__(None, None, None)

    assert gate.in_flight == 0
    assert len(journal.entries) == 1


async def test_what_is_refused_after_the_model_was_found_is_told_too() -> None:
    async with rig() as r:
        await r.client.post("/v1/chat/completions", json=CHAT | {"model": "nobody"})
        await r.client.post("/v1/chat/completions", json=CHAT | {"temperature": 9})
        assert not r.entries
        r.gate.drain()
        answer = await r.client.post("/v1/chat/completions", json=CHAT)
        entry = await one(r)

    assert answer.status_code == 503
    assert (entry.outcome, entry.code, entry.deployment) == (Ending.REFUSED, "draining", None)


async def test_texts_are_counted_with_what_came_from_the_cache(tmp_path: Path) -> None:
    async with rig(cache_file=tmp_path / "c.db", price=Price(1e6, 0, 5e5)) as r:
        body = {"model": "vectors", "input": ["one two", "one two", "three"]}
        await r.client.post("/v1/embeddings", json=body)
        await r.client.post("/v1/embeddings", json=body)
        await r.until_idle()
        first, second = r.entries

    assert (first.texts, second.texts) == (3, 3)
    assert first.usage.prompt_tokens == second.usage.prompt_tokens == second.usage.cached_tokens
    assert first.usage.cached_tokens == 0
    assert second.price == first.price / 2


async def test_a_client_that_leaves_in_the_middle_of_its_texts_is_charged_for_those_done() -> None:
    async with rig(packing=Packing(2, 16_384, 1)) as r:
        r.engine.next_scripts.extend([Script()] * 2)
        r.engine.script = Script(first_chunk_delay_s=60)
        texts = [f"text number {n}" for n in range(10)]
        asking = asyncio.create_task(
            r.client.post("/v1/embeddings", json={"model": "vectors", "input": texts})
        )
        async with asyncio.timeout(5):
            while len(r.engine.answers) < 2:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        entry = await one(r)
        done = sum(answered.usage.prompt_tokens for answered in r.engine.answers)

    assert entry.outcome is Ending.CLIENT_GONE
    assert (entry.texts, entry.usage.prompt_tokens) == (4, done)
    assert not entry.is_estimate


def revoke(r: Rig) -> None:
    """Revoke the key, as the ring learns it from the database."""
    r.ring.replace(Known(KEYS | {secret.digest(SECRET): key("full", revoked_at=time.time())}, {}))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_that_is_revoked_ends_its_waiting_call_within_a_second(stream: bool) -> None:
    async with rig(slots=1) as r:
        r.engine.script = Script(first_chunk_delay_s=60)
        calls = [
            asyncio.create_task(r.client.post("/v1/chat/completions", json=CHAT | {"stream": stream}))
            for _ in range(2)
        ]
        async with asyncio.timeout(5):
            while len(await r.desk.places("team")) < 2:
                await asyncio.sleep(0.005)
        revoke(r)
        answers = await asyncio.wait_for(asyncio.gather(*calls), 5)
        await r.until_idle()
        entries = list(r.entries)

    assert [answer.status_code for answer in answers] == [401, 401]
    assert {answer.json()["error"]["code"] for answer in answers} == {"key_revoked"}
    assert {(entry.outcome, entry.code) for entry in entries} == {(Ending.REVOKED, "key_revoked")}
    assert all(entry.total_s < 5 for entry in entries)


async def test_a_key_that_is_revoked_ends_its_stream_with_an_error_event() -> None:
    async with rig() as r:
        r.engine.script = Script(chunks=tuple(f"word{n} " for n in range(1000)), chunk_delay_s=0.02)
        async with r.client.stream("POST", "/v1/chat/completions", json=STREAM) as answer:
            lines = [line async for line in _revoking(r, answer)]
        entry = await one(r)

    assert "key_revoked" in lines[-2]
    assert "data: [DONE]" not in lines
    assert entry.outcome is Ending.REVOKED
    assert entry.usage.completion_tokens >= 2


async def _revoking(r: Rig, answer: httpx.Response) -> Any:
    async for line in answer.aiter_lines():
        if "word3 " in line:
            revoke(r)
        yield line


async def test_a_slow_reader_does_not_keep_a_revoked_call_alive() -> None:
    async with rig() as r:
        r.engine.script = Script(chunks=("x" * 200_000,) * 200)
        async with r.client.stream("POST", "/v1/chat/completions", json=STREAM) as answer:
            reading = answer.aiter_raw(100)
            await anext(reading)
            async with asyncio.timeout(5):  # nobody reads any more, so its chunks pile up
                while not r.entries:
                    revoke(r)
                    await asyncio.sleep(0.05)
        entry = await one(r)

    assert entry.outcome is Ending.REVOKED


async def test_a_key_that_expires_lets_its_calls_end() -> None:
    async with rig() as r:
        r.engine.script = Script(chunks=tuple(f"word{n} " for n in range(60)), chunk_delay_s=0.02)
        asking = asyncio.create_task(r.client.post("/v1/chat/completions", json=STREAM))
        async with asyncio.timeout(5):
            while not r.engine.in_flight:
                await asyncio.sleep(0.005)
        r.ring.replace(Known(KEYS | {secret.digest(SECRET): key("full", expires_at=1.0)}, {}))
        answer = await asking
        entry = await one(r)

    assert answer.text.endswith("data: [DONE]\n\n")
    assert entry.outcome is Ending.FINISHED


async def test_calls_in_flight_of_a_key_are_given_back_whatever_happens() -> None:
    keys = {secret.digest(SECRET): key("full", limits=Limits(calls_in_flight=1))}
    async with rig(keys=keys) as r:
        for script in (
            Script(),
            Script(status=500),
            Script(fault="reset", after_chunks=2),
            Script(fault="close"),
            Script(status=400),
        ):
            r.engine.script = script
            for stream in (False, True):
                await r.client.post("/v1/chat/completions", json=CHAT | {"stream": stream})
        r.engine.script = Script()
        last = await r.client.post("/v1/chat/completions", json=CHAT)
        await r.until_idle()
        places = await r.desk.places("team")
        requests = {entry.request_id for entry in r.entries}

    assert last.status_code == 200
    assert not places
    assert len(r.entries) == len(requests) == 11
