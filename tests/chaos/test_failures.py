"""Replicas fail in every way there is, and callers do not notice while one can answer (PROMISES S2, L4, F5)."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from rig import CHAT, Rig, key, rig
from scibox.core.secret import RANDOM_CHARS, compose, digest
from scibox.core.spending import WINDOW_S
from scibox.core.types import Ending, ModelCard, Price
from scibox.engines.fake import FakeEngine
from scibox.engines.fake_script import Script
from scibox.router.replica import Deployment, Replica, Route
from scibox.router.router import Deadlines
from scibox.upstream.address import Address

AT_ONCE = 16
NARROW = compose([21] * RANDOM_CHARS)  # the secret of a key that may use `m` alone


@asynccontextmanager
async def engines(count: int) -> AsyncIterator[list[FakeEngine]]:
    """Servers of others, on addresses that stay theirs."""
    async with AsyncExitStack() as stack:
        made = [FakeEngine("http://127.0.0.1:0", name="fake-model") for _ in range(count)]
        yield [await stack.enter_async_context(engine) for engine in made]


def at(address: str, **more: Any) -> Replica:
    return Replica(Address.parse(f"{address}/v1"), "fake-model", dialect="vllm", thinking="none", **more)


def model(name: str, *deployments: Sequence[FakeEngine], price: Price | None = None, **more: Any) -> Route:
    card = ModelCard(name, "chat", "scibox", 1, 8192, price=price)
    return Route(
        card,
        tuple(Deployment(tuple(at(engine.address) for engine in own)) for own in deployments),
        **more,
    )


def asked(*those: FakeEngine) -> int:
    return sum(request.path.endswith("/chat/completions") for one in those for request in one.requests)


async def ask(r: Rig, name: str = "m", stream: bool = False, **headers: str) -> httpx.Response:
    return await r.client.post(
        "/v1/chat/completions", json={**CHAT, "model": name, "stream": stream}, headers=headers
    )


async def ask_many(r: Rig, calls: int, name: str = "m") -> list[httpx.Response]:
    """So many calls, `AT_ONCE` at a time, every second one streamed."""
    turns, answers = iter(range(calls)), []

    async def client() -> None:
        for turn in turns:
            answers.append(await ask(r, name, stream=turn % 2 == 0))

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return answers


def is_whole(answer: httpx.Response) -> bool:
    streamed = answer.headers["content-type"].startswith("text/event-stream")
    return answer.status_code == 200 and (not streamed or answer.text.endswith("data: [DONE]\n\n"))


@pytest.mark.parametrize("how", ["gone", "reset", "status 500", "garbage"])
async def test_while_one_replica_lives_no_caller_sees_that_the_other_dies(how: str) -> None:
    async with engines(2) as (one, other), rig(more=[model("m", [one, other])]) as r:
        before = await ask_many(r, 200)  # callers there were, and a budget of retries
        during = asyncio.create_task(ask_many(r, 600))
        while asked(one) < 150 and not during.done():
            await asyncio.sleep(0.001)
        match how:
            case "gone":
                await one.stop()
            case "status 500":
                one.script = Script(status=500)
            case "reset" | "garbage":
                one.script = Script(fault=how, after_chunks=0)  # type: ignore[arg-type]
        answers = before + await during
        await r.until_idle()

    # A stream that had begun when its server went is another promise's (S1): it can only be cut there.
    cut = [entry for entry in r.entries if entry.stream and entry.first_chunk_s is not None]
    cut = [entry for entry in cut if entry.outcome is Ending.UPSTREAM_ERROR]
    assert sum(answer.status_code == 200 for answer in answers) >= 0.999 * len(answers)
    assert sum(map(is_whole, answers)) + len(cut) >= 0.999 * len(answers)
    assert len(cut) == 0 if how != "gone" else len(cut) <= AT_ONCE / 2
    assert len(r.entries) == len(answers)
    assert sum(entry.attempts for entry in r.entries) > len(answers)  # it was felt, here
    assert sum(entry.attempts - 1 for entry in r.entries) <= 0.2 * len(answers) + 3


@pytest.mark.parametrize(
    "script",
    [
        Script(status=500),
        Script(fault="reset", after_chunks=0),
        Script(status=503),
        Script(html_with_200=True),
    ],
)
async def test_servers_that_always_fail_get_a_fifth_more_calls_at_most(script: Script) -> None:
    async with engines(3) as some, rig(more=[model("m", some)]) as r:
        for engine in some:
            engine.script = script
        answers = await ask_many(r, 200)
        await r.until_idle()

        assert asked(*some) <= 1.2 * len(answers) + 3
        assert {answer.status_code for answer in answers} <= {502, 503}
        assert {"upstream_error", "upstream_broke_off", "upstream_unavailable", "upstream_busy"} >= {
            answer.json()["error"]["code"] for answer in answers
        }
        assert all(1 <= int(a.headers["retry-after"]) <= 60 for a in answers if a.status_code == 503)
        assert sum(entry.attempts for entry in r.entries) == asked(*some)


async def test_one_that_fails_some_calls_costs_the_budget_and_no_more() -> None:
    """Too few failures for a breaker, too many to retry all of them."""
    async with engines(2) as some, rig(more=[model("m", some)]) as r:
        for engine in some:
            engine.next_scripts.extend([Script(), Script(status=500), Script()] * 100)
        answers = [await ask(r) for _ in range(200)]

        assert {answer.status_code for answer in answers} == {200, 502}
        assert 1.1 * len(answers) < asked(*some) <= 1.2 * len(answers) + 3


async def test_a_busy_server_is_left_alone_as_long_as_it_asks() -> None:
    async with engines(2) as (busy, other), rig(more=[model("m", [busy, other])]) as r:
        busy.script = Script(status=429, headers=(("retry-after", "7"),))
        answers = await ask_many(r, 60)
        assert all(map(is_whole, answers))
        assert 1 <= asked(busy) <= AT_ONCE  # those that were on their way when it said so
        other.script = Script(status=503, headers=(("retry-after", "50"),))
        refused = await ask(r)
        before = asked(busy, other)
        again = await ask(r)

        for answer in (refused, again):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upstream_busy")
            assert 1 <= int(answer.headers["retry-after"]) <= 7  # the first door that opens
        assert asked(busy, other) == before


async def test_a_server_that_refuses_the_gateway_is_passed_over_for_the_next_deployment() -> None:
    async with engines(3) as (one, equal, next_one), rig(more=[model("m", [one, equal], [next_one])]) as r:
        for engine in (one, equal):
            engine.script = Script(status=401)
        answer = await ask(r)
        await r.until_idle()

        assert is_whole(answer)
        assert (asked(one, equal), asked(next_one)) == (1, 1)
        [entry] = r.entries
        assert (entry.deployment, entry.attempts) == (1, 2)
        assert entry.replica == next_one.address.removeprefix("http://") + "/v1"
        await ask_many(r, 30)
        assert asked(one, equal) < 30  # known by then: nobody is sent there


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_is_the_callers_own_fault_is_tried_once(status: int) -> None:
    async with engines(3) as some, rig(more=[model("m", some[:2], some[2:])]) as r:
        for engine in some:
            engine.script = Script(status=status, body=b'{"error":{"message":"bad grammar"}}')
        answers = [await ask(r, stream=n % 2 == 0) for n in range(6)]

        assert {answer.status_code for answer in answers} == {400}
        assert asked(*some) == 6  # and no breaker takes offence


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_stands_in_is_named(stream: bool) -> None:
    async with engines(2) as (one, other):
        main = model("m", [one], fallbacks=("none", "vectors", "stand-in"), price=Price(1e6, 1e6))
        stand_in = model("stand-in", [other], price=Price(2e6, 2e6))
        async with rig(more=[main, stand_in]) as r:
            first = await ask(r, stream=stream)
            one.script = Script(status=500)
            answer = await ask(r, stream=stream)
            await r.until_idle()

            assert first.headers["x-scibox-model"] == "m"
            assert '"model":"fake-model"' in first.text.replace(" ", "")
            assert is_whole(answer)
            assert answer.headers["x-scibox-model"] == "stand-in"
            if stream:
                events = [json.loads(e[6:]) for e in answer.text.split("\n\n") if e.startswith("data: {")]
                assert {event["model"] for event in events} == {"stand-in"}
            else:
                assert answer.json()["model"] == "stand-in"
            entry = r.entries[-1]
            assert (entry.model, entry.attempts, entry.deployment, len(r.entries)) == ("stand-in", 2, 0, 2)
            assert entry.price == 2 * (entry.usage.prompt_tokens + entry.usage.completion_tokens)
            assert [r.desk.load(name).running for name in ("m", "stand-in")] == [0, 0]


async def test_a_stand_in_must_be_allowed_and_have_a_turn() -> None:
    narrow = {digest(NARROW): key("narrow", models=frozenset({"m"}))}
    async with engines(2) as (one, other):
        one.script = Script(status=500)
        main = model("m", [one], fallbacks=("stand-in",))
        stand_in = Route(
            ModelCard("stand-in", "chat", "scibox", 1, 8192), (Deployment((at(other.address, slots=1),)),)
        )
        async with rig(more=[main, stand_in], keys=narrow, patience_s=0.3) as r:
            refused = await ask(r, authorization=f"Bearer {NARROW}")
            assert (refused.status_code, asked(other)) == (502, 0)

            other.script = Script(first_chunk_delay_s=30)
            busy = asyncio.create_task(ask(r, "stand-in"))
            while not other.in_flight:
                await asyncio.sleep(0.001)
            began = time.monotonic()
            full = await ask(r)
            assert (full.status_code, full.json()["error"]["code"]) == (502, "upstream_error")
            assert time.monotonic() - began < 10  # its patience, not the other's answer
            busy.cancel()
            with suppress(asyncio.CancelledError):
                await busy
            await r.until_idle()
            assert [r.desk.load(name).running for name in ("m", "stand-in")] == [0, 0]
            assert [entry.model for entry in r.entries if entry.outcome is Ending.UPSTREAM_ERROR] == [
                "m",
                "m",
            ]


async def test_a_call_takes_its_slot_along_to_the_deployment_that_answers() -> None:
    async with engines(2) as (one, other):
        route = Route(
            ModelCard("m", "chat", "scibox", 1, 8192),
            tuple(Deployment((at(engine.address, slots=2),)) for engine in (one, other)),
        )
        async with rig(more=[route]) as r:
            one.script = Script(status=401)
            other.script = Script(first_chunk_delay_s=0.3)
            calls = [asyncio.create_task(ask(r)) for _ in range(2)]
            while asked(other) < 2:
                await asyncio.sleep(0.001)
            assert r.desk._models["m"].used == [0, 2]
            await asyncio.gather(*calls)
            assert r.desk._models["m"].used == [0, 0]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_second_attempt_beside_a_slow_one_answers_and_ends_it(stream: bool) -> None:
    async with engines(2) as (one, other), rig(more=[model("m", [one, other], hedge_after_s=0.1)]) as r:
        scripts = deque([Script(first_chunk_delay_s=30)])  # of whichever is asked first
        one.next_scripts = other.next_scripts = scripts
        answer = await ask(r, stream=stream)
        await r.until_idle()
        async with asyncio.timeout(10):  # not the 30 s that the slow one would take
            while one.in_flight or other.in_flight:
                await asyncio.sleep(0.001)

        assert is_whole(answer)
        assert (asked(one), asked(other)) == (1, 1)
        assert one.abandoned + other.abandoned == 1
        [entry] = r.entries
        quick = one if one.finished else other
        assert entry.replica == quick.address.removeprefix("http://") + "/v1"
        assert (entry.attempts, entry.outcome) == (2, Ending.FINISHED)


async def test_hedges_are_bounded() -> None:
    async with engines(2) as some, rig(more=[model("m", some, hedge_after_s=0.001)]) as r:
        for engine in some:
            engine.script = Script(first_chunk_delay_s=0.05)
        began = time.monotonic()
        answers = await ask_many(r, 200)
        windows = 1 + (time.monotonic() - began) / WINDOW_S  # one is allowed in each, however few the calls

        assert all(map(is_whole, answers))
        assert len(answers) < asked(*some) <= 1.05 * len(answers) + windows


async def test_a_replica_five_times_slower_sheds_more_than_half_of_its_share() -> None:
    async with engines(3) as some, rig(more=[model("m", some)]) as r:
        for engine, delay_s in zip(some, (1.0, 0.2, 0.2), strict=True):
            engine.script = Script(first_chunk_delay_s=delay_s)
        began, stop = time.monotonic(), asyncio.Event()

        async def client() -> None:
            while not stop.is_set():
                await ask(r, stream=True)

        clients = [asyncio.create_task(client()) for _ in range(8)]
        await asyncio.sleep(5.0)
        before = [asked(engine) for engine in some]
        while sum(asked(engine) for engine in some) - sum(before) < 150 and time.monotonic() - began < 60:
            await asyncio.sleep(0.05)
        after = [asked(engine) - known for engine, known in zip(some, before, strict=True)]
        stop.set()
        await asyncio.gather(*clients)

    assert sum(after) >= 150
    assert after[0] / sum(after) < 1 / 6


async def test_a_server_that_is_back_gets_calls_again() -> None:
    async with engines(2) as (one, other), rig(more=[model("m", [one, other])]) as r:
        await one.stop()
        answers = await ask_many(r, 60)
        await one.start()
        known = asked(one)
        async with asyncio.timeout(60):
            while asked(one) < known + 5:
                answers += await ask_many(r, 20)

    assert all(map(is_whole, answers))


async def test_a_server_that_does_not_take_connections_costs_few_callers_the_deadline() -> None:
    """Only those that find it out; its breaker's probes are no calls."""
    with socket.socket() as deaf, socket.socket() as filling, socket.socket() as more:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for one in (filling, more):
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        async with engines(1) as (well,):
            replicas = (at(f"http://127.0.0.1:{deaf.getsockname()[1]}"), at(well.address))
            route = Route(ModelCard("m", "chat", "scibox", 1, 8192), (Deployment(replicas),))
            async with rig(more=[route]) as r:  # its deadline to connect is 1 s
                began, answers = time.monotonic(), []
                while len(answers) < 40 or time.monotonic() - began < 6:
                    answers.append(await ask(r))
                    await asyncio.sleep(0.01)
                slow = [entry for entry in r.entries if entry.attempts > 1]

    assert all(map(is_whole, answers))
    assert all((entry.first_chunk_s or 0.0) >= 1.0 for entry in slow)
    assert 1 <= len(slow) <= 3


WRONG: list[bytes] = [
    b"", b"null", b"[]", b"7", b"{}", b"\xff\xfe", b"<html>", b'{"choices":"x"}', b'{"choices":[]}', b'{"choices":[7]}',
    b'{"choices":[{}]}', b'{"choices":[{"message":7}]}', b'{"choices":null,"usage":[]}', b"[" * 100_000,
    b'{"error":{"message":"no"}}',
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("body", WRONG)
async def test_wrong_answers_are_a_502(stream: bool, body: bytes) -> None:
    if stream:
        body = b"data: " + body + b"\n\n"
    async with pouring(body, stream) as (address, _):
        route = Route(ModelCard("m", "chat", "scibox", 1, 8192), (Deployment((at(address),)),))
        async with rig(more=[route]) as r:
            answer = await ask(r, stream=stream)

    if stream and answer.status_code == 200:  # an event as others, but nothing follows
        assert body == b'data: {"choices":[{}]}\n\n'
        assert '"upstream_broke_off"' in answer.text
        assert "[DONE]" not in answer.text
        return
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] in {"upstream_error", "upstream_broke_off"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("has_length", [False, True])
async def test_an_answer_without_an_end_is_a_502_and_read_no_further(stream: bool, has_length: bool) -> None:
    giga = 2**30
    async with pouring(b"data: {" if stream else b"{", stream, giga, has_length) as (address, poured):
        route = Route(ModelCard("m", "chat", "scibox", 1, 8192), (Deployment((at(address),)),))
        async with rig(more=[route], deadlines=Deadlines(60.0, 60.0, 120.0)) as r:
            answer = await r.client.post(
                "/v1/chat/completions", json={**CHAT, "model": "m", "stream": stream}, timeout=120
            )

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    assert sum(poured) < 100 * 2**20


@asynccontextmanager
async def pouring(
    body: bytes, stream: bool, more_bytes: int = 0, has_length: bool = False
) -> AsyncIterator[tuple[str, list[int]]]:
    """A server that answers with that body, and then so many bytes more; tells how many it got rid of."""
    poured: list[int] = []
    piece = b" " * 2**20

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = b"text/event-stream" if stream else b"application/json"
        length = b"content-length: %d\r\n" % (len(body) + more_bytes) if has_length else b""
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\n" + length)
            writer.write(b"connection: close\r\n\r\n" + body)
            for _ in range(more_bytes // len(piece)):
                writer.write(piece)
                await writer.drain()
                poured.append(len(piece))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", poured
    finally:
        server.close()
