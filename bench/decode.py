"""Decoding through the whole service against the bare engine on its socket: same process, same weights.

    python bench/decode.py --data FOLDER [--rounds 5] [--streams 1,8,32]

Rounds alternate between the two ways, so that a slow moment of the machine hits both. Prints, for each number
of concurrent streams, LLM tokens per second in all and the median time to the first token, with the ratio of
the service to the engine round by round (minimum, median, maximum).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from scibox.upstream.address import Address
from scibox.upstream.client import Client
from service import Service, resident_mb, running

MODEL = "smollm2-135m-instruct"
TOKENS = 64


@dataclass(frozen=True)
class Way:
    """One way to the engine."""

    name: str
    address: Address
    secret: str | None


@dataclass(frozen=True)
class Round:
    """What one round measured."""

    tokens_per_s: float
    first_s: float


async def stream(client: Client, way: Way) -> tuple[float, int]:
    """One answer: seconds to its first content, and LLM tokens of it."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"{secrets.token_hex(4)}: tell a long story about a fox."}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    exchange = client.exchange(
        way.address,
        "POST",
        f"{way.address.prefix}/chat/completions",
        body=json.dumps(body).encode(),
        secret=way.secret,
    )
    began, first, received = time.perf_counter(), 0.0, b""
    try:
        await exchange.open()
        while piece := await exchange.read():
            received += piece
            if not first and b'"content":"' in received:
                first = time.perf_counter() - began
    finally:
        exchange.close()
    assert received.rstrip().endswith(b"data: [DONE]"), received[-500:]
    usage = [line for line in received.split(b"\n") if b'"usage":{' in line][-1]
    return first, int(json.loads(usage.removeprefix(b"data: "))["usage"]["completion_tokens"])


async def measure(client: Client, way: Way, streams: int) -> Round:
    began = time.perf_counter()
    done = await asyncio.gather(*(stream(client, way) for _ in range(streams)))
    took = time.perf_counter() - began
    return Round(sum(tokens for _, tokens in done) / took, statistics.median(first for first, _ in done))


async def compare(service: Service, counts: list[int], rounds: int) -> None:
    client = Client(5.0)
    bare = Way("engine", Address.parse(service.engine(0)), None)
    whole = Way("service", Address.parse(f"{service.base_url}/v1"), service.secret)
    print(
        "streams  engine tok/s  service tok/s  ratio (min median max)   first token: engine  service  ratio"
    )
    for streams in counts:
        for way in (bare, whole):
            await measure(client, way, streams)
        pairs: list[tuple[Round, Round]] = []
        for index in range(rounds):
            order = (bare, whole) if index % 2 else (whole, bare)
            got = {way.name: await measure(client, way, streams) for way in order}
            pairs.append((got["engine"], got["service"]))
        report(streams, pairs)
    client.close()


def report(streams: int, pairs: list[tuple[Round, Round]]) -> None:
    rates = sorted(service.tokens_per_s / engine.tokens_per_s for engine, service in pairs)
    firsts = sorted(service.first_s / engine.first_s for engine, service in pairs)
    engine, service = (statistics.median(pair[i].tokens_per_s for pair in pairs) for i in (0, 1))
    first_engine, first_service = (statistics.median(pair[i].first_s for pair in pairs) for i in (0, 1))
    print(
        f"{streams:7}  {engine:12.1f}  {service:13.1f}  {rates[0]:.3f} {statistics.median(rates):.3f} {rates[-1]:.3f}"
        f"        {first_engine * 1000:18.0f} ms {first_service * 1000:6.0f} ms  {statistics.median(firsts):.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="data folder; weights are fetched into it once"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", default="1,8,32")
    parser.add_argument("flags", nargs="*", help="more flags of scibox serve, after --")
    options = parser.parse_args()
    with running(options.data.resolve(), *options.flags) as service:
        print(
            f"first /health after {service.first_health_s:.2f} s, engines ready after {service.ready_s:.2f} s"
        )
        asyncio.run(compare(service, [int(n) for n in options.streams.split(",")], options.rounds))
        print(f"resident memory of the service and its engines: {resident_mb(service.pid):.0f} MB")


if __name__ == "__main__":
    main()
