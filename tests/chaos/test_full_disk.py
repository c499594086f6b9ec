"""PROMISES R7: the disk is full: what cannot be recorded is refused in plain words, nothing is half, and it heals."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from world import IS_LONG, Load, tell, world

from scibox.core.types import Ending
from scibox.ledger.journal import MOST_WAITING

ROOM_BYTES = 16 * 1024  # some dozens of calls
CLIENTS = 16
REFUSED = (503, "storage_unavailable")
# In strict mode no call goes unrecorded; else so many wait in memory first that it takes a minute.
STRICT = [True, False] if IS_LONG else [True]


async def until(load: Load, *, refused: bool, within_s: float) -> None:
    """Until new calls are refused, or are answered again."""
    async with asyncio.timeout(within_s):
        while True:
            seen = len(load.told)
            await asyncio.sleep(0.2)
            last = load.told[seen:]
            if last and all((one.end == "refused") == refused for one in last):
                return


@pytest.mark.slow
@pytest.mark.timeout(1200 if IS_LONG else 300)
@pytest.mark.parametrize("strict", STRICT)
async def test_calls_are_refused_after_the_bound_and_answered_again(tmp_path: Path, strict: bool) -> None:
    settings = f"[ledger]\nstrict = {str(strict).lower()}\n"
    with world(tmp_path, settings, chunks=["word "] * 4) as place:
        with place.service() as serve:
            async with Load(place, CLIENTS) as load:
                await asyncio.sleep(0.3)
                before = len(load.told)
                with place.full(ROOM_BYTES):
                    await until(load, refused=True, within_s=60 if strict else 600)
                    in_vain = len(load.ended("whole")) - before
                    await asyncio.sleep(1.0)
                    parts = {one["part"] for one in serve.get("/admin/v1/status")[1]["broken"]}
                await until(load, refused=False, within_s=30)
                await asyncio.sleep(0.5)
            assert serve.stop() == 0
        entries = place.entries()

    tell(f"{in_vain} calls were answered on a full disk before the first was refused")
    assert in_vain <= 1_000 if strict else in_vain >= MOST_WAITING // 3
    assert "journal" in parts
    refused = load.ended("refused")
    assert {(one.status, one.code) for one in refused} == {REFUSED}
    assert all(int(one.headers["retry-after"]) > 0 for one in refused)
    assert {one.code for one in load.ended("error")} <= {"storage_unavailable"}
    assert not load.ended("cut", "no answer")
    whole = {one.request_id for one in load.ended("whole")}
    assert {entries[one].outcome for one in whole} == {Ending.FINISHED}
    worked_on = {outcome.request_id for outcome in place.upstream.outcomes()}
    assert worked_on <= entries.keys()
    ran = [one for one in refused if one.request_id in worked_on]  # when there was room no more
    assert len(ran) <= CLIENTS < len(refused)
