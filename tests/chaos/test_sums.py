"""PROMISES R5: what the model server has counted is what every report says, after calls of all kinds and kills."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest
from scripted import Outcome
from world import IS_LONG, Told, World, tell, world

from live import scibox
from scibox.core.entries import Entry
from scibox.core.types import Ending

LIVES = 30 if IS_LONG else 2  # the service is killed at the end of each
CALLS = 120  # of each life
AT_ONCE = 12
Counted = tuple[int, int, int]
"""Calls, prompt tokens, completion tokens."""


async def mixed(place: World, chance: random.Random) -> list[Told]:
    """Calls of all kinds, some of whose clients leave."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> Told:
        async with room:
            stream = chance.random() < 0.6
            return await place.call(
                stream=stream,
                secret=place.member_secret if number % 2 else None,
                leave_after=chance.randrange(6) if stream and chance.random() < 0.3 else None,
                model=chance.choice(["m", "other"]),
                max_tokens=chance.choice([1, 4, 100]),
                **({"stream_options": {"include_usage": True}} if stream and chance.random() < 0.5 else {}),
            )

    async def embed(number: int) -> None:
        async with room:
            words = " ".join(["text"] * chance.randrange(1, 30))
            texts = [f"{chance.random()} {words}" for _ in range(1 + number % 3)]  # none is remembered
            body = {"model": "v", "input": texts}
            with suppress(HTTPException):  # the service is killed
                await asyncio.to_thread(place.serve.post, "/v1/embeddings", body, place.member_secret)

    embeddings = asyncio.gather(*(embed(number) for number in range(CALLS // 4)))
    told = await asyncio.gather(*(one(number) for number in range(CALLS)))
    await embeddings
    return told


async def until_worked(place: World, calls: int) -> None:
    """Until the model server has ended so many calls and the next ones run."""
    async with asyncio.timeout(60):
        while len(place.upstream.outcomes()) <= calls:
            await asyncio.sleep(0.01)


def of_page(place: World, path: str, secret: str) -> dict[str, Counted]:
    """What a page says, by model."""
    status, page = place.serve.get(f"{path}?bucket_width=all&start_time=0&group_by=model", secret)
    assert status == 200, page
    assert page["is_complete"]
    [bucket] = page["data"]
    return {
        one["model"]: (one["num_model_requests"], one["input_tokens"], one["output_tokens"])
        for one in bucket["results"]
    }


def of_command(place: World) -> dict[str, Counted]:
    arguments = ("--by", "model", "--since", "2000-01-01", "--format", "json")
    told = scibox(place.data, "usage", *arguments, "--config", str(place.config))
    assert told.returncode == 0, told.stderr
    return {
        row["model"]: (row["calls"], row["prompt_tokens"], row["completion_tokens"])
        for row in json.loads(told.stdout)["rows"]
    }


def of_entries(entries: Iterable[Entry]) -> dict[str, Counted]:
    found: dict[str, Counted] = {}
    for one in entries:
        calls, prompt, completion = found.get(one.model, (0, 0, 0))
        usage = one.usage
        found[one.model] = calls + 1, prompt + usage.prompt_tokens, completion + usage.completion_tokens
    return found


def of_upstream(outcomes: Iterable[Outcome]) -> Counted:
    them = list(outcomes)
    return (
        len(them),
        sum(outcome.prompt_tokens for outcome in them),
        sum(outcome.completion_tokens for outcome in them),
    )


@pytest.mark.slow
@pytest.mark.timeout(3600 if IS_LONG else 300)
async def test_every_report_says_what_the_model_server_has_counted(tmp_path: Path) -> None:
    chance = random.Random(3)
    with world(tmp_path, chunks=["word "] * 8, chunk_delay_s=0.02) as place:
        place.configure(place.model("other") + place.model("v", "embedding"))
        for life in range(LIVES):
            with place.service() as serve:
                if life == 0:
                    place.member("team", "--owner", "team")
                load = asyncio.create_task(mixed(place, chance))
                if life < LIVES - 1:
                    await until_worked(place, len(place.upstream.outcomes()) + chance.randrange(CALLS // 2))
                    serve.process.kill()
                    await load
                    await asyncio.to_thread(serve.process.wait)
                else:
                    await load
                    serve.until(lambda: serve.get("/admin/v1/status")[1]["calls_in_flight"] == 0, 20)
                    mine = of_page(place, "/v1/usage", place.member_secret)
                    everyones = of_page(place, "/admin/v1/usage", place.secret)
                    by_command = of_command(place)
                    assert serve.stop() == 0
        entries = place.entries()
        by_id = {outcome.request_id: outcome for outcome in place.upstream.outcomes()}
        assert len(by_id) == len(place.upstream.outcomes())

    tell(f"{Counter(one.outcome.value for one in entries.values())}: {everyones}")
    assert everyones == by_command == of_entries(entries.values())
    assert mine == of_entries(one for one in entries.values() if one.owner == "team")
    assert mine.keys() == {"m", "other", "v"}

    finished = [one for one in entries.values() if one.outcome is Ending.FINISHED]
    rest = [one for one in entries.values() if one.outcome is not Ending.FINISHED]
    assert {one.outcome for one in rest} == {Ending.CLIENT_GONE, Ending.INTERRUPTED}
    assert all(by_id[one.request_id].is_whole for one in finished)
    in_models = [sum(column) for column in zip(*of_entries(finished).values(), strict=True)]
    assert tuple(in_models) == of_upstream(by_id[one.request_id] for one in finished)
    assert by_id.keys() <= entries.keys()
    for one in rest:  # nobody pays for what the model server has not made
        if outcome := by_id.get(one.request_id):
            assert one.usage.completion_tokens <= outcome.completion_tokens
