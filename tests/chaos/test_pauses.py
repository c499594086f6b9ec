"""PROMISES R7: the service is stopped for a while and continued: no call is stuck, no limit opened, no client blamed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from counted import served
from http_raw import GET, GOOD, POST, hear
from world import IS_LONG, Load, World, tell, world

from live import Serve
from rig import rig
from scibox.engines.fake_script import Script
from scibox.http.protocol import Patience

PAUSE_S = 30.0 if IS_LONG else 3.0
WORKERS = pytest.mark.parametrize("workers", [1, 2])


async def pause(serve: Serve) -> None:
    """All processes of the service stand still for a while."""
    group = os.getpgid(serve.process.pid)
    os.killpg(group, signal.SIGSTOP)
    await asyncio.sleep(PAUSE_S)
    os.killpg(group, signal.SIGCONT)


def is_idle(place: World) -> bool:
    _, status = place.serve.get("/admin/v1/status")
    [model] = status["models"]
    return (status["calls_in_flight"], model["running"], model["waiting"]) == (0, 0, 0)


@WORKERS
async def test_calls_go_on(tmp_path: Path, workers: int) -> None:
    """Slots too are taken by none and lost by none: there are more clients than slots."""
    settings = f"[server]\nworkers = {workers}\n"
    with world(tmp_path, settings, chunks=["word "] * 40, chunk_delay_s=0.03) as place:
        text = place.config.read_text()
        place.config.write_text(
            text.replace('kind = "chat"', 'kind = "chat"\nlimits = { calls_in_flight = 8 }')
        )
        with place.service() as serve:
            async with Load(place, 16) as load:
                await asyncio.sleep(1.0)
                await pause(serve)
                resumed_at = time.time()
                await asyncio.sleep(1.5)
            serve.until(lambda: is_idle(place), within_s=20)
            assert serve.stop() == 0
        entries = place.entries()

    assert {(one.end, one.words) for one in load.told} == {("whole", 40)}
    through = [one for one in load.told if one.began_at < resumed_at - PAUSE_S and one.ended_at > resumed_at]
    tell(f"{len(load.told)} calls, {len(through)} of them through a pause of {PAUSE_S:.0f} s")
    assert len(through) >= 8
    assert [one for one in load.told if one.ended_at > resumed_at and one.began_at > resumed_at]
    assert {one.request_id for one in load.told} == entries.keys()


@WORKERS
async def test_limits_are_as_exact_as_ever(tmp_path: Path, workers: int) -> None:
    per_second, at_once = 20, 8
    limits = f"calls_per_second = {per_second}, calls_in_flight = {at_once}"
    async with served(tmp_path, workers, limits, Script(first_chunk_delay_s=0.1)) as one:
        asking = asyncio.create_task(one.ask(400, patience_s=600.0))
        while not one.engine.came:
            await asyncio.sleep(0.01)
        await asyncio.sleep(2.0)
        await pause(one.place.serve)
        resumed_at = time.monotonic()
        await asyncio.sleep(4.0)
        asking.cancel()  # the others leave the queue
        await asyncio.gather(asking, return_exceptions=True)
        again = await one.ask(at_once, patience_s=60.0)
    came = [at for at in one.engine.came if at >= resumed_at]

    assert one.engine.most_within(0.75, after_s=0.75) <= per_second + 1
    assert one.engine.most_at_once == at_once
    assert len(came) >= 0.7 * 3 * per_second  # of the four seconds after the pause
    assert {call.end for call in again} == {"whole"}


async def test_who_was_slow_while_the_service_stood_still_is_not_blamed() -> None:
    """The clients' own slowness, 0.2 s before and 1.3 s after, is within their patience; the pause is not."""
    still_s = 5.0
    async with rig(patience=Patience(header_s=3.0, body_s=3.0, keep_alive_s=3.0)) as r:
        begun = POST + b"content-length: %d\r\n\r\n" % len(GOOD)
        asked = [(GET[:20], GET[20:]), (GET + GET[:5], GET[5:]), (begun + GOOD[:5], GOOD[5:])]
        clients = [await asyncio.open_connection("127.0.0.1", r.port) for _ in asked]
        idle = await asyncio.open_connection("127.0.0.1", r.port)
        for (_, writer), (first, _) in zip(clients, asked, strict=True):
            writer.write(first)
        await asyncio.sleep(1.2)  # a sweep has come by
        time.sleep(still_s)
        await asyncio.sleep(1.3)  # and another one
        for (_, writer), (_, second) in zip(clients, asked, strict=True):
            writer.write(second)
        heard = [await hear(reader, 1.0) for reader, _ in clients]
        late = await hear(idle[0], 10.0)
        for _, writer in (*clients, idle):
            writer.close()

    assert [one.statuses for one in heard] == [[200], [200, 200], [200]]
    assert late.is_closed  # nobody is forgiven for ever
