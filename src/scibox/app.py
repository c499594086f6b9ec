"""The only place where things are constructed and joined; and the service's life from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import uvloop

from scibox import __version__, banner, rooms
from scibox.config import Config, Deployment
from scibox.core.errors import OperatorError
from scibox.core.events import Notice
from scibox.crew import Alone, Answering, Crew
from scibox.deployed import Deployed, obtain
from scibox.engines.supervisor import EngineEvent, EngineFailed
from scibox.http import server
from scibox.http.info import State
from scibox.models.ready import Weights
from scibox.observe.log import Log
from scibox.service import admin
from scibox.service.runner import Runner
from scibox.store.keys import KeyStore


def serve(config: Config) -> int:
    """Run the service until it is told to stop; returns the exit status."""
    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.closing(
        server.bind(rooms.listen(config))
    ) as sock:  # first: a busy port must not cost a download
        weights = obtain(config)
        with KeyStore(config.data / "keys.db") as store, _sockets_folder() as sockets:
            try:
                return uvloop.run(Box(config, weights, sockets, store).live(sock))
            except EngineFailed as error:
                raise OperatorError(error.message) from error


class Box:
    """The main process: engines, batches, and the calls themselves or the workers that answer them."""

    def __init__(
        self, config: Config, weights: Mapping[Deployment, Weights], sockets: Path, store: KeyStore
    ) -> None:
        self._config = config
        self._store = store
        self._log = Log()
        self._stop = asyncio.Event()
        self._deployed = Deployed(config, weights, sockets, self._note)
        names = rooms.directory(config, self._deployed.routes)
        desk = rooms.local_desk(config, names)
        self._rooms = rooms.Rooms(config, names, desk, store, self._log.emit)
        self._runner = Runner(self._rooms.tools)
        self._answering: Answering = (
            Crew(
                config,
                self._deployed.routes,
                desk,
                sockets=sockets,
                wake=self._runner.wake,
                emit=self._log.emit,
            )
            if config.server.workers > 1
            else Alone(config, self._rooms, self._runner.wake)
        )

    async def live(self, sock: socket.socket) -> int:
        """Start, serve, drain, end."""
        self._watch_signals()
        started_at = time.monotonic()
        tasks = self._rooms.works(self._deployed.routes)
        for task in tasks:
            self._watch(task)
        try:
            self._greet()
            tasks.append(self._watch(asyncio.create_task(self._answering.serve(sock, self._state))))
            await self._start_engines(started_at)
            tasks.append(self._watch(asyncio.create_task(self._runner.run())))
            await self._stop.wait()
            await self._drain()
        finally:
            await self._runner.stop(rooms.LAST_WORDS_S)
            await self._answering.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(child.stop() for child in self._deployed.children))
            self._rooms.close()
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
        self._rooms.ring.replace(self._store.by_digest())  # before its secret is shown
        self._secret = secret
        _say(banner.greeting(__version__, self._url, str(self._config.data), secret))

    async def _start_engines(self, started_at: float) -> None:
        """Start the children and wait until they can answer, or until the service is to stop."""
        for child in self._deployed.children:
            await child.start()
        if await rooms.first(self._stop.wait(), self._ready()) == 0:
            return
        _say(
            banner.ready(
                self._url, self._secret, self._config.models, time.monotonic() - started_at, _program()
            )
        )

    async def _ready(self) -> None:
        await asyncio.gather(
            self._answering.ready(), *(child.wait_ready() for child in self._deployed.children)
        )

    async def _drain(self) -> None:
        """New calls are refused, running ones may finish; a second signal or the grace ends the wait."""
        self._rooms.gate.drain()
        self._runner.drain()
        self._stop.clear()
        running = self._answering.running
        if running:
            _say(f"\nFinishing {running} running calls; press Ctrl-C again to stop at once.")
        await self._answering.drain(self._stop)

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)

    def _state(self) -> State:
        return "ok" if all(child.state == "ready" for child in self._deployed.children) else "starting"

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
