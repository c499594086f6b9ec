"""PROMISES R1: what was answered is recorded, once, though the service is killed at random moments under load."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from world import IS_LONG, Load, Told, World, world

from scibox.core.types import Ending

KILLS = 200 if IS_LONG else 5
CLIENTS = 16


@pytest.mark.slow
@pytest.mark.timeout(3600 if IS_LONG else 300)
@pytest.mark.parametrize("strict", [False, True], ids=["usual", "strict"])
async def test_killed_under_load_nothing_is_missing_and_nothing_doubled(tmp_path: Path, strict: bool) -> None:
    chance = random.Random(11)
    settings = f"[ledger]\nstrict = {str(strict).lower()}\n"
    with world(tmp_path, settings, chunks=["word "] * 8, chunk_delay_s=0.01) as place:
        told: list[Told] = []
        for _ in range(KILLS):
            with place.service() as serve:
                async with Load(place, CLIENTS, seed=chance.randrange(10**6)) as load:
                    await asyncio.sleep(chance.uniform(0.3, 1.5))
                    serve.process.kill()
                    await asyncio.to_thread(serve.process.wait)
                told += load.told
        check(place, told)
        ends = Counter(one.end for one in told)
        assert ends["whole"] > CLIENTS * KILLS
        assert ends["cut"] + ends["no answer"] > 0  # the kills were felt


def check(place: World, told: list[Told]) -> None:
    """The three logs and the ledger agree."""
    entries = place.entries()
    outcomes = {outcome.request_id: outcome for outcome in place.upstream.outcomes()}
    answered = [one for one in told if one.end == "whole"]

    missing = [one for one in told if one.request_id and one.request_id not in entries]
    assert missing == []
    for one in answered:
        entry = entries[one.request_id]
        assert entry.outcome is Ending.FINISHED
        assert entry.usage.completion_tokens == entry.delivered_tokens == one.words == 8
        assert one.usage in {None, (entry.usage.prompt_tokens, entry.usage.completion_tokens)}
    # What the model server has worked on is there too, whatever became of its client.
    assert [outcome for outcome in outcomes.values() if outcome.request_id not in entries] == []
    for entry in entries.values():
        if entry.outcome is Ending.FINISHED:
            outcome = outcomes[entry.request_id]
            assert outcome.is_whole
            assert entry.usage.prompt_tokens == outcome.prompt_tokens
            assert entry.usage.completion_tokens == outcome.completion_tokens
