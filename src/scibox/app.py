"""The only place where things are constructed and joined; and the service's life from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import uvloop

from scibox import __version__, banner
from scibox.config import Changes, Config, changes, refuse_restarts
from scibox.core.errors import OperatorError
from scibox.core.events import Notice
from scibox.core.limits import Windows
from scibox.deployed import Deployed, Plan, obtain, plan
from scibox.engines.supervisor import EngineEvent, EngineFailed
from scibox.gate.desk import LocalDesk
from scibox.gate.gate import Gate
from scibox.gate.keyring import KeyRing, follow
from scibox.http import app as door
from scibox.http import server
from scibox.http.front import Entrance, Front
from scibox.http.protocol import Patience
from scibox.ledger.journal import Journal
from scibox.observe.log import Log
from scibox.observe.space import space
from scibox.process import aside, first_of, has_terminal, program, say, sockets_folder
from scibox.router.discovery import look, watch
from scibox.router.router import Deadlines, Router
from scibox.router.vectors import Packing, Vectors
from scibox.service import admin
from scibox.service.batches import Batches
from scibox.service.directory import Directory
from scibox.service.disk import Disk
from scibox.service.files import Files, Limits
from scibox.service.pipeline import Pipeline
from scibox.service.runner import Runner
from scibox.service.status import Status
from scibox.service.work import Pace, Tools
from scibox.store.keys import KeyStore
from scibox.store.shelf import Shelf
from scibox.store.vectors import VectorCache
from scibox.upstream.client import Client
from scibox.wire.admin.status import Reloaded
from scibox.wire.faces import FACES

LAST_WORDS_S = 2.0  # for the error events of calls that outlive the drain
SWEEP_S = 0.5  # how long an engine that nobody needs any more may stay


def serve(read: Callable[[], Config]) -> int:
    """Run the service until it is told to stop; returns the exit status. Each reload calls `read` again."""
    config = read()
    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    # What is wrong with a form is said to its client; python-multipart would write it to the log as well.
    logging.getLogger("python_multipart").addHandler(logging.NullHandler())
    with contextlib.closing(
        server.bind(_listen(config))
    ) as sock:  # first: a busy port must not cost a download
        first = plan(config, obtain(config))
        with KeyStore(config.data / "keys.db") as store, sockets_folder() as sockets:
            try:
                return uvloop.run(Box(read, config, first, sockets, store).live(sock))
            except EngineFailed as error:
                raise OperatorError(error.message) from error


class Box:
    """All rooms joined. `_adopt` is all that differs from one configuration to another."""

    def __init__(
        self, read: Callable[[], Config], config: Config, first: Plan, sockets: Path, store: KeyStore
    ) -> None:
        self._read = read
        self._store = store
        self._log = Log()
        self._stop = asyncio.Event()
        self._ending = asyncio.Event()
        self._changing = asyncio.Lock()  # of the configuration
        self._reloads: set[asyncio.Task[Changes]] = set()
        self._client = Client(config.deadlines.connect_s)
        self._ring = KeyRing(store.by_digest())
        self._cache = VectorCache(
            config.embeddings.cache_memory_bytes,
            config.data / "embeddings.cache.db",
            config.embeddings.cache_disk_bytes,
            lambda message: self._log.emit(Notice(message, is_warning=True)),
        )
        self._journal = Journal(config.data / "journal", self._log.emit, is_strict=config.ledger.strict)
        self._desk = self._new_desk(config)
        self._gate = self._new_gate(config)
        self._deployed = Deployed(sockets, self._note)
        self._status = Status(
            self._gate,
            self._deployed,
            __version__,
            slow_parts=(lambda: [space(config.data)],),
        )
        self._pipeline = self._join(config)
        self._tools = self._batch_tools(config)
        self._files = Files(self._tools.shelf, self._tools.disk, self._tools.limits, time.time)
        self._runner = Runner(self._tools)
        self._deployed.begin(first)
        self._adopt(config, first)
        self._entrance = Entrance(self._application(config))
        self._web = server.server(self._entrance, _listen(config))

    async def live(self, sock: socket.socket) -> int:
        """Start, serve, drain, end."""
        self._watch_signals()
        began_at = time.monotonic()
        tasks: list[asyncio.Task[Any]] = [  # Any: nobody asks for their results
            self._watch(work)
            for work in (
                self._web.serve(sockets=[sock]),
                follow(self._ring, self._store, self._log.emit),
                self._gate.watch(),
                watch(self._client, lambda: self._deployed.replicas),
                self._sweep(),
            )
        ]
        try:
            self._greet()
            await self._start_engines(began_at)
            tasks.append(self._watch(self._runner.run()))
            await self._stop.wait()
            await self._drain()
        finally:
            tasks += self._reloads
            await self._runner.stop(LAST_WORDS_S)
            await server.stop(self._web, tasks[0])
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(child.stop() for child in self._deployed.children))
            self._client.close()
            self._tools.disk.close()
            self._tools.shelf.close()
            self._cache.close()
            self._journal.close()
        say("Stopped.")
        return 0

    def _watch(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._on_end)
        return task

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """A part of the service that fails ends the service: whoever keeps it alive starts it whole again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.emit(
                Notice(f"the service stops, since a part of it failed: {error!r}", is_warning=True)
            )
            self._stop.set()

    # the start

    def _greet(self) -> None:
        secret = admin.ensure_operator(self._store, time.time())
        self._ring.replace(self._store.by_digest())  # before its secret is shown
        self._secret = secret
        say(banner.greeting(__version__, self._url, str(self._config.data), secret))

    async def _start_engines(self, began_at: float) -> None:
        """Start the children and wait until they can answer, or until the service is to stop."""
        async with self._changing:
            if await first_of(self._stop.wait(), self._deployed.ready(self._deployed.plan)) == 0:
                return
        seconds = time.monotonic() - began_at
        say(banner.ready(self._url, self._secret, self._config.models, seconds, program()))

    # a changed configuration

    def _adopt(self, config: Config, new: Plan) -> None:
        """Serve by this from the next call on. Without an `await`, so that no call sees half of it."""
        self._config = config
        self._deployed.adopt(new)
        aliases = {alias: model.name for model in config.models for alias in model.aliases}
        self._pipeline.directory = Directory(
            self._deployed.routes, aliases, config.gate.upstream_slots, former=self._pipeline.directory
        )
        self._pipeline.router.deadlines = _deadlines(config)
        self._pipeline.vectors.packing = _packing(config)
        self._client.connect_s = config.deadlines.connect_s
        self._cache.memory_bytes = config.embeddings.cache_memory_bytes
        self._gate.configure(config.gate.patience_s, config.batches.concurrency)
        self._desk.queue_per_model = config.gate.queue_per_model
        self._desk.queue_per_owner = config.gate.queue_per_owner
        self._desk.look()
        self._tools.pace = _pace(config)
        self._tools.limits = self._files.limits = _limits(config)
        self._tools.max_line_bytes = config.server.max_body_bytes

    def _reload(self) -> asyncio.Task[Changes]:
        """Begin to take over the configuration as it is now; it goes on if whoever asked for it leaves."""
        task = asyncio.create_task(self._take_over())
        self._reloads.add(task)
        task.add_done_callback(self._on_reloaded)
        return task

    def _on_reloaded(self, task: asyncio.Task[Changes]) -> None:
        self._reloads.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        told = f"nothing has changed: {error}" if error else f"it was reloaded: {task.result()}"
        self._log.emit(Notice(f"the configuration: {told}", is_warning=error is not None))

    async def _reload_for_operator(self) -> Reloaded:
        found = await asyncio.shield(self._reload())
        return Reloaded(
            settings=list(found.settings),
            models_added=list(found.added),
            models_changed=list(found.changed),
            models_removed=list(found.removed),
        )

    async def _take_over(self) -> Changes:
        """All of it, or OperatorError and nothing."""
        async with self._changing:
            if self._gate.is_draining:
                raise OperatorError("the service is stopping")
            old, new = self._config, await asyncio.to_thread(self._read)
            refuse_restarts(old, new)
            wanted = await aside(lambda: plan(new, obtain(new)))
            added = self._deployed.begin(wanted)
            try:
                await self._deployed.ready(added)
                await look(self._client, self._deployed.replicas)
                application = self._application(new)
                self._web.reload(_listen(new))
                self._adopt(new, wanted)
                self._entrance.app = application
            except EngineFailed as error:
                raise OperatorError(error.message) from error
            finally:
                self._deployed.release()
        return changes(old, new)

    async def _sweep(self) -> None:
        while True:
            await self._deployed.sweep()
            await asyncio.sleep(SWEEP_S)

    # the end

    async def _drain(self) -> None:
        """New calls are refused, running ones may finish; a second signal or the grace ends the wait."""
        self._gate.drain()
        self._runner.drain()
        self._stop.clear()
        running = self._gate.in_flight
        if running:
            say(f"\nFinishing {running} running calls; press Ctrl-C again to stop at once.")
        await first_of(self._gate.idle.wait(), self._stop.wait(), within_s=self._config.server.drain_s)
        self._ending.set()
        await first_of(self._gate.idle.wait(), within_s=LAST_WORDS_S)

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        had_terminal = has_terminal()

        def hang_up() -> None:
            if had_terminal and not has_terminal():  # it was closed: nobody asks for a reload so
                self._stop.set()
            else:
                self._reload()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, hang_up)

    # the parts

    def _new_desk(self, config: Config) -> LocalDesk:
        return LocalDesk(
            self._slots,
            Windows(),
            time.monotonic,
            time.time,
            queue_per_model=config.gate.queue_per_model,
            queue_per_owner=config.gate.queue_per_owner,
        )

    def _slots(self, model: str) -> Sequence[int]:
        return self._pipeline.directory.slots(model)  # of the directory that holds now

    def _new_gate(self, config: Config) -> Gate:
        return Gate(
            self._ring,
            self._desk,
            self._journal,
            self._log.emit,
            clock=time.monotonic,
            now=time.time,
            patience_s=config.gate.patience_s,
            background_calls=config.batches.concurrency,
        )

    def _join(self, config: Config) -> Pipeline:
        router = Router(self._client, _deadlines(config))
        vectors = Vectors(router, self._cache, _packing(config))
        return Pipeline(self._gate, Directory((), {}), router, vectors)

    def _batch_tools(self, config: Config) -> Tools:
        return Tools(
            pipeline=self._pipeline,
            faces=FACES,
            shelf=Shelf(config.data),
            disk=Disk(),
            pace=_pace(config),
            limits=_limits(config),
            max_line_bytes=config.server.max_body_bytes,
            emit=self._log.emit,
            now=time.time,
        )

    def _application(self, config: Config) -> Front:
        return door.build(
            door.Door(
                pipeline=self._pipeline,
                files=self._files,
                batches=Batches(self._tools, self._files, self._runner.wake),
                admin=admin.Admin(self._store, self._tools.disk, time.time),
                emit=self._log.emit,
                status=self._status,
                reload=self._reload_for_operator,
                ending=self._ending,
                heartbeat_s=config.server.heartbeat_s,
                max_body_bytes=config.server.max_body_bytes,
                cors_origins=config.server.cors_origins,
            )
        )

    def _note(self, event: EngineEvent) -> None:
        """What happens to the children, for the log; a ready one is no news at the first start."""
        if event.state in {"restarting", "failed"}:
            self._log.emit(Notice(event.detail, is_warning=True))
        elif event.state == "ready" and event.restarts:
            self._log.emit(Notice(f"the engine {event.name} is back after {event.restarts} restarts"))

    @property
    def _url(self) -> str:
        own = self._config.server
        host = "127.0.0.1" if own.host in {"0.0.0.0", "::"} else own.host  # noqa: S104 - compared, not bound
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if own.tls_certificate else 'http'}://{host}:{own.port}"


def _listen(config: Config) -> server.Listen:
    own = config.server
    return server.Listen(
        own.host,
        own.port,
        own.tls_certificate,
        own.tls_key,
        Patience(own.header_s, own.body_s, own.keep_alive_s),
    )


def _deadlines(config: Config) -> Deadlines:
    own = config.deadlines
    return Deadlines(own.first_chunk_s, own.next_chunk_s, own.total_s)


def _packing(config: Config) -> Packing:
    own = config.embeddings
    return Packing(own.texts_per_call, own.tokens_per_call, own.calls_at_once)


def _pace(config: Config) -> Pace:
    return Pace(config.batches.concurrency)


def _limits(config: Config) -> Limits:
    own = config.files
    return Limits(own.max_file_bytes, own.max_owner_bytes, own.keep_days * admin.DAY_S)
