"""How llama.cpp's threads should wait: decode speed alone and beside a busy process, for each policy.

    python bench/threads.py WEIGHTS.gguf [ROUNDS]

Interleaved: each round measures every policy once, each with its own engine child. Printed are completion
tokens per second (median over the rounds, all streams together).
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from scibox.engines.llama import Settings
from scibox.engines.supervisor import Command, Supervisor

CORES = 2
WINDOW_S = 3.0
POLICIES: dict[str, tuple[dict[str, str], int]] = {  # environment, threads
    "default": ({"GOMP_SPINCOUNT": ""}, CORES),
    "passive": ({"GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "passive"}, CORES),
    "spin 250": ({"GOMP_SPINCOUNT": "250"}, CORES),
    "spin 500": ({"GOMP_SPINCOUNT": "500"}, CORES),
    "spin 1000": ({"GOMP_SPINCOUNT": "1000"}, CORES),
    "spin 2000": ({"GOMP_SPINCOUNT": "2000"}, CORES),
    "one thread": ({"OMP_WAIT_POLICY": "passive"}, 1),
}
BUSY = "while True: pass"


@contextmanager
def busy_process(wanted: bool) -> Iterator[None]:
    """A process that never sleeps, while the block runs."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        try:
            yield
        finally:
            process.kill()


async def read_stream(socket: Path, number: int, arrivals: list[float]) -> None:
    """Note the arrival of every text delta of one endless answer."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    body = msgspec.json.encode(
        {
            "messages": [{"role": "user", "content": f"Count upwards from {number} without an end."}],
            "stream": True,
            "max_tokens": 1500,
            "temperature": 0,
            "ignore_eos": True,
        }
    )
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    try:
        while line := await reader.readline():
            if line.startswith(b'data: {"choices":[{"finish_reason":null'):
                arrivals.append(time.monotonic())
    finally:
        writer.close()


async def tokens_per_s(socket: Path, streams: int) -> float:
    """Deltas per second within a window that begins when every stream has had its prompt computed."""
    arrivals: list[list[float]] = [[] for _ in range(streams)]
    readers = [asyncio.create_task(read_stream(socket, i, arrivals[i])) for i in range(streams)]
    began = time.monotonic()
    while not all(len(times) > 2 for times in arrivals) and time.monotonic() - began < 20.0:
        await asyncio.sleep(0.02)
    start = time.monotonic()
    await asyncio.sleep(WINDOW_S)
    count = sum(time_s >= start for times in arrivals for time_s in times)
    elapsed = time.monotonic() - start
    for task in readers:
        task.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    await asyncio.sleep(0.3)  # the slots become free
    return count / elapsed


async def measure(weights: Path, policy: str, results: dict[tuple[str, bool, int], list[float]]) -> None:
    """One engine child, all four cells."""
    env, threads = POLICIES[policy]
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "engine.sock"
        settings = Settings(str(socket), str(weights), "m", threads=threads, slots=8, context=2048)
        command = Command("scibox.engines.llama", msgspec.json.encode(settings), env)
        supervisor = Supervisor("m", command, socket, report=lambda event: None)
        await supervisor.start()
        try:
            await supervisor.wait_ready()
            for busy in (False, True):
                with busy_process(busy):
                    for streams in (1, 8):
                        speed = await tokens_per_s(socket, streams)
                        results[policy, busy, streams].append(speed)
        finally:
            await supervisor.stop()


async def main() -> None:
    """Measure and print a table."""
    weights, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    results: dict[tuple[str, bool, int], list[float]] = defaultdict(list)
    for _ in range(rounds):
        for policy in POLICIES:
            await measure(weights, policy, results)
    print("policy       idle 1   idle 8   busy 1   busy 8   completion tokens/s")
    for policy in POLICIES:
        cells = [statistics.median(results[policy, busy, n]) for busy in (False, True) for n in (1, 8)]
        print(f"{policy:11}" + "".join(f"{cell:9.1f}" for cell in cells))


if __name__ == "__main__":
    asyncio.run(main())
