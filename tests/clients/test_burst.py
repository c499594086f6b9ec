"""A burst of calls over the limit waits for its turn: nobody fails, and no team slows another (PRODUCT, pain 4)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from clients import matrix, runs, venvs
from rig import CHAT, SECRET, STRANGER, Rig, rig
from scibox.core.types import Limits

pytestmark = pytest.mark.real

CALLS = 20
PER_SECOND = 2
LEAST_S = CALLS / PER_SECOND - 1  # the first second's are there at once


async def library(r: Rig, venv: venvs.Venv) -> list[dict[str, Any]]:
    """What each of the `openai` clients of one team was told."""
    env = runs.environment(venv.bin, OPENAI_BASE_URL=f"http://127.0.0.1:{r.port}/v1", OPENAI_API_KEY=SECRET)
    process = await asyncio.create_subprocess_exec(
        str(venv.python),
        str(matrix.file_of("openai_burst.py")),
        str(CALLS),
        env=env,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    return [json.loads(line) for line in output.splitlines()]


async def hand_made(r: Rig) -> list[tuple[int, float]]:
    """Status and seconds of clients of another team that try once."""
    headers = {"authorization": f"Bearer {STRANGER}"}
    began = time.monotonic()

    async def ask(client: httpx.AsyncClient) -> tuple[int, float]:
        answer = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
        return answer.status_code, time.monotonic() - began

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{r.port}", timeout=120) as client:
        return await asyncio.gather(*(ask(client) for _ in range(CALLS)))


async def test_forty_of_forty_succeed_and_neither_team_slows_the_other(
    environment: Callable[[str], venvs.Venv],
) -> None:
    async with rig(owner_limits=Limits(calls_per_second=PER_SECOND)) as r:
        theirs, others = await asyncio.gather(library(r, environment("openai-newest")), hand_made(r))
        starts = {
            owner: sorted(entry.opened_at + entry.queued_s for entry in r.entries if entry.owner == owner)
            for owner in ("team", "others")
        }

    assert [answer for answer in theirs if "failed" in answer] == []
    assert len(theirs) == CALLS
    assert [status for status, _ in others] == [200] * CALLS
    for times in starts.values():
        assert len(times) == CALLS  # each was answered the first time: no 429, no second attempt
        assert all(later - first >= 0.9 for first, later in zip(times, times[PER_SECOND:], strict=False))
        # A team that shares nothing but the model with the other takes the time that its own limit asks for.
        assert LEAST_S - 0.5 <= times[-1] - times[0] <= 2 * LEAST_S
