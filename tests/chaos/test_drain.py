"""PROMISES R2: told to stop, the service finishes what runs and refuses what comes."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from world import IS_LONG, Told, World, tell, world

STREAMS = 2_000 if IS_LONG else 200
WORDS = 150 if IS_LONG else 40  # 30 s: opening two thousand takes a while


async def open_streams(place: World, count: int) -> list[asyncio.Task[Told]]:
    """So many streams, all of which have begun."""
    streams = [asyncio.create_task(place.call()) for _ in range(count)]
    async with asyncio.timeout(60):
        while _status(place)["calls_in_flight"] < count:
            await asyncio.sleep(0.1)
    return streams


def _status(place: World) -> dict[str, int]:
    status, body = place.serve.get("/admin/v1/status")
    assert status == 200
    return dict(body)


@pytest.mark.slow
async def test_streams_finish_and_new_calls_are_refused(tmp_path: Path) -> None:
    script: dict[str, Any] = {"chunks": ["word "] * WORDS, "chunk_delay_s": 0.2}
    # All of them run: none waits for a slot. A slow machine needs a while to open and to send them.
    settings = "[server]\ndrain_s = 200\n[gate]\nupstream_slots = 1000\n"
    with world(tmp_path, settings, **script) as place:
        model = place.model("m")
        place.config.write_text(f"{settings}{model}{model[model.index('[[') :]}")  # two replicas
        await drain(place)


async def drain(place: World) -> None:
    with place.service() as serve:
        streams = await open_streams(place, STREAMS)
        serve.process.send_signal(signal.SIGTERM)
        serve.until_said("Finishing")
        ready, why = serve.get("/ready")
        alive, _ = serve.get("/health")
        refused = await place.call()
        told = await asyncio.gather(*streams)
        status = await asyncio.to_thread(serve.process.wait, 30)

    assert status == 0
    assert (ready, why["reasons"]) == (503, ["The service is stopping."])
    assert alive == 200
    assert (refused.status, refused.code) == (503, "draining")
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["connection"] == "close"
    whole = [one for one in told if one.end == "whole" and one.words == WORDS]
    tell(f"{len(whole)} of {STREAMS} streams ended whole")
    assert len(whole) >= 0.999 * STREAMS


@pytest.mark.parametrize("ends_by", ["grace", "second signal"])
async def test_what_outlives_the_grace_gets_an_error_event(tmp_path: Path, ends_by: str) -> None:
    grace_s = 0.5 if ends_by == "grace" else 60.0
    with (
        world(
            tmp_path, f"[server]\ndrain_s = {grace_s}\n", chunks=["word "] * 1000, chunk_delay_s=0.1
        ) as place,
        place.service() as serve,
    ):
        streams = await open_streams(place, 10)
        serve.process.send_signal(signal.SIGTERM)
        serve.until_said("Finishing")
        if ends_by == "second signal":
            serve.process.send_signal(signal.SIGTERM)
        told = await asyncio.gather(*streams)
        status = await asyncio.to_thread(serve.process.wait, 30)

    assert status == 0
    assert {(one.end, one.code) for one in told} == {("error", "draining")}
    assert all(one.words for one in told)
    assert max(one.ended_at for one in told) - time.time() < 30
