"""Limits and turns as clients meet them: headers, comments in streams, patience, refusals, `GET /v1/queue`."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import httpx
import pytest

from rig import CHAT, LIMITED, SECRET, STRANGER, Rig, key, rig
from scibox.core import secret
from scibox.core.types import Limits, Owner
from scibox.engines.fake_script import Script

STUCK = Script(first_chunk_delay_s=60.0)
OTHER = secret.compose([17] * secret.RANDOM_CHARS)
SLOW = {"x-scibox-patience": "30"}


async def chat(
    r: Rig, *, as_: str = SECRET, headers: dict[str, str] | None = None, **more: Any
) -> httpx.Response:
    return await r.client.post(
        "/v1/chat/completions",
        json=CHAT | more,
        headers={"authorization": f"Bearer {as_}", **(headers or {})},
    )


async def taken(r: Rig, calls: int = 1) -> list[asyncio.Task[httpx.Response]]:
    """Calls that hold the slots."""
    r.engine.next_scripts.extend([STUCK] * calls)
    tasks = [asyncio.create_task(chat(r, as_=STRANGER)) for _ in range(calls)]
    async with asyncio.timeout(5):
        while r.engine.in_flight < calls:
            await asyncio.sleep(0.005)
    return tasks


async def ended(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def waiting(r: Rig, calls: int) -> None:
    async with asyncio.timeout(5):
        while sum(place.position > 0 for place in await r.desk.places("team")) < calls:
            await asyncio.sleep(0.005)


async def test_without_limits_there_are_no_limit_headers_and_the_queue_is_told() -> None:
    async with rig() as r:
        answer = await chat(r)

    assert not [name for name in answer.headers if name.startswith("x-ratelimit-")]
    assert answer.headers["x-scibox-queue-position"] == "0"
    assert int(answer.headers["x-scibox-queue-wait-ms"]) < 1000
    assert answer.headers["x-scibox-queue-expected-ms"] == "0"


@pytest.mark.parametrize("stream", [False, True])
async def test_headers_show_the_most_binding_limit_as_openai_writes_it(stream: bool) -> None:
    owners = {"team": Owner("team", limits=Limits(calls_per_second=50, tokens_per_minute=100_000))}
    async with rig(owners=owners, model_limits=Limits(calls_per_minute=10)) as r:
        answers = [await chat(r, stream=stream) for _ in range(2)]
        used = sum(entry.usage.prompt_tokens + entry.usage.completion_tokens for entry in r.entries)
        info = (await r.client.get("/v1/key")).json()

    last = answers[1].headers
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["9", "8"]
    assert last["x-ratelimit-limit-requests"] == "10"
    assert re.fullmatch(r"1m0(\.\d+)?s|59(\.\d+)?s", last["x-ratelimit-reset-requests"])
    assert last["x-ratelimit-limit-tokens"] == "100000"
    assert 0 < int(last["x-ratelimit-remaining-tokens"]) < 100_000 - used // 2
    assert re.fullmatch(r"1m0(\.\d+)?s|59(\.\d+)?s", last["x-ratelimit-reset-tokens"])
    left = {
        (limit["of"], limit["limit"]): limit["remaining"]
        for limit in info["limits"]
        if limit["model"] in (None, "chatty")
    }
    assert left["model", "calls_per_minute"] == 8
    assert left["owner", "tokens_per_minute"] == 100_000 - used


async def test_headers_stand_on_errors_too_and_free_endpoints_do_not_count() -> None:
    keys = {secret.digest(OTHER): key("other", limits=Limits(calls_per_minute=5))}
    async with rig(keys=keys) as r:
        bad = await chat(r, as_=OTHER, temperature=99)
        no_model = await chat(r, as_=OTHER, model="nobody")
        no_key = await chat(r, as_="nonsense")
        for path in ("/health", "/v1/models", "/v1/key", "/v1/queue"):
            await r.client.get(path, headers={"authorization": f"Bearer {OTHER}"})
        r.engine.script = Script(status=500)
        broken = await chat(r, as_=OTHER)

    assert (bad.status_code, bad.headers["x-ratelimit-remaining-requests"]) == (400, "5")
    assert (no_model.status_code, no_model.headers["x-ratelimit-remaining-requests"]) == (404, "5")
    assert (broken.status_code, broken.headers["x-ratelimit-remaining-requests"]) == (502, "4")
    assert no_key.status_code == 401
    assert "x-ratelimit-remaining-requests" not in no_key.headers


async def test_pages_of_other_origins_may_read_the_headers() -> None:
    async with rig(model_limits=Limits(calls_per_minute=10)) as r:
        answer = await chat(r, headers={"origin": "https://page.example"})

    exposed = answer.headers["access-control-expose-headers"]
    assert exposed == "*" or "x-ratelimit-limit-requests" in exposed


async def test_texts_are_limited_by_the_minute() -> None:
    async with rig(owner_limits=Limits(texts_per_minute=3)) as r:
        body = {"model": "vectors", "input": ["a", "b"]}
        first = await r.client.post("/v1/embeddings", json=body)
        second = await r.client.post("/v1/embeddings", json=body, headers={"x-scibox-patience": "1"})

    assert first.headers["x-ratelimit-limit-texts"] == "3"
    assert first.headers["x-ratelimit-remaining-texts"] == "1"
    assert second.status_code == 429
    assert "3 texts per minute" in second.json()["error"]["message"]
    assert "each owner on 'vectors'" in second.json()["error"]["message"]


async def test_a_used_up_quota_is_refused_and_openais_clients_do_not_try_again() -> None:
    owners = {"team": Owner("team", limits=Limits(tokens_per_day=5))}
    async with rig(owners=owners) as r:
        first = await chat(r)
        second = await chat(r)
        entries = list(r.entries)

    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-tokens-day"] == "5"
    assert second.status_code == 429
    assert second.headers["x-should-retry"] == "false"
    assert second.headers["x-ratelimit-remaining-tokens-day"] == "0"
    error = second.json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert [(entry.outcome.value, entry.code) for entry in entries] == [
        ("finished", ""),
        ("refused", "insufficient_quota"),
    ]


async def test_a_stream_that_waits_says_where_it_stands() -> None:
    async with rig(slots=1, model_limits=Limits(calls_per_minute=100)) as r:
        busy = await taken(r)
        async with r.client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as answer:
            headers = answer.headers
            lines = answer.aiter_lines()
            first = await anext(lines)
            await ended(*busy)
            rest = [line async for line in lines]

    assert re.fullmatch(r": queued position=1 eta=\d+\.\ds", first)
    assert headers["x-scibox-queue-position"] == "1"
    assert int(headers["x-scibox-queue-wait-ms"]) >= 900
    assert headers["x-ratelimit-limit-requests"] == "100"
    assert rest[-2:] == ["data: [DONE]", ""]
    assert not [line for line in rest if line.startswith("data: ") and "error" in line]


async def test_comments_stay_rare() -> None:
    async with rig(slots=1) as r:
        busy = await taken(r)
        began = time.monotonic()
        comments = 0
        async with r.client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as answer:
            async for line in answer.aiter_lines():
                comments += line.startswith(": queued")
                if time.monotonic() - began > 4.5:
                    break
        await ended(*busy)

    assert 1 <= comments <= 5


async def test_a_stream_that_is_refused_after_its_status_has_left_ends_with_an_error_event() -> None:
    async with rig(slots=1) as r:
        busy = await taken(r)
        answer = await chat(r, stream=True, headers={"x-scibox-patience": "1.5"})
        await ended(*busy)

    assert answer.status_code == 200
    assert "queue_too_long" in answer.text
    assert "[DONE]" not in answer.text


@pytest.mark.parametrize("stream", [False, True])
async def test_patience_that_ends_early_is_a_plain_refusal(stream: bool) -> None:
    async with rig(slots=1) as r:
        busy = await taken(r)
        answer = await chat(r, stream=stream, headers={"x-scibox-patience": "0.2"})
        await ended(*busy)
        entry = r.entries[0]

    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "queue_too_long"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert "'chatty' is busy" in answer.json()["error"]["message"]
    assert (entry.outcome.value, entry.code, entry.attempts) == ("refused", "queue_too_long", 0)
    assert 0.1 < entry.queued_s < 10


@pytest.mark.parametrize(
    "headers",
    [{"x-stainless-read-timeout": "1"}, {"x-stainless-timeout": "1"}, {"x-scibox-patience": "0.5"}],
)
async def test_the_clients_own_timeout_bounds_its_patience(headers: dict[str, str]) -> None:
    async with rig(slots=1, patience_s=60) as r:
        busy = await taken(r)
        began = time.monotonic()
        answer = await chat(r, headers=headers)
        spent_s = time.monotonic() - began
        await ended(*busy)

    assert answer.status_code == 429
    assert 0.4 < spent_s < 10


@pytest.mark.parametrize("told", ["soon", "-1", "nan", "inf"])
async def test_a_patience_that_is_none_is_named(told: str) -> None:
    async with rig() as r:
        answer = await chat(r, headers={"x-scibox-patience": told})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "x-scibox-patience"


async def test_who_leaves_the_queue_leaves_it_at_once() -> None:
    async with rig(slots=1) as r:
        busy = await taken(r)
        gone, stays = asyncio.create_task(chat(r)), asyncio.create_task(chat(r))
        await waiting(r, 2)
        await ended(gone)
        async with asyncio.timeout(1):
            while sum(place.position > 0 for place in await r.desk.places("team")) > 1:
                await asyncio.sleep(0.005)
        await ended(*busy)
        answer = await stays
        await r.until_idle()
        entries = list(r.entries)

    assert answer.status_code == 200
    [left] = [entry for entry in entries if entry.owner == "team" and entry.outcome.value == "client_gone"]
    assert (left.deployment, left.attempts, left.usage.prompt_tokens) == (None, 0, 0)


async def test_the_queue_shows_the_owners_calls_and_nobody_elses() -> None:
    async with rig(slots=1) as r:
        busy = await taken(r)
        mine = [asyncio.create_task(chat(r)) for _ in range(2)]
        await waiting(r, 2)
        queue = (await r.client.get("/v1/queue")).json()
        theirs = (await r.client.get("/queue", headers={"authorization": f"Bearer {STRANGER}"})).json()
        no_key = await r.client.get("/v1/queue", headers={"authorization": "Bearer no"})
        await ended(*mine, *busy)

    assert queue["object"] == "list"
    assert [(call["model"], call["status"], call["position"]) for call in queue["data"]] == [
        ("chatty", "waiting", 1),
        ("chatty", "waiting", 2),
    ]
    assert all(call["id"].startswith("req_") for call in queue["data"])
    assert [call["status"] for call in theirs["data"]] == ["running"]
    assert no_key.status_code == 401


async def test_a_model_with_room_is_suggested_to_who_may_use_it() -> None:
    async with rig(slots=1, second=True) as r:
        busy = await taken(r)
        answer = await chat(r, headers={"x-scibox-patience": "0.1"})
        await ended(*busy)
        limited = await chat(r, as_=LIMITED)

    assert "'spare' has room now" in answer.json()["error"]["message"]
    assert limited.status_code == 404


async def test_flex_calls_let_others_go_first() -> None:
    async with rig(slots=1) as r:
        busy = await taken(r)
        flex = asyncio.create_task(chat(r, service_tier="flex"))
        await waiting(r, 1)
        usual = asyncio.create_task(chat(r))
        await waiting(r, 2)
        r.engine.next_scripts.append(Script(first_chunk_delay_s=0.3))
        await ended(*busy)
        await usual
        first = flex.done()
        await flex

    assert not first
    assert flex.result().status_code == 200
