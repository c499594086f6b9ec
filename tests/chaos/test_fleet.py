"""Replicas come and go under load, again and again, and no call notices."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from scripted import Upstream, upstream
from world import IS_LONG, Load, World, tell, world

from live import Serve

ROUNDS = 50 if IS_LONG else 4
SCRIPT: dict[str, Any] = {"chunks": ["word "] * 10, "chunk_delay_s": 0.01}


async def ask(serve: Serve, method: str, path: str, body: object = None) -> Any:
    status, answer = await asyncio.to_thread(serve.ask, method, f"/admin/v1/replicas{path}", body)
    assert status == 200, answer
    return answer


async def until_quiet(serve: Serve, replica_id: str) -> None:
    """Until the replica has no call left, as the list tells it, or is not there any more."""
    async with asyncio.timeout(60):
        while True:
            listed = (await ask(serve, "GET", ""))["data"]
            if not sum(one["in_flight"] for one in listed if one["id"] == replica_id):
                return
            await asyncio.sleep(0.02)


async def round_trip(place: World, serve: Serve, second: Upstream) -> None:
    """One more replica, all calls to it, all calls back, and it goes."""
    [first] = [one["id"] for one in (await ask(serve, "GET", ""))["data"] if one["state"] != "leaving"]
    new = await ask(serve, "POST", "", {"model": "m", "url": second.url, "upstream_model": "fake-model"})
    assert (new["state"], new["added"]) == ("ready", True)
    await ask(serve, "PATCH", f"/{first}", {"draining": True})
    await until_quiet(serve, first)
    before = len(place.upstream.outcomes())
    assert (await place.call()).end == "whole"
    assert len(place.upstream.outcomes()) == before  # the drained one has got none
    await ask(serve, "PATCH", f"/{first}", {"draining": False})
    await ask(serve, "PATCH", f"/{new['id']}", {"draining": True})
    await ask(serve, "DELETE", f"/{new['id']}")
    await until_quiet(serve, new["id"])


@pytest.mark.slow
@pytest.mark.timeout(1800 if IS_LONG else 300)
@pytest.mark.parametrize("workers", [1, 2])
async def test_no_call_is_dropped(tmp_path: Path, workers: int) -> None:
    settings = f"[server]\nworkers = {workers}\n"
    with world(tmp_path, settings, **SCRIPT) as place, upstream(tmp_path / "second.log", **SCRIPT) as second:
        with place.service() as serve:
            async with Load(place, 8) as load:
                for _ in range(ROUNDS):
                    await round_trip(place, serve, second)
            assert serve.stop() == 0
        entries = place.entries()
        there = len(second.outcomes())

    tell(f"{len(load.told)} calls during {ROUNDS} rounds, {there} of them at the other replica")
    assert {(one.end, one.words) for one in load.told} == {("whole", 10)}
    assert {one.request_id for one in load.told} <= entries.keys()
    assert there > ROUNDS
