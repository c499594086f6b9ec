"""PROMISES S5: a client may leave at any moment; the model server is told, and what it did is counted (R5)."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from world import IS_LONG, Told, world

from scibox.core.types import Ending

CALLS = 2_000 if IS_LONG else 60
AT_ONCE = 20
WORDS = 400  # with the pause between them an answer would last for a minute
TOLD_WITHIN_S = 10.0  # a second, when nothing else runs on the machine


@pytest.mark.slow
@pytest.mark.timeout(3600 if IS_LONG else 300)
async def test_clients_leave_at_random_points(tmp_path: Path) -> None:
    chance = random.Random(5)
    with world(tmp_path, chunks=["word "] * WORDS, chunk_delay_s=0.15) as place, place.service() as serve:
        room = asyncio.Semaphore(AT_ONCE)

        async def leave() -> None:
            async with room:
                left.append(await place.call(leave_after=chance.randrange(12)))

        left: list[Told] = []
        await asyncio.gather(*(leave() for _ in range(CALLS)))
        serve.until(lambda: len(place.upstream.outcomes()) == CALLS, within_s=TOLD_WITHIN_S)
        serve.until(lambda: serve.get("/admin/v1/status")[1]["calls_in_flight"] == 0, within_s=10)
        [model] = serve.get("/admin/v1/status")[1]["models"]
        assert (model["running"], model["waiting"]) == (0, 0)
        assert serve.stop() == 0
        outcomes = {one.request_id: one for one in place.upstream.outcomes()}
        entries = place.entries()

    assert len(left) == len(entries) == CALLS
    for one in left:
        outcome, entry = outcomes[one.request_id], entries[one.request_id]
        assert not outcome.is_whole
        assert outcome.at - one.ended_at < TOLD_WITHIN_S
        assert entry.outcome is Ending.CLIENT_GONE
        # The gateway has passed on what the client saw, and cannot have seen more than was sent.
        assert one.words <= entry.usage.completion_tokens <= outcome.completion_tokens
        assert one.words <= entry.delivered_tokens <= entry.usage.completion_tokens
