"""A replica dies in the middle of a stream, at any byte and in any way: the answer goes on, or ends in one error (PROMISES S1)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, get_args

import pytest
from continuing import PROMPT_TOKENS, TEXT, WORDS, Continuing, How
from world import IS_LONG

from rig import CHAT, Rig, rig
from scibox.core.errors import SciBoxError, UpstreamBroken, UpstreamTimeout
from scibox.core.types import Call, Ending, ModelCard, Usage
from scibox.router.replica import Deployment, Replica, Route
from scibox.router.router import Deadlines, Router
from scibox.upstream.address import Address
from scibox.upstream.client import Client
from scibox.wire import chat
from scibox.wire.completions.face import Completions

HOWS = get_args(How)
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Tell"}], "stream": True}
STRICT = {**ASKED, "stream_options": {"include_usage": True}}
SAID = b"".join(Continuing().events(ASKED))
COMMENT = b": resumed on another replica\n\n"
# At every byte it takes ten minutes; three positions in each event find what depends on where it breaks.
EVENTS = [event + b"\n\n" for event in SAID.split(b"\n\n")[:-1]]
STARTS = [sum(map(len, EVENTS[:index])) for index in range(len(EVENTS))]
SOME = sorted(
    {at for start in STARTS for at in (start, start + 1, start + 70) if at < len(SAID)} | {len(SAID) - 1}
)
POSITIONS = list(range(len(SAID))) if IS_LONG else SOME


def at(server: Continuing, **more: Any) -> Replica:
    return Replica(Address.parse(f"{server.address}/v1"), "fake-model", **{"dialect": "vllm", **more})


def in_turn(*servers: Continuing, resumes: bool = True, **more: Any) -> Route:
    """Each in a deployment of its own: the first is asked first."""
    deployments = tuple(Deployment((at(server, **more),)) for server in servers)
    return Route(ModelCard("m", "chat", "scibox", 1, 8192), deployments, resumes=resumes)


def call(**more: Any) -> Call:
    return chat.parse("req_1", json.dumps(STRICT | more).encode())


@asynccontextmanager
async def router(next_chunk_s: float = 5.0) -> AsyncIterator[Router]:
    client = Client(1.0)
    try:
        yield Router(client, Deadlines(5.0, next_chunk_s, 20.0), luck=lambda: 0.0)
    finally:
        client.close()


class Told:
    """What one stream was."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.comments: list[bytes] = []
        self.usage: Usage | None = None
        self.is_done = False
        self.error: SciBoxError | None = None

    @property
    def text(self) -> str:
        choices = [one for event in self.events for one in event["choices"]]
        return "".join(one.get("text") or one.get("delta", {}).get("content") or "" for one in choices)


async def told(r: Router, asked: Call, way: Route) -> Told:
    found = Told()
    try:
        async with aclosing(r.stream(asked, way)) as chunks:
            async for chunk in chunks:
                assert not found.is_done
                found.usage = chunk.usage or found.usage
                if chunk.data.startswith(b":"):
                    found.comments.append(chunk.data)
                elif chunk.data == b"data: [DONE]\n\n":
                    found.is_done = True
                elif chunk.data:
                    assert chunk.data.startswith(b"data: {")
                    assert chunk.data.endswith(b"}\n\n")
                    found.events.append(json.loads(chunk.data[6:]))
    except SciBoxError as error:
        found.error = error
    return found


def assert_undisturbed(found: Told) -> None:
    """One answer: its text, one id, one role, one end, one usage."""
    assert found.error is None
    assert found.is_done
    assert found.text == TEXT
    assert len({(event["id"], event["created"]) for event in found.events}) == 1
    choices = [one for event in found.events for one in event["choices"]]
    assert sum("role" in one.get("delta", {}) for one in choices) <= 1
    assert [one["finish_reason"] for one in choices if one["finish_reason"]] == ["stop"]
    assert found.usage == Usage(PROMPT_TOKENS, len(WORDS))
    assert sum(1 for event in found.events if event.get("usage")) == 1


@pytest.mark.timeout(3600 if IS_LONG else 300)
@pytest.mark.parametrize("how", HOWS)
async def test_wherever_a_stream_breaks_off_it_goes_on_as_if_nothing_had_been(how: How) -> None:
    # Silence costs its deadline each time; before the first event that is the one for the first chunk.
    positions = POSITIONS if how != "stall" else [at for at in POSITIONS[::4] if at >= len(EVENTS[0])]
    async with router(0.3 if how == "stall" else 5.0) as r:
        for position in positions:
            async with Continuing(how, position) as dying, Continuing(number=1) as other:
                found = await told(r, call(), in_turn(dying, other))

                assert_undisturbed(found)
                # Before the first event it is a retry, which says nothing; an RST may overtake what was sent.
                has_begun = position >= len(EVENTS[0])
                assert found.comments == ([COMMENT] if has_begun else []) or how == "reset"
                assert len(other.asked) == 1


async def test_older_completions_go_on_everywhere() -> None:
    body = {"model": "m", "prompt": "Tell:", "stream": True, "max_tokens": 50}
    asked = Completions().parse("req_1", json.dumps(body).encode()).call
    whole = b"".join(Continuing().events(body))
    async with router() as r:
        for position in range(0, len(whole), 1 if IS_LONG else 97):
            async with Continuing("close", position) as dying, Continuing(number=1) as other:
                found = await told(r, asked, in_turn(dying, other, dialect="openai"))

                assert (found.text, found.is_done, found.error) == (TEXT, True, None)


@pytest.mark.parametrize("limit", range(1, len(WORDS) + 1))
async def test_a_limited_answer_has_its_length_wherever_it_breaks_off(limit: int) -> None:
    asked = call(max_tokens=limit)
    said = Continuing().events(json.loads(json.dumps(STRICT)) | {"max_tokens": limit})
    async with router() as r:
        for events in range(1, len(said)):
            position = sum(map(len, said[:events]))
            async with Continuing("close", position) as dying, Continuing(number=1) as other:
                found = await told(r, asked, in_turn(dying, other))

                assert found.text == "".join(WORDS[:limit])
                assert found.is_done
                assert found.usage == Usage(PROMPT_TOKENS, limit)


async def test_a_stream_breaks_off_thrice_and_goes_on() -> None:
    async with AsyncExitStack() as stack:
        servers = [Continuing("close", STARTS[2] + 7, number=number) for number in range(3)]
        servers.append(Continuing(number=3))
        for server in servers:
            await stack.enter_async_context(server)
        r = await stack.enter_async_context(router())
        found = await told(r, call(), in_turn(*servers))

        assert_undisturbed(found)
        assert found.comments == [COMMENT] * 3
        assert [len(server.asked) for server in servers] == [1, 1, 1, 1]


async def test_a_call_that_takes_every_server_with_it_gets_no_more_than_four() -> None:
    async with AsyncExitStack() as stack:
        servers = [Continuing("close", STARTS[2] + 7, number=number) for number in range(6)]
        for server in servers:
            await stack.enter_async_context(server)
        r = await stack.enter_async_context(router())
        found = await told(r, call(), in_turn(*servers))

        assert isinstance(found.error, UpstreamBroken)
        assert not found.is_done
        assert sum(len(server.asked) for server in servers) == 4


async def test_one_address_may_be_many_servers() -> None:
    async with Continuing("close", STARTS[5]) as lone, router() as r:
        found = await told(r, call(), in_turn(lone))

        assert_undisturbed(found)
        assert found.comments == [b": resumed on the same replica\n\n"]


async def test_the_same_deployment_is_preferred() -> None:
    async with AsyncExitStack() as stack:
        one, equal, other = [
            await stack.enter_async_context(server)
            for server in (Continuing("close", STARTS[5]), Continuing("close", STARTS[5]), Continuing())
        ]
        r = await stack.enter_async_context(router())
        deployments = (Deployment((at(one), at(equal))), Deployment((at(other),)))
        await told(r, call(), Route(ModelCard("m", "chat", "scibox", 1), deployments))

        assert (len(one.asked), len(equal.asked)) == (1, 1)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    ("more", "replica", "resumes"),
    [
        ({}, {"dialect": "openai"}, True),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, {}, True),
        ({"response_format": {"type": "json_object"}}, {}, True),
        ({"logprobs": True}, {}, True),
        ({}, {"thinking": "opened"}, True),
        ({}, {}, False),
    ],
)
async def test_what_cannot_go_on_ends_in_one_error(
    how: How, more: dict[str, Any], replica: dict[str, Any], resumes: bool
) -> None:
    async with router(0.3) as r, Continuing(how, STARTS[4] + 5) as dying, Continuing() as other:
        way = in_turn(dying, other, resumes=resumes, **replica)
        found = await told(r, call(**more), way)

        assert not found.is_done
        assert isinstance(found.error, UpstreamTimeout if how == "stall" else UpstreamBroken)
        assert TEXT.startswith(found.text)
        assert not any(one["finish_reason"] for event in found.events for one in event["choices"])
        assert [request for request in other.asked if "continue_final_message" in request] == []


async def test_the_deadline_of_the_whole_call_holds_over_all_of_it() -> None:
    async with Continuing("stall", STARTS[4]) as dying, Continuing("stall", 0) as other, router(0.2) as r:
        r.deadlines = Deadlines(60.0, 0.2, 1.0)
        found = await told(r, call(), in_turn(dying, other))

        assert isinstance(found.error, UpstreamTimeout)
        assert TEXT.startswith(found.text)


@asynccontextmanager
async def gateway(how: How, position: int) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        dying = await stack.enter_async_context(Continuing(how, position))
        other = await stack.enter_async_context(Continuing(number=1))
        deadlines = Deadlines(5.0, 0.3, 20.0)
        yield await stack.enter_async_context(rig(deadlines=deadlines, more=[in_turn(dying, other)]))


@pytest.mark.parametrize("how", ["reset", "utf-8", "stall"])
async def test_a_client_sees_one_answer_and_the_ledger_one_entry(how: How) -> None:
    async with gateway(how, STARTS[6] + 9) as r:
        answer = await r.client.post("/v1/chat/completions", json=STRICT)
        *lines, last = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        chunks = [json.loads(line) for line in lines]
        await r.until_idle()

        assert last == "[DONE]"
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        assert "".join(choice["delta"].get("content", "") for choice in choices) == TEXT
        assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
        assert len({chunk["id"] for chunk in chunks}) == 1
        usage = chunks[-1]["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (PROMPT_TOKENS, len(WORDS))
        [entry] = r.entries
        assert (entry.outcome, entry.attempts) == (Ending.FINISHED, 2)
        assert entry.usage == Usage(PROMPT_TOKENS, len(WORDS))
        assert entry.delivered_tokens == len(WORDS)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/completions"])
async def test_every_api_that_streams_goes_on(path: str) -> None:
    body: dict[str, Any] = {"model": "m", "stream": True, "max_tokens": 50}
    body |= {"/v1/responses": {"input": "Tell"}, "/v1/completions": {"prompt": "Tell:"}}.get(
        path, {"messages": CHAT["messages"]}
    )
    if path == "/v1/responses":
        body["max_output_tokens"] = body.pop("max_tokens")
    async with gateway("close", STARTS[6] + 9) as r:
        answer = await r.client.post(path, json=body)
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        await r.until_idle()

        assert ": resumed on another replica" in answer.text
        texts = {
            "/v1/responses": [e["delta"] for e in events if e.get("type") == "response.output_text.delta"],
            "/v1/messages": [
                e["delta"].get("text", "") for e in events if e.get("type") == "content_block_delta"
            ],
            "/v1/completions": [c["text"] for e in events for c in e.get("choices", ())],
        }[path]
        assert "".join(texts) == TEXT
        ends = {
            "/v1/responses": "response.completed",
            "/v1/messages": "message_stop",
            "/v1/completions": "[DONE]",
        }
        assert ends[path] in answer.text
        assert r.entries[0].outcome is Ending.FINISHED


async def test_a_client_that_leaves_while_it_is_resumed_is_recorded_as_gone() -> None:
    async with AsyncExitStack() as stack:
        dying = await stack.enter_async_context(Continuing("close", STARTS[6]))
        other = await stack.enter_async_context(Continuing("stall", 0))
        r = await stack.enter_async_context(rig(more=[in_turn(dying, other)]))
        async with r.client.stream("POST", "/v1/chat/completions", json=ASKED) as answer:
            async for line in answer.aiter_lines():
                if "time" in line:
                    break
            while not other.asked:
                await asyncio.sleep(0.005)
        await r.until_idle()

        [entry] = r.entries
        assert entry.outcome is Ending.CLIENT_GONE
        assert entry.attempts == 2
