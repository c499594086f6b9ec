"""What a call and a chunk cost, as a ratio to the least that Python can do (bench/gateway); and idle streams (S3)."""

import asyncio
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "bench" / "gateway"))

import asked
import gateways
import load
import tree
from gateways import Gateway

IS_LONG = os.environ.get("SCIBOX_TEST_LONG") == "1"
# Of processor time, measured side by side: about half of what these bounds are. They are there to catch a layer
# that somebody puts between a call and its replica; bench/gateway has the figures.
MOST_PER_CALL = 25.0
MOST_PER_CHUNK = 6.0
STREAMS = 10_000 if IS_LONG else 500
PACE_S = 15.0 if IS_LONG else 2.0
EVENTS = 4
MOST_KIB_PER_STREAM = 100


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Gateway, Gateway]]:
    """A bare relay and SciBox before the same upstream."""
    with (
        gateways.upstream(tmp_path) as port,
        gateways.relay(tmp_path, port) as relay,
        gateways.scibox(tmp_path, port) as scibox,
    ):
        yield relay, scibox


async def _us_per_call(gateway: Gateway) -> float:
    before = tree.cpu_s(gateway.pid)
    taken = await load.closed(gateway.port, asked.chat(gateway), 16, 1.0)
    return 1e6 * (tree.cpu_s(gateway.pid) - before) / taken.calls


async def _us_per_chunk(gateway: Gateway) -> float:
    before = tree.cpu_s(gateway.pid)
    taken = await load.streams(gateway.port, asked.stream(gateway, 150), 32, 150, 0.0, 0.01)
    assert taken.missing == 0
    assert taken.events >= 32 * 150
    return 1e6 * (tree.cpu_s(gateway.pid) - before) / taken.events


async def test_a_call_and_a_chunk_cost_a_bounded_multiple_of_the_least(both: tuple[Gateway, Gateway]) -> None:
    for gateway in both:
        await load.closed(gateway.port, asked.chat(gateway), 16, 0.5)  # warm
    calls, chunks = [], []
    for _ in range(3):
        least, own = [await _us_per_call(gateway) for gateway in both]
        calls.append(own / least)
        least, own = [await _us_per_chunk(gateway) for gateway in both]
        chunks.append(own / least)

    sys.stdout.write(f"per call {sorted(calls)}, per chunk {sorted(chunks)} of a bare relay's\n")
    assert min(calls) < MOST_PER_CALL
    assert min(chunks) < MOST_PER_CHUNK


async def _most_mb(gateway: Gateway, into: list[float]) -> None:
    while True:
        into.append(await asyncio.to_thread(tree.memory_mb, gateway.pid))
        await asyncio.sleep(0.5)


async def test_idle_streams_are_all_answered_and_take_little_memory(tmp_path: Path) -> None:
    """Two descriptors each in the gateway; where the limit of descriptors is lower, as many as it allows."""
    count = min(STREAMS, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200) // 2)
    with gateways.upstream(tmp_path, PACE_S) as port, gateways.scibox(tmp_path, port, slots=count) as scibox:
        await load.closed(scibox.port, asked.chat(scibox), 16, 0.5)
        seen_mb = [tree.memory_mb(scibox.pid)]
        looking = asyncio.create_task(_most_mb(scibox, seen_mb))
        taken = await load.streams(scibox.port, asked.stream(scibox, EVENTS), count, EVENTS, 0.0, PACE_S)
        looking.cancel()

    each_kib = (max(seen_mb) - seen_mb[0]) * 1e6 / 1024 / count
    sys.stdout.write(f"{count} streams, {each_kib:.1f} KiB each, {seen_mb[0]:.0f} MB before\n")
    assert taken.calls == count
    assert taken.missing == 0
    assert each_kib < MOST_KIB_PER_STREAM
