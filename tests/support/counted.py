"""A real service before a model server of this process, which counts what arrives: for tests of limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripted import Upstream
from world import Told, World

from scibox.engines.fake import FakeEngine
from scibox.engines.fake_script import Received, Running, Script


class Counting(FakeEngine):
    """Notes when each call comes (monotonic seconds), and how many there are at the same time."""

    def __init__(self, script: Script) -> None:
        super().__init__("http://127.0.0.1:0", name="fake-model", owned_by="vllm", script=script)
        self.came: list[float] = []
        self.most_at_once = 0

    @contextmanager
    def call(self, request: Received) -> Iterator[Running]:
        with super().call(request) as running:
            self.came.append(time.monotonic())
            self.most_at_once = max(self.most_at_once, self.in_flight)
            yield running

    def most_within(self, seconds: float, after_s: float) -> int:
        """Of all stretches of that length, the calls in the fullest, so long after the first or later."""
        came = [at for at in self.came if at >= self.came[0] + after_s]
        return max(sum(1 for at in came if start <= at < start + seconds) for start in came)

    def after(self, seconds: float) -> int:
        """Calls that had come so long after the first."""
        return sum(1 for at in self.came if at - self.came[0] <= seconds)


@dataclass
class Served:
    place: World
    engine: Counting

    async def ask(self, calls: int, patience_s: float) -> list[Told]:
        headers = {"x-scibox-patience": str(patience_s)}
        return list(
            await asyncio.gather(
                *(self.place.call(stream=False, headers=headers, max_tokens=1) for _ in range(calls))
            )
        )


@asynccontextmanager
async def served(
    folder: Path, workers: int, limits: str, script: Script | None = None
) -> AsyncIterator[Served]:
    async with Counting(script or Script()) as engine:
        upstream = Upstream.__new__(Upstream)
        upstream.url = f"{engine.address}/v1"
        place = World(
            folder,
            upstream,
            f"[server]\nworkers = {workers}\n[gate]\nqueue_per_model = 20000\nqueue_per_owner = 20000\n"
            "upstream_slots = 1024\n",  # only the limit holds calls back
        )
        text = place.config.read_text()
        place.config.write_text(text.replace('kind = "chat"', f'kind = "chat"\nlimits = {{ {limits} }}'))
        service = place.service()
        serve = await asyncio.to_thread(service.__enter__)
        try:
            yield Served(place, engine)
        finally:
            await asyncio.to_thread(service.__exit__, None, None, None)
        assert serve.process.returncode == 0
