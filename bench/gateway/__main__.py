"""What a gateway in between costs: SciBox beside nginx (the limit), vLLM's router and LiteLLM.

    python bench/gateway [--rounds 3] [--seconds 4] [--only nginx,scibox] [--write docs/benchmarks.md]

Direct access is zero; "bare relay" is the least that a gateway in Python can do (relay.py).
One core for the gateways, of which one at a time works; the other for the mock upstream and the load. nginx is
Debian's (`apt-get install nginx-light`); vLLM's router and LiteLLM are installed from PyPI into environments below
--cache, and left out where that is not possible. SciBox runs as an operator runs it, with everything on: a key
with limits, its owner's and the model's limits, the queue, prices, the journal and the ledger.

CPU is user and system time of the whole process tree of a gateway, from /proc. Rounds go from gateway to gateway,
so that what else the machine does meets all of them; figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import gateways
import load
import report
import tree
import uvloop
from asked import EVENTS, chat, embeddings, stream
from gateways import Gateway, Missing
from model_server import PACE_S

CONNECTIONS = 32
STREAMS = 64
PACED_PER_S = 500
SLOW_PER_S = 10  # of a gateway that cannot do that


class Bench:
    """One gateway and what was measured of it, a figure for each round."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.found: defaultdict[str, list[float]] = defaultdict(list)
        self.is_slow = gateway.name == "LiteLLM"

    async def round(self, seconds: float) -> None:
        """Everything once."""
        own = self.gateway
        await load.closed(own.port, chat(own), CONNECTIONS, min(0.5, seconds))  # warm
        await self._calls("chat", chat(own), seconds)
        await self._paced(seconds)
        await self._streams(seconds)
        await self._calls("embeddings", embeddings(own), seconds / 2)
        if own.pid:
            self.found["memory_mb"].append(tree.memory_mb(own.pid))

    def _cpu_s(self) -> float:
        return tree.cpu_s(self.gateway.pid) if self.gateway.pid else 0.0

    async def _calls(self, what: str, request: Callable[[], bytes], seconds: float) -> None:
        before = self._cpu_s()
        taken = await load.closed(self.gateway.port, request, CONNECTIONS, seconds)
        self.found[f"{what}_us"].append(1e6 * (self._cpu_s() - before) / taken.calls)
        self.found[f"{what}_per_s"].append(taken.calls / taken.seconds)

    async def _paced(self, seconds: float) -> None:
        per_s = SLOW_PER_S if self.is_slow else PACED_PER_S
        taken = await load.paced(self.gateway.port, chat(self.gateway), per_s, seconds)
        self.found["p50_ms"].append(1e3 * quantile(taken.latencies_s, 0.5))
        self.found["p99_ms"].append(1e3 * quantile(taken.latencies_s, 0.99))

    async def _streams(self, seconds: float) -> None:
        count = 4 if self.is_slow else STREAMS
        before = self._cpu_s()
        taken = await load.streams(self.gateway.port, stream(self.gateway), count, EVENTS, seconds, PACE_S)
        self.found["chunk_us"].append(1e6 * (self._cpu_s() - before) / taken.events)
        self.found["first_p50_ms"].append(1e3 * quantile(taken.first_s, 0.5))
        self.found["dropped"].append(taken.missing)


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


async def measure(benches: list[Bench], rounds: int, seconds: float) -> None:
    for number in range(rounds):
        for bench in benches:
            gc.collect()
            try:
                await bench.round(seconds)
            except load.Failed as error:
                print(f"{bench.gateway.name}: {error}", file=sys.stderr)
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", default="nginx,relay,scibox,vllm,litellm")
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench"))
    parser.add_argument("--write", type=Path, help="the page whose table is replaced")
    options = parser.parse_args()
    os.sched_setaffinity(0, {gateways.OTHER_CORE})
    wanted = options.only.split(",")
    cache = options.cache.absolute()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sb-")))
        port = stack.enter_context(gateways.upstream(folder))
        benches = [Bench(Gateway("direct", "", port, 0))]
        starts: dict[str, Callable[[], contextlib.AbstractContextManager[Gateway]]] = {
            "nginx": lambda: gateways.nginx(folder, port),
            "relay": lambda: gateways.relay(folder, port),
            "scibox": lambda: gateways.scibox(folder, port),
            "vllm": lambda: gateways.vllm_router(folder, port, cache),
            "litellm": lambda: gateways.litellm(folder, port, cache),
        }
        for name in wanted:
            try:
                benches.append(Bench(stack.enter_context(starts[name]())))
            except Missing as missing:
                print(f"{name} is left out: {missing}", file=sys.stderr)
        uvloop.run(measure(benches, options.rounds, options.seconds))
        table = report.table([(bench.gateway, _medians(bench)) for bench in benches])
        print(table)
        if options.write:
            report.write(options.write, table)


def _medians(bench: Bench) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in bench.found.items()}


if __name__ == "__main__":
    main()
