"""Keeps one engine child alive: starts it, waits until it answers, starts it again when it ends.

What it decides is in `restarts.py`; this is the shell around it. A hung engine is not looked for: calls have
deadlines of their own, and on a busy machine a slow `/health` is no reason to kill what is decoding.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from scibox.core.errors import UpstreamUnavailable
from scibox.engines.child import LAST_WORD, PROGRESS
from scibox.engines.restarts import PERMANENT_CODES, Restarts

State = Literal["starting", "ready", "restarting", "stopped", "failed"]
KEPT_LINES = 40
MAX_LINE = 500
PROBE_INTERVAL_S = 0.05
MAX_SOCKET_PATH = 107  # bytes; sun_path of unix(7) less its NUL


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: `python -m <module>` with one line of JSON on stdin, `env` over the parent's own.

    It inherits the descriptors `keeps` under their own numbers.
    """

    module: str
    settings: bytes
    env: Mapping[str, str] = field(default_factory=dict)
    keeps: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Something happened to an engine; `detail` is for people and holds its last lines when it failed."""

    name: str
    state: State
    pid: int | None = None
    restarts: int = 0
    detail: str = ""


class EngineFailed(UpstreamUnavailable):
    """The engine cannot be started; the message says why and what it printed last."""

    code = "engine_failed"


class Supervisor:
    """Keeps `command` running and answering on `socket`; one task, cancelled by `stop`."""

    def __init__(
        self,
        name: str,
        command: Command,
        socket: Path,
        *,
        report: Callable[[EngineEvent], None],
        ready_timeout_s: float = 120.0,
        kind: str = "engine",
        grace_s: float = 3.0,
    ) -> None:
        self.name = name
        self._called = f"{kind} {name}"
        self.command = command
        self.socket = socket
        self.restarts = 0
        self.since = time.time()  # Unix seconds, of the state
        self.words = ""  # for the operator: why it is in this state, and what to do
        self._report = report
        self._ready_timeout_s = ready_timeout_s
        self._state: State = "stopped"
        self._grace_s = grace_s
        self._signal = signal.SIGTERM
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._policy = Restarts()
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: EngineFailed | None = None
        self._settled = asyncio.Event()  # ready, failed or stopped: nothing to wait for

    @property
    def state(self) -> State:
        """What the engine is doing."""
        return self._state

    @property
    def pid(self) -> int | None:
        """The running child, also its process group."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Begin to keep the engine alive; returns at once. EngineFailed when the socket path is too long."""
        if self._task is not None:
            return
        if len(os.fsencode(self.socket)) > MAX_SOCKET_PATH:
            raise EngineFailed(
                f"The socket path of the {self._called} has more than {MAX_SOCKET_PATH} bytes, which the "
                f"system does not allow: choose a shorter data folder. It is {self.socket}"
            )
        self.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._failure, self._policy = None, Restarts()
        self._settled.clear()
        self._enter("starting")
        self._task = asyncio.create_task(self._keep_alive(), name=f"supervisor of {self._called}")

    async def wait_ready(self) -> None:
        """Wait until `/health` answers 200; raises EngineFailed when it never will."""
        await self._settled.wait()
        if self._failure is not None:
            raise self._failure

    async def stop(self, grace_s: float | None = None, number: signal.Signals = signal.SIGTERM) -> None:
        """A signal to the child and its children, SIGKILL after the grace; returns when they are gone."""
        if self._task is None:
            return
        task, self._task = self._task, None
        if grace_s is not None:
            self._grace_s = grace_s
        self._signal = number
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if self._failure is None:
            self._failure = EngineFailed(f"The {self._called} was stopped.")
        self._enter("stopped")

    async def _keep_alive(self) -> None:
        while True:
            try:
                code = await self._run_once()
            except Exception as error:  # whatever it is, nobody else would start the engine again
                self._lines.append(str(error) or repr(error))
                code = None
            self._policy = self._policy.ended(time.monotonic())
            if self._policy.is_hopeless(code):
                self._failure = EngineFailed(self._why(code))
                self._enter("failed", self._failure.message)
                return
            self._enter("restarting", self._why(code))
            await asyncio.sleep(self._policy.delay_s)
            self.restarts += 1

    async def _run_once(self) -> int | None:
        """One life of the child: its exit code, None when it never became ready in time."""
        self._lines.clear()
        self.socket.unlink(missing_ok=True)  # a child that was killed leaves it behind
        self._process = process = await self._spawn()
        reading = asyncio.create_task(self._collect(process))
        try:
            if await self._becomes_ready(process):
                self._policy = self._policy.ready(time.monotonic())
                self._enter("ready")
                await process.wait()
            return process.returncode
        finally:
            self._settled.clear()
            await _end(process, self._grace_s, self._signal)
            self._process = None
            await reading  # the pipe is at its end: the whole group is gone

    async def _spawn(self) -> asyncio.subprocess.Process:
        # -P: a file of the working folder must not stand in for a module of ours.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", self.command.module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **self.command.env},
            pass_fds=self.command.keeps,
            start_new_session=True,
        )
        assert process.stdin is not None
        # It may be gone already; its exit code says more. uvloop raises RuntimeError for a closed pipe.
        with suppress(ConnectionError, RuntimeError):
            process.stdin.write(self.command.settings.rstrip(b"\n") + b"\n")
            await process.stdin.drain()
        return process

    async def _becomes_ready(self, process: asyncio.subprocess.Process) -> bool:
        probing = asyncio.ensure_future(_until_healthy(self.socket))
        exiting = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait(
                {probing, exiting}, timeout=self._ready_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            return probing.done() and not exiting.done()
        finally:
            probing.cancel()
            exiting.cancel()

    async def _collect(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        rest = b""
        while piece := await process.stdout.read(8192):
            *lines, rest = (rest + piece).split(b"\n")
            rest = rest[-MAX_LINE:]
            for line in lines:
                self._hear(line[:MAX_LINE].decode("utf-8", "replace"))
        if rest:
            self._hear(rest.decode("utf-8", "replace"))

    def _hear(self, line: str) -> None:
        if not line.startswith(PROGRESS):
            self._lines.append(line)
        elif self._state in {"starting", "restarting"}:
            told = line.removeprefix(PROGRESS)
            self.words = f"The engine {self.name} {told}; it answers when that is done."
            self._report(EngineEvent(self.name, "starting", self.pid, self.restarts, self.words))

    def _enter(self, state: State, detail: str = "") -> None:
        self._state = state
        self.since, self.words = time.time(), _advice(self.name, state, detail)
        if state in ("ready", "failed", "stopped"):
            self._settled.set()
        self._report(EngineEvent(self.name, state, self.pid, self.restarts, detail))

    def _why(self, code: int | None) -> str:
        lines = [line for line in self._lines if line.strip()]
        told = [line.removeprefix(LAST_WORD) for line in lines if line.startswith(LAST_WORD)]
        if code in PERMANENT_CODES and told:
            return f"The {self._called} cannot start: {told[-1]}"
        end = (
            f"was not ready within {self._ready_timeout_s:g} s"
            if code is None
            else f"ended {_describe(code)}"
        )
        last = "".join(f"\n    {line}" for line in lines[-8:]) or " nothing"
        return f"The {self._called} {end}. It printed last:{last}"


def _advice(name: str, state: State, detail: str) -> str:
    match state:
        case "starting":
            return f"The engine {name} loads its weights; it answers when that is done."
        case "restarting":
            return f"{detail}\nIt is started again by itself; if it goes on ending, what it printed says why."
        case "failed":
            return f"{detail}\nMend that, then reload the configuration or restart the service."
        case _:
            return detail


def _describe(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    with suppress(ValueError):
        return f"by {signal.Signals(-code).name}"
    return f"by signal {-code}"


async def _end(process: asyncio.subprocess.Process, grace_s: float, number: signal.Signals) -> None:
    """End the child's whole group, politely first; shielded by nothing, so it must not be cancelled twice."""
    ended = asyncio.ensure_future(process.wait())
    if process.returncode is None:
        _signal_group(process.pid, number)
        # Not asyncio.timeout: until Python 3.11.3 its end is no TimeoutError in a task that was cancelled
        # before, as ours was by `stop`, and the child would live on.
        await asyncio.wait({ended}, timeout=grace_s)
    _signal_group(process.pid, signal.SIGKILL)  # also what the child itself has started
    await ended


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


async def _until_healthy(socket: Path) -> None:
    while not await is_healthy(socket):  # noqa: ASYNC110 - it is another process; nothing else can tell
        await asyncio.sleep(PROBE_INTERVAL_S)


async def is_healthy(socket: Path, timeout_s: float = 2.0) -> bool:
    """Whether `GET /health` on the Unix socket answers 200."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(b"GET /health HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
                return (await reader.readline()).split()[1:2] == [b"200"]
            finally:
                writer.close()
    except OSError:  # TimeoutError is one
        return False
