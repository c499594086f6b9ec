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

import msgspec
import uvloop

from scibox import __version__, banner
from scibox.config import Config, Deployment, Model
from scibox.core.errors import OperatorError
from scibox.core.events import Notice
from scibox.core.types import Dialect, ModelCard, Thinking
from scibox.engines import fake, llama
from scibox.engines.embedder import settings as embedder
from scibox.engines.supervisor import Command, EngineEvent, EngineFailed, Supervisor
from scibox.gate.gate import Gate
from scibox.gate.keyring import KeyRing, follow
from scibox.http import app as door
from scibox.http import server
from scibox.http.info import State
from scibox.http.protocol import Patience
from scibox.models.catalogue import with_own
from scibox.models.progress import progress_on
from scibox.models.pull import pull
from scibox.models.ready import Weights, identity, local
from scibox.observe.log import Log
from scibox.router.discovery import discover
from scibox.router.replica import EmbeddingRules, Replica, Route
from scibox.router.router import Deadlines, Router
from scibox.router.vectors import Packing, Vectors
from scibox.service import admin
from scibox.service.batches import Batches
from scibox.service.directory import Directory
from scibox.service.disk import Disk
from scibox.service.files import Files, Limits
from scibox.service.lanes import Lanes, Pace
from scibox.service.pipeline import Pipeline
from scibox.service.runner import Runner
from scibox.service.work import Tools
from scibox.store.keys import KeyStore
from scibox.store.shelf import Shelf
from scibox.store.vectors import VectorCache
from scibox.upstream.address import Address
from scibox.upstream.client import Client
from scibox.wire.faces import FACES

_DIALECTS: Mapping[str, Dialect] = {"llama": "llama", "fake": "vllm"}  # the fake takes whatever comes
LAST_WORDS_S = 2.0  # for the error events of calls that outlive the drain


def serve(config: Config) -> int:
    """Run the service until it is told to stop; returns the exit status."""
    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    # What is wrong with a form is said to its client; python-multipart would write it to the log as well.
    logging.getLogger("python_multipart").addHandler(logging.NullHandler())
    with contextlib.closing(
        server.bind(_listen(config))
    ) as sock:  # first: a busy port must not cost a download
        weights = _obtain(config)
        with KeyStore(config.data / "keys.db") as store, _sockets_folder() as sockets:
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
        self._weights = weights
        self._sockets = sockets
        self._store = store
        self._log = Log()
        self._stop = asyncio.Event()
        self._children: list[Supervisor] = []
        self._client = Client(config.deadlines.connect_s)
        self._ring = KeyRing(store.by_digest())
        self._gate = Gate(self._ring, self._log.emit, time.monotonic, time.time)
        self._cache = VectorCache(
            config.embeddings.cache_memory_bytes,
            config.data / "embeddings.cache.db",
            config.embeddings.cache_disk_bytes,
            lambda message: self._log.emit(Notice(message, is_warning=True)),
        )
        self._routes = [self._route(model) for model in config.models]
        self._tools = self._batch_tools()
        self._files = Files(self._tools.shelf, self._tools.disk, self._tools.limits, time.time)
        self._runner = Runner(self._tools)
        self._door = door.Door(
            pipeline=self._tools.pipeline,
            files=self._files,
            batches=Batches(self._tools, self._files, self._runner.wake),
            emit=self._log.emit,
            state=self._state,
            ending=asyncio.Event(),
            version=__version__,
            heartbeat_s=config.server.heartbeat_s,
            max_body_bytes=config.server.max_body_bytes,
            cors_origins=config.server.cors_origins,
        )

    async def live(self, sock: socket.socket) -> int:
        """Start, serve, drain, end."""
        self._watch_signals()
        web = server.server(door.build(self._door), _listen(self._config))
        started_at = time.monotonic()
        tasks = [
            asyncio.create_task(web.serve(sockets=[sock])),
            asyncio.create_task(follow(self._ring, self._store, self._log.emit)),
            asyncio.create_task(
                discover(self._client, (r for route in self._routes for r in route.replicas))
            ),
        ]
        for task in tasks:
            self._watch(task)
        try:
            self._greet()
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
            await asyncio.gather(*(child.stop() for child in self._children))
            self._client.close()
            self._tools.disk.close()
            self._tools.shelf.close()
            self._cache.close()
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

    def _greet(self) -> None:
        secret = admin.ensure_operator(self._store, time.time())
        self._secret = secret
        _say(banner.greeting(__version__, self._url, str(self._config.data), secret))

    async def _start_engines(self, started_at: float) -> None:
        """Start the children and wait until they can answer, or until the service is to stop."""
        for child in self._children:
            await child.start()
        if await _first(self._stop.wait(), self._ready()) == 0:
            return
        _say(
            banner.ready(
                self._url, self._secret, self._config.models, time.monotonic() - started_at, _program()
            )
        )

    async def _ready(self) -> None:
        await asyncio.gather(*(child.wait_ready() for child in self._children))

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
        return "ok" if all(child.state == "ready" for child in self._children) else "starting"

    def _pipeline(self) -> Pipeline:
        limits = self._config.deadlines
        aliases = {alias: model.name for model in self._config.models for alias in model.aliases}
        router = Router(self._client, Deadlines(limits.first_chunk_s, limits.next_chunk_s, limits.total_s))
        own = self._config.embeddings
        packing = Packing(own.texts_per_call, own.tokens_per_call, own.calls_at_once)
        return Pipeline(
            self._gate, Directory(self._routes, aliases), router, Vectors(router, self._cache, packing)
        )

    def _batch_tools(self) -> Tools:
        own, pace = self._config.files, self._config.batches
        return Tools(
            pipeline=self._pipeline(),
            faces=FACES,
            shelf=Shelf(self._config.data),
            disk=Disk(),
            lanes=Lanes(self._gate, Pace(pace.concurrency, pace.busy_at)),
            limits=Limits(own.max_file_bytes, own.max_owner_bytes, own.keep_days * admin.DAY_S),
            max_line_bytes=self._config.server.max_body_bytes,
            emit=self._log.emit,
            now=time.time,
        )

    def _route(self, model: Model) -> Route:
        replicas = tuple(self._replica(model, index) for index in range(len(model.deployments)))
        own = [self._weights[d] for d in model.deployments if d in self._weights]
        card = ModelCard(
            name=model.name,
            kind=model.kind,
            owned_by=model.owned_by,
            created=int(time.time()),
            context=model.context or replicas[0].context,
            dimensions=model.dimensions or (own[0].dimensions if own else None),
        )
        return Route(card, replicas, self._rules(model))

    def _rules(self, model: Model) -> EmbeddingRules:
        """How texts for this model are treated; its vectors are known by what they depend on."""
        ways = [
            (identity(self._weights[d]), d.pooling)
            if d in self._weights
            else (d.engine, d.url, d.upstream_model or model.name)
            for d in model.deployments
        ]
        return EmbeddingRules(
            prefix=model.prefix or "",
            query_prefix=model.query_prefix,
            passage_prefix=model.passage_prefix,
            token_ids=model.token_ids or "cl100k_base",
            is_matryoshka=model.matryoshka,
            identity=msgspec.json.encode([model.revision, ways]),
        )

    def _replica(self, model: Model, index: int) -> Replica:
        deployment = model.deployments[index]
        if deployment.url is not None:
            return Replica(
                address=Address.parse(deployment.url),
                model=deployment.upstream_model or model.name,
                secret=_upstream_secret(deployment),
                context=model.context,
                dialect=deployment.dialect,
                thinking=model.reasoning,
            )
        path = self._sockets / f"{len(self._children)}.sock"
        command, context = self._command(model, deployment, path)
        self._children.append(Supervisor(model.name, command, path, report=self._note))
        return Replica(
            address=Address.parse(f"unix:{path}"),
            model=model.name,
            context=context,
            is_local=True,
            counts=True,
            dialect=_DIALECTS.get(deployment.engine or "", "openai"),
            thinking=_thinking(model, deployment),
        )

    def _command(self, model: Model, deployment: Deployment, path: Path) -> tuple[Command, int | None]:
        """How to start a child of ours, and the context of one call there, in LLM tokens."""
        weights = self._weights.get(deployment)
        if weights is None:
            settings = fake.Settings(socket=str(path), name=model.name)
            return Command("scibox.engines.fake", msgspec.json.encode(settings)), settings.context
        if weights.engine == "embedder":
            limits = self._config.embedder
            return embedder.command(
                embedder.Settings(
                    socket=str(path),
                    weights=str(weights.path),
                    name=model.name,
                    threads=deployment.threads or limits.threads or _cores(),
                    batch_tokens=deployment.batch_tokens or limits.batch_tokens,
                )
            ), weights.context
        defaults = self._config.llama
        wanted = deployment.context or defaults.context
        context = min(wanted, weights.context or wanted)
        return llama.command(
            llama.Settings(
                socket=str(path),
                weights=str(weights.path),
                name=model.name,
                threads=deployment.threads or defaults.threads or _cores(),
                slots=1 if model.kind == "embedding" else deployment.slots or defaults.slots,
                context=context,
                batch=deployment.batch or defaults.batch,
                embedding=model.kind == "embedding",
                pooling=deployment.pooling,
            )
        ), context

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


def _thinking(model: Model, deployment: Deployment) -> Thinking | None:
    """llama.cpp's chat template can be asked; what the operator states wins."""
    return None if model.reasoning == "auto" and deployment.engine == "llama" else model.reasoning


def _obtain(config: Config) -> dict[Deployment, Weights]:
    """The weights of every local deployment; fetched where they are missing."""
    folder = config.data / "models"
    known = with_own(config.catalogue)
    found: dict[Deployment, Weights] = {}
    for model in config.models:
        for deployment in model.deployments:
            name = deployment.weights
            if name is not None:
                is_known = name in known
                found[deployment] = (
                    pull(known[name], folder, progress_on()) if is_known else local(Path(name))
                )
    return found


def _upstream_secret(deployment: Deployment) -> str | None:
    """The upstream's own key, from the environment or a file; never logged."""
    if deployment.upstream_key_env is not None:
        return os.environ.get(deployment.upstream_key_env)
    if deployment.upstream_key_file is not None:
        try:
            return deployment.upstream_key_file.read_text("utf-8").strip()
        except OSError as error:
            raise OperatorError(
                f"The upstream key cannot be read from {deployment.upstream_key_file}: {error.strerror}."
            ) from error
    return None


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


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
