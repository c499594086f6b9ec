"""What more workers bring, and what asking the main process's desk costs: 1, 2 and 4 of them side by side.

    python bench/workers.py [--seconds 6] [--rounds 2] [--connections 32]

Each service stands before a fake engine that answers at once; a client of this process keeps so many
connections busy. The figures of a machine with few cores say little about throughput, since the client and
the engine need some of them too: look at the processor time of each process per call. Latency is measured with
one connection, so that nothing waits but what the call itself needs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from service import Service, running

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
WORKERS = (1, 2, 4)
CONFIG = (
    '[server]\nworkers = {workers}\n[models.m]\nkind = "chat"\n[[models.m.deployments]]\nengine = "fake"\n'
)
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1})


class Client:
    """One kept connection."""

    def __init__(self, service: Service) -> None:
        self._port = int(service.base_url.rpartition(":")[2])
        self._request = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {service.secret}\r\n"
            f"content-length: {len(BODY)}\r\n\r\n{BODY}"
        ).encode()

    async def run(self, until: float, into: list[float]) -> None:
        """Call again and again; the seconds of each call."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while (began := time.perf_counter()) < until:
                writer.write(self._request)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                into.append(time.perf_counter() - began)
        finally:
            writer.close()


def _children(pid: int) -> dict[int, str]:
    """Processes that a process has started, and the last word of what they run."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found[int(stat.parent.name)] = (stat.parent / "cmdline").read_text().split("\0")[-2]
    return found


def _cpu_s(pids: list[int]) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(own[11]) + int(own[12]) for own in fields) / TICKS_PER_S


def _private_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    [kib] = [int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")]
    return kib / 1024


class Bench:
    """One of the services."""

    def __init__(self, workers: int, service: Service) -> None:
        self.workers = workers
        self._service = service
        self._pids = [pid for pid, what in _children(service.pid).items() if what == "scibox.worker"]
        self.calls_per_s: list[float] = []
        self.latencies_s: list[float] = []
        self.main_s = self.workers_s = 0.0
        self.calls = 0

    async def load(self, seconds: float, connections: int) -> None:
        taken: list[float] = []
        before = _cpu_s([self._service.pid]), _cpu_s(self._pids)
        began = time.perf_counter()
        clients = [Client(self._service) for _ in range(connections)]
        await asyncio.gather(*(client.run(began + seconds, taken) for client in clients))
        took_s = time.perf_counter() - began
        self.main_s += _cpu_s([self._service.pid]) - before[0]
        self.workers_s += _cpu_s(self._pids) - before[1]
        self.calls += len(taken)
        self.calls_per_s.append(len(taken) / took_s)

    async def alone(self, seconds: float) -> None:
        await Client(self._service).run(time.perf_counter() + seconds, self.latencies_s)

    def row(self) -> str:
        main_us, workers_us = (1e6 * own / self.calls for own in (self.main_s, self.workers_s))
        median_ms = 1e3 * statistics.median(self.latencies_s)
        memory = f"{statistics.mean(map(_private_mib, self._pids)):7.1f}" if self._pids else "      -"
        return (
            f"{self.workers:7} {statistics.median(self.calls_per_s):9.0f} {main_us:10.0f} {workers_us:12.0f}"
            f" {median_ms:10.2f} {memory:>12}"
        )


@contextlib.contextmanager
def services(folder: Path) -> Iterator[list[Bench]]:
    with contextlib.ExitStack() as stack:
        found = []
        for workers in WORKERS:
            config = folder / f"{workers}.toml"
            config.write_text(CONFIG.format(workers=workers))
            service = stack.enter_context(running(folder / str(workers), "--config", str(config)))
            stack.enter_context(_until_ready(service))
            found.append(Bench(workers, service))
        yield found


@contextlib.contextmanager
def _until_ready(service: Service) -> Iterator[None]:
    while "Ready" not in service.log.read_text():
        time.sleep(0.05)
    yield


async def measure(benches: list[Bench], options: argparse.Namespace) -> None:
    for _ in range(options.rounds):
        for bench in benches:
            await bench.alone(options.seconds / 2)
            await bench.load(options.seconds, options.connections)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, services(Path(folder)) as benches:
        uvloop.run(measure(benches, options))
        print(f"{os.cpu_count()} cores, {options.connections} connections")
        print("workers   calls/s  main µs/c workers µs/c  latency ms  MiB/worker")
        for bench in benches:
            print(bench.row())


if __name__ == "__main__":
    main()
