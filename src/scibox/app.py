"""The only place where things are constructed and joined; and the service's life from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path

import uvloop

from scibox import __version__, banner
from scibox.config import Config, Deployment
from scibox.core.errors import KeysUnavailable, OperatorError
from scibox.core.events import Notice
from scibox.core.limits import Windows
from scibox.deployed import Deployed, obtain
from scibox.engines.supervisor import EngineEvent, EngineFailed
from scibox.gate.desk import LocalDesk
from scibox.gate.gate import Gate
from scibox.gate.keywatch import KeyWatch
from scibox.http import app as door
from scibox.http import server
from scibox.http.info import State
from scibox.http.protocol import Patience
from scibox.ledger.feeder import Feeder
from scibox.ledger.journal import Journal
from scibox.ledger.reports import Reports
from scibox.models.ready import Weights
from scibox.observe.log import Log
from scibox.router.discovery import discover
from scibox.router.router import Deadlines, Router
from scibox.router.vectors import Packing, Vectors
from scibox.service import admin
from scibox.service.batches import Batches
from scibox.service.directory import Directory
from scibox.service.disk import Disk
from scibox.service.files import Files, Limits
from scibox.service.office import Office
from scibox.service.pipeline import Pipeline
from scibox.service.revocation import Revocation
from scibox.service.runner import Runner
from scibox.service.usage import Usage
from scibox.service.work import Pace, Tools
from scibox.store.entries import LEDGER, EntryStore
from scibox.store.keys import KeyStore
from scibox.store.links import DatabaseAway
from scibox.store.revoked import Revoked
from scibox.store.shelf import Shelf
from scibox.store.sql import Sql
from scibox.store.vectors import VectorCache
from scibox.upstream.client import Client
from scibox.wire.faces import FACES

KEYS_PATIENCE_S = 2.0  # for the database of keys: it is asked again and again
KEYS_POLL_S = 1.0  # for the first key, after a first start without the database
LAST_WORDS_S = 2.0  # for the error events of calls that outlive the drain


def serve(config: Config) -> int:
    """Run the service until it is told to stop; returns the exit status."""
    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    # What is wrong with a form is said to its client; python-multipart would write it to the log as well.
    logging.getLogger("python_multipart").addHandler(logging.NullHandler())
    with contextlib.closing(
        server.bind(_listen(config))
    ) as sock:  # first: a busy port must not cost a download
        weights = obtain(config)
        with KeyStore(config.place("keys"), KEYS_PATIENCE_S) as store, _sockets_folder() as sockets:
            try:
                return uvloop.run(Box(config, weights, sockets, store).live(sock))
            except EngineFailed as error:
                raise OperatorError(error.message) from error


class Box:
    """All rooms joined, for one configuration."""

    def __init__(
        self, config: Config, weights: Mapping[Deployment, Weights], sockets: Path, store: KeyStore
    ) -> None:
        self._config = config
        self._store = store
        self._log = Log()
        self._stop = asyncio.Event()
        self._client = Client(config.deadlines.connect_s)
        revoked = Revoked(config.data / "revoked")
        self._keys = KeyWatch(store, revoked, config.data / "keys.snapshot", self._log.emit)
        self._cache = VectorCache(
            config.embeddings.cache_memory_bytes,
            config.data / "embeddings.cache.db",
            config.embeddings.cache_disk_bytes,
            lambda message: self._log.emit(Notice(message, is_warning=True)),
        )
        self._deployed = Deployed(config, weights, sockets, self._note)
        self._directory = self._names()
        self._journal = Journal(config.data / "journal", self._log.emit, is_strict=config.ledger.strict)
        self._ledger = Sql(config.place("ledger"), LEDGER)
        entries, keep_s = EntryStore(self._ledger), config.ledger.keep_days * admin.DAY_S
        self._feeder = Feeder(config.data / "journal", entries, self._log.emit, keep_s=keep_s)
        self._usage = Usage(Reports(config.data / "journal", entries), time.time)
        self._gate = self._new_gate()
        self._tools = self._batch_tools()
        self._files = Files(self._tools.shelf, self._tools.disk, self._tools.limits, time.time)
        self._runner = Runner(self._tools)
        ring, pipeline = self._keys.ring, self._tools.pipeline
        revocation = Revocation(store, revoked, ring.end)
        self._office = Office(
            admin.Admin(store, revocation, lambda: pipeline.directory.names, time.time, ring.keys),
            self._keys.refresh,
        )
        self._door = door.Door(
            pipeline=self._tools.pipeline,
            files=self._files,
            batches=Batches(self._tools, self._files, self._runner.wake),
            office=self._office,
            usage=self._usage,
            emit=self._log.emit,
            state=self._state,
            ending=asyncio.Event(),
            version=__version__,
            heartbeat_s=config.server.heartbeat_s,
            max_body_bytes=config.server.max_body_bytes,
            cors_origins=config.server.cors_origins,
            may_rotate=config.gate.holders_rotate,
        )

    async def live(self, sock: socket.socket) -> int:
        """Start, serve, drain, end."""
        self._watch_signals()
        self._feeder.start()
        web = server.server(door.build(self._door), _listen(self._config))
        started_at = time.monotonic()
        tasks = [
            asyncio.create_task(web.serve(sockets=[sock])),
            asyncio.create_task(self._gate.watch()),
            asyncio.create_task(self._keys.run()),
            asyncio.create_task(
                discover(self._client, (r for route in self._deployed.routes for r in route.replicas))
            ),
        ]
        for task in tasks:
            self._watch(task)
        try:
            await self._greet()
            tasks.append(self._watch(asyncio.create_task(self._await_keys())))
            await self._start_engines(started_at)
            tasks.append(self._watch(asyncio.create_task(self._runner.run())))
            await self._stop.wait()
            await self._drain()
        finally:
            await self._runner.stop(LAST_WORDS_S)
            await server.stop(web, tasks[0])
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(child.stop() for child in self._deployed.children))
            await self._keys.stop()
            self._office.close()
            self._client.close()
            self._tools.disk.close()
            self._tools.shelf.close()
            self._cache.close()
            self._journal.close()
            await self._feeder.stop(LAST_WORDS_S)
            self._usage.close()
            self._ledger.close()
        _say("Stopped.")
        return 0

    def _watch(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        task.add_done_callback(self._on_end)
        return task

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """A part of the service that fails ends the service: whoever keeps it alive starts it whole again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.emit(
                Notice(f"the service stops, since a part of it failed: {error!r}", is_warning=True)
            )
            self._stop.set()

    async def _greet(self) -> None:
        await self._keys.started()
        ring = self._keys.ring
        self._secret = await self._first_secret() if ring.trouble is None else None
        _say(banner.greeting(__version__, self._config.server.url, str(self._config.data), self._secret))
        if ring.is_empty:
            _say(banner.no_keys(ring.trouble or "it was away a moment ago"))

    async def _first_secret(self) -> str | None:
        """The operator's, where there is no key at all: it is made once, and known before it is shown."""
        if not self._keys.ring.is_empty:
            return None
        with contextlib.suppress(DatabaseAway):
            secret = await asyncio.to_thread(admin.ensure_operator, self._store, time.time())
            with contextlib.suppress(KeysUnavailable):
                await self._keys.refresh()
            return secret
        return None

    async def _await_keys(self) -> None:
        """After a first start without the database: make the operator's key as soon as that can be done."""
        await self._keys.started()
        while self._keys.ring.is_empty:
            await asyncio.sleep(KEYS_POLL_S)
            if self._keys.ring.trouble is None and (secret := await self._first_secret()) is not None:
                _say(banner.first_key(secret))

    async def _start_engines(self, started_at: float) -> None:
        """Start the children and wait until they can answer, or until the service is to stop."""
        for child in self._deployed.children:
            await child.start()
        if await _first(self._stop.wait(), self._ready()) == 0:
            return
        took_s = time.monotonic() - started_at
        url = self._config.server.url
        _say(banner.ready(url, self._secret, self._config.models, took_s, _program()))

    async def _ready(self) -> None:
        await asyncio.gather(*(child.wait_ready() for child in self._deployed.children))

    async def _drain(self) -> None:
        """New calls are refused, running ones may finish; a second signal or the grace ends the wait."""
        self._gate.drain()
        self._runner.drain()
        self._stop.clear()
        running = self._gate.in_flight
        if running:
            _say(f"\nFinishing {running} running calls; press Ctrl-C again to stop at once.")
        await _first(self._gate.idle.wait(), self._stop.wait(), within_s=self._config.server.drain_s)
        self._door.ending.set()
        await _first(self._gate.idle.wait(), within_s=LAST_WORDS_S)

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)

    def _state(self) -> State:
        return "ok" if all(child.state == "ready" for child in self._deployed.children) else "starting"

    def _names(self) -> Directory:
        aliases = {alias: model.name for model in self._config.models for alias in model.aliases}
        return Directory(self._deployed.routes, aliases, self._config.gate.upstream_slots)

    def _new_gate(self) -> Gate:
        own = self._config.gate
        desk = LocalDesk(
            self._directory.slots,
            Windows(),
            time.monotonic,
            time.time,
            queue_per_model=own.queue_per_model,
            queue_per_owner=own.queue_per_owner,
        )
        return Gate(
            self._keys.ring,
            desk,
            self._journal,
            self._log.emit,
            clock=time.monotonic,
            now=time.time,
            patience_s=own.patience_s,
            background_calls=self._config.batches.concurrency,
        )

    def _pipeline(self) -> Pipeline:
        limits = self._config.deadlines
        router = Router(self._client, Deadlines(limits.first_chunk_s, limits.next_chunk_s, limits.total_s))
        own = self._config.embeddings
        packing = Packing(own.texts_per_call, own.tokens_per_call, own.calls_at_once)
        return Pipeline(
            self._gate,
            self._directory,
            router,
            Vectors(router, self._cache, packing),
        )

    def _batch_tools(self) -> Tools:
        own, pace = self._config.files, self._config.batches
        return Tools(
            pipeline=self._pipeline(),
            faces=FACES,
            shelf=Shelf(self._config.data),
            disk=Disk(),
            pace=Pace(pace.concurrency),
            limits=Limits(own.max_file_bytes, own.max_owner_bytes, own.keep_days * admin.DAY_S),
            max_line_bytes=self._config.server.max_body_bytes,
            emit=self._log.emit,
            now=time.time,
        )

    def _note(self, event: EngineEvent) -> None:
        """What happens to the children, for the log; a ready one is no news at the first start."""
        if event.state in {"restarting", "failed"}:
            self._log.emit(Notice(event.detail, is_warning=True))
        elif event.state == "ready" and event.restarts:
            self._log.emit(Notice(f"the engine {event.name} is back after {event.restarts} restarts"))


def _listen(config: Config) -> server.Listen:
    own = config.server
    return server.Listen(
        own.host,
        own.port,
        own.tls_certificate,
        own.tls_key,
        Patience(own.header_s, own.body_s, own.keep_alive_s),
    )


@contextlib.contextmanager
def _sockets_folder() -> Iterator[Path]:
    """A private folder for the engines' sockets; short, since a socket's path has at most 107 bytes."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    for stale in base.glob("scibox-*-*"):  # of a service that was killed
        pid = stale.name.split("-")[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"scibox-{os.getpid()}-", dir=base))  # mode 0700
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _first(*waits: Coroutine[None, None, object], within_s: float | None = None) -> int | None:
    """Which of these ended first (the others are cancelled), or None at the end of the time."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for index, task in enumerate(tasks):
        if task in done:
            task.result()
            return index
    return None


def _program() -> str:
    """How to call this program from the same folder: by name where it is on the PATH, else by its path."""
    called = Path(sys.argv[0])
    if called.name != "scibox":
        return "scibox"
    on_path = shutil.which("scibox")
    is_same = on_path is not None and Path(on_path).resolve() == called.resolve()
    return "scibox" if is_same else os.path.relpath(called)


def _say(text: str) -> None:
    """To the person at the terminal."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
