"""The rig of the chaos tests: a real service before a scripted model server, and clients that write all down.

Three logs: what the model server finished (`scripted.py`), what the clients were given (`Told`), and what the
service wrote into its ledger. Whatever is done to the service, they must agree.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from plain_client import read_head
from scripted import Upstream, upstream

from live import Serve, free_port, scibox
from scibox.core.entries import Entry
from scibox.core.events import Event
from scibox.core.sums import WIDTHS_S, Scope, Span, Sums
from scibox.ledger.feeder import Feeder
from scibox.store.entries import LEDGER, EntryStore
from scibox.store.sql import Sql

EVER = Scope(0, 2**40)
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
        self.member_secret = ""  # of the last member
        self.said = ""  # by services that are gone
        self.ledger_url = ""  # where it is no file of the data folder
        self.configure(settings)

    def configure(self, settings: str = "") -> None:
        """Write the configuration; a running service does not read it by itself."""
        self.config.write_text(f"{settings}\n{self.model('m')}")

    def model(self, name: str, kind: str = "chat") -> str:
        """A model of the scripted server, for the configuration."""
        return (
            f'[models.{name}]\nkind = "{kind}"\n[[models.{name}.deployments]]\nurl = "{self.upstream.url}"\n'
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
    def without(self, name: str) -> Iterator[None]:
        """That database of the data folder cannot be opened, neither now nor again: a folder is in its place."""
        path, away = self.data / name, self.data / f"{name}.away"
        path.rename(away)
        path.mkdir()
        try:
            yield
        finally:
            path.rmdir()
            away.rename(path)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """That database of the data folder is held by another program: nobody else writes to it."""
        with contextlib.closing(sqlite3.connect(self.data / name, timeout=60, isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            yield

    @contextmanager
    def full(self, room_bytes: int) -> Iterator[None]:
        """The disk is full: no file of the service's main process grows past so many bytes."""
        pid, kind = self.serve.process.pid, resource.RLIMIT_FSIZE
        before = resource.prlimit(pid, kind)
        resource.prlimit(pid, kind, (room_bytes, before[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, kind, before)

    def is_recorded(self, request_id: str) -> bool:
        """Whether the database of the ledger has that call; the service may run."""
        with contextlib.closing(Sql(self._ledger, LEDGER)) as sql, sql.reading() as db:
            return db.rows("SELECT 1 FROM entries WHERE request_id = ?", request_id) != []

    @property
    def _ledger(self) -> str:
        return self.ledger_url or f"sqlite://{self.data}/ledger.db"

    def spend(self, calls: int) -> None:
        """So many calls, all of which are answered."""
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        for _ in range(calls):
            assert self.serve.post("/v1/chat/completions", body)[0] == 200

    def entries(self) -> dict[str, Entry]:
        """The ledger after the service has ended: what it left in its journal is fed as its next start would.

        A request id that is there twice, and a sum that differs from its entries, are errors.
        """
        with contextlib.closing(Sql(self._ledger, LEDGER)) as sql:
            store = EntryStore(sql)
            notices: list[Event] = []
            Feeder(self.data / "journal", store, notices.append, keep_s=1e9).feed()
            assert notices == []
            found = list(store.entries(EVER))
            for width_s in WIDTHS_S:
                sums = store.sums([Span(width_s, 0, 2**40)], (), EVER, "")[0].get((), Sums())
                assert (sums.calls, sums.prompt_tokens, sums.completion_tokens) == (
                    len(found),
                    sum(entry.usage.prompt_tokens for entry in found),
                    sum(entry.usage.completion_tokens for entry in found),
                )
        by_id = {entry.request_id: entry for entry in found}
        assert len(by_id) == len(found)
        return by_id

    def member(self, name: str, *more: str) -> str:
        """The secret of a new member's key, known to the running service."""
        secret = scibox(self.data, "keys", "create", name, *more).stdout.strip()
        self.member_secret = secret
        self.serve.until(lambda: self.serve.get("/v1/key", secret)[0] == 200, within_s=10)
        return secret

    async def call(
        self,
        *,
        stream: bool = True,
        secret: str | None = None,
        leave_after: int | None = None,
        headers: Mapping[str, str] | None = None,
        told: Told | None = None,
        **body: Any,
    ) -> Told:
        """One call, read to its end; the client leaves after so many deltas where that is said.

        `told` may be looked at while it is filled.
        """
        told = told or Told()
        told.began_at = time.time()
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


def tell(figure: str) -> None:
    """A figure that was measured, for who runs the tests with `-s`."""
    sys.stdout.write(f"\n  {figure}\n")


@contextmanager
def world(folder: Path, settings: str = "", **script: Any) -> Iterator[World]:
    """A world in a folder; the service is not started yet."""
    with upstream(folder / "upstream.log", **script) as running:
        yield World(folder, running, settings)
