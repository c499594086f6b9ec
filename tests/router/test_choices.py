"""Several calls answered as one: numbering, accounting, errors, back-pressure and cancelling."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from scibox.core.errors import SciBoxError, UpstreamBroken
from scibox.core.types import Call, Chunk, Usage
from scibox.router.choices import AHEAD, AT_ONCE, merged
from scibox.wire import chat, sse
from scibox.wire.orders import split


def calls(count: int, **fields: Any) -> tuple[Call, ...]:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "n": count, "seed": 0, **fields}
    return split(chat.parse("r", json.dumps(body).encode()))


def event(text: str | None, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return sse.render(json.dumps({"id": "x", "choices": [choice]}).encode())


class Replica:
    """Answers each call with two words that hold its seed; `fails_at` is the seed of one that fails."""

    def __init__(self, fails_at: int | None = None, fails_late: bool = False) -> None:
        self.fails_at = fails_at
        self.fails_late = fails_late
        self.running = 0
        self.most = 0
        self.sent = 0
        self.ended: list[str] = []

    async def answer(self, call: Call) -> AsyncGenerator[Chunk, None]:
        seed = call.fields["seed"].decode()
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            is_bad = seed == str(self.fails_at)
            if is_bad and not self.fails_late:
                raise UpstreamBroken("It broke.")
            if not call.stream:
                message = {"index": 0, "message": {"content": seed}, "finish_reason": "stop"}
                yield Chunk(json.dumps({"id": seed, "choices": [message]}).encode(), Usage(5, 2))
                return
            for word in (seed, seed):
                yield Chunk(event(word))
                self.sent += 1
                if is_bad:
                    raise UpstreamBroken("It broke.")
            yield Chunk(event(None, "stop"))
            yield Chunk(b"", Usage(5, 2))
            yield Chunk(sse.DONE)
            self.ended.append(seed)
        finally:
            self.running -= 1


async def test_a_whole_answer_has_all_choices_and_counts_them() -> None:
    replica = Replica()
    [chunk] = [chunk async for chunk in merged(calls(6), replica.answer)]

    answer = json.loads(chunk.data)
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert [choice["message"]["content"] for choice in answer["choices"]] == list("012345")
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 12, "total_tokens": 17}
    assert chunk.usage == Usage(5, 12)
    assert replica.most == AT_ONCE


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_stream_has_all_choices_one_usage_and_one_end(wanted: bool) -> None:
    replica = Replica()
    asked = calls(6, stream=True, stream_options={"include_usage": wanted})
    chunks = [chunk async for chunk in merged(asked, replica.answer)]

    *events, done = [chunk.data for chunk in chunks if chunk.data]
    assert done == sse.DONE
    told = [json.loads(event[6:]) for event in events]
    if wanted:
        assert told.pop()["usage"]["completion_tokens"] == 12
    assert not any("usage" in chunk for chunk in told)
    for index in range(6):
        own = [chunk["choices"][0] for chunk in told if chunk["choices"][0]["index"] == index]
        assert "".join(choice["delta"].get("content", "") for choice in own) == str(index) * 2
        assert [choice["finish_reason"] for choice in own] == [None, None, "stop"]
    assert [chunk.usage for chunk in chunks if chunk.usage][-1] == Usage(5, 12)
    assert replica.most == AT_ONCE


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("late", [True, False])
async def test_the_first_error_ends_all_of_them(stream: bool, late: bool) -> None:
    replica = Replica(fails_at=1, fails_late=late and stream)

    with pytest.raises(UpstreamBroken, match="It broke"):
        [chunk async for chunk in merged(calls(6, stream=stream), replica.answer)]

    assert replica.running == 0


async def test_nothing_is_left_running_when_the_reader_leaves() -> None:
    replica = Replica()

    async with aclosing(merged(calls(6, stream=True), replica.answer)) as chunks:
        await anext(chunks)
        assert replica.running == AT_ONCE

    assert replica.running == 0
    assert len(replica.ended) < 6


async def test_a_slow_reader_holds_the_answers_back() -> None:
    replica = Replica()

    async with aclosing(merged(calls(6, stream=True), replica.answer)) as chunks:
        await anext(chunks)
        for _ in range(50):
            await asyncio.sleep(0)

        assert replica.sent <= AHEAD + 1


async def test_what_is_finished_counts_also_when_the_rest_fails() -> None:
    replica = Replica(fails_at=5)
    seen: list[Usage] = []

    async def read() -> None:
        async for chunk in merged(calls(6, stream=True), replica.answer):
            if chunk.usage:
                seen.append(chunk.usage)

    with pytest.raises(SciBoxError):
        await read()

    assert seen[-1].completion_tokens >= 2
