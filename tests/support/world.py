"""The rig of the chaos tests: a real service before a scripted model server, and clients that write all down.

Three logs: what the model server finished (`scripted.py`), what the clients were given (`Told`), and what the
service wrote into its ledger. Whatever is done to the service, they must agree.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from plain_client import read_head
from scripted import Upstream, upstream

from live import Serve, free_port, scibox

IS_LONG = os.environ.get("SCIBOX_TEST_LONG") == "1"
End = Literal["whole", "error", "cut", "left", "refused", "no answer"]
"""What a client saw: a whole answer; an error after the first byte; a connection that ended in between; it left
itself; an error as a plain answer; nothing at all."""


@dataclass
class Told:
    """What one client was given for one call. Times are Unix seconds."""

    end: End = "no answer"
    request_id: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    code: str = ""  # of an error
    words: int = 0  # deltas that came, each an LLM token
    usage: tuple[int, int] | None = None  # prompt and completion
    began_at: float = 0.0
    ended_at: float = 0.0


class World:
    """A service on its own data, started and ended as often as the test wants."""

    def __init__(self, folder: Path, upstream: Upstream, settings: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.upstream = upstream
        self.config = folder / "scibox.toml"
        self.port = free_port()
        self.serve: Serve
        self.secret = ""
        self.said = ""  # by services that are gone
        self.configure(settings)

    def configure(self, settings: str = "") -> None:
        """Write the configuration; a running service does not read it by itself."""
        self.config.write_text(
            f'{settings}\n[models.m]\nkind = "chat"\n[[models.m.deployments]]\nurl = "{self.upstream.url}"\n'
            'upstream_model = "fake-model"\ndialect = "vllm"\n'
        )

    @contextmanager
    def service(self, **environ: str) -> Iterator[Serve]:
        """The service, until the end of the `with` or until the test ends it."""
        with Serve(self.data, "--config", str(self.config), port=self.port, environ=environ) as serve:
            self.serve = serve
            serve.until_said("Ready")
            if not self.secret:
                self.secret = serve.operator_secret()
            serve.secret = self.secret
            try:
                yield serve
            finally:
                self.said += serve.said()

    @contextmanager
    def without(self, path: Path) -> Iterator[None]:
        """That file or folder is away for a while: something that is neither stands in its place."""
        away = path.with_name(path.name + ".away")
        path.rename(away)
        path.symlink_to(path)
        try:
            yield
        finally:
            path.unlink()
            away.rename(path)

    def member(self, name: str, *more: str) -> str:
        """The secret of a new member's key, known to the running service."""
        secret = scibox(self.data, "keys", "create", name, *more).stdout.strip()
        self.serve.until(lambda: self.serve.get("/v1/key", secret)[0] == 200, within_s=10)
        return secret

    async def call(
        self,
        *,
        stream: bool = True,
        secret: str | None = None,
        leave_after: int | None = None,
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> Told:
        """One call, read to its end; the client leaves after so many deltas where that is said."""
        told = Told(began_at=time.time())
        fields = {"model": "m", "messages": [{"role": "user", "content": "hello there"}], "stream": stream}
        sent = json.dumps({**fields, **body}).encode()
        lines = {
            "host": "x",
            "authorization": f"Bearer {secret or self.secret}",
            "content-length": str(len(sent)),
            "connection": "close",
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
            try:
                writer.write(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + sent)
                told.status, told.headers = await read_head(reader)
                told.request_id = told.headers["x-request-id"]
                told.end = "cut"
                if told.headers["content-type"].startswith("text/event-stream"):
                    await _read_stream(reader, told, leave_after)
                else:
                    _read_whole(await reader.readexactly(int(told.headers["content-length"])), told)
            finally:
                writer.transport.abort()
        told.ended_at = time.time()
        return told


async def _read_stream(reader: asyncio.StreamReader, told: Told, leave_after: int | None) -> None:
    while told.words != leave_after:
        line = await reader.readline()
        if not line:
            return
        if not line.startswith(b"data: "):
            continue
        if line == b"data: [DONE]\n":
            told.end = "whole"
            return
        event = json.loads(line[6:])
        if "error" in event:
            told.end, told.code = "error", event["error"]["code"]
            return
        told.words += sum(bool(choice["delta"].get("content")) for choice in event["choices"])
        if event.get("usage"):
            told.usage = event["usage"]["prompt_tokens"], event["usage"]["completion_tokens"]
    told.end = "left"


def _read_whole(body: bytes, told: Told) -> None:
    answer = json.loads(body)
    if told.status != 200:
        told.end, told.code = "refused", answer["error"]["code"]
        return
    told.end = "whole"
    told.usage = answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]
    told.words = told.usage[1]


class Load:
    """Clients that call again and again until they are told to stop; `told` is their log."""

    def __init__(self, world: World, clients: int, *, seed: int = 1, **body: Any) -> None:
        self.told: list[Told] = []
        self._world = world
        self._clients = clients
        self._body = body
        self._chance = random.Random(seed)
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def _client(self, number: int) -> None:
        while not self._is_over:
            told = await self._world.call(stream=number % 2 == 0, **self._body)
            self.told.append(told)
            if told.end in {"no answer", "refused"}:
                await asyncio.sleep(self._chance.uniform(0.02, 0.1))

    def ended(self, *ends: End) -> list[Told]:
        """The calls that ended so."""
        return [told for told in self.told if told.end in ends]


@contextmanager
def world(folder: Path, settings: str = "", **script: Any) -> Iterator[World]:
    """A world in a folder; the service is not started yet."""
    with upstream(folder / "upstream.log", **script) as running:
        yield World(folder, running, settings)
