"""Private servers for tests: PostgreSQL and Valkey (or Redis) as Debian packages them, on a Unix socket or loopback."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from valkey.asyncio import Valkey

START_S = 60.0


@dataclass(frozen=True)
class Server:
    """A running server; its process can be stopped and continued by the test."""

    url: str
    pid: int

    def pause(self) -> None:
        """It hangs: connections stay open and nothing is answered."""
        for pid in _family(self.pid):
            os.kill(pid, signal.SIGSTOP)

    def kill(self) -> None:
        """It is gone, with all that it kept in memory."""
        os.kill(self.pid, signal.SIGKILL)

    def go_on(self) -> None:
        """End of the pause."""
        for pid in _family(self.pid):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def postgres(keep: Path | None = None, port: int | None = None) -> Iterator[Server]:
    """A PostgreSQL of its own, without passwords and without fsync; its data stays in a folder to keep, if any."""
    programs = _postgres_programs()
    with folder("pg") as own:
        data, port = (keep or own) / "data", port or free_port()
        if not (data / "PG_VERSION").exists():
            data.mkdir(exist_ok=True)
            _give(data)
            _run(programs / "initdb", "--pgdata", data, "--auth=trust", "--username=scibox", "--no-sync",
                 "--encoding=UTF8", "--locale=C")  # fmt: skip
        command = _as_nobody([str(programs / "postgres"), "-D", str(data), "-p", str(port),
            "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={own}",
            "-c", "fsync=off", "-c", "max_connections=100", "-c", "shared_buffers=16MB"])  # fmt: skip
        with _process(command, signal.SIGQUIT, own) as process:  # SIGQUIT: stop at once
            _until_listening(process, port, own)
            url = f"postgresql://scibox@127.0.0.1:{port}/postgres"
            _until_ready([str(programs / "pg_isready"), "-q", "-d", url], process, own)
            yield Server(url, process.pid)


@contextlib.contextmanager
def valkey(port: int | None = None) -> Iterator[Server]:
    """A Valkey (or Redis) of its own that keeps nothing."""
    program = valkey_program()
    if program is None:
        raise AssertionError("no valkey-server and no redis-server here: see ./check")
    port = port or free_port()
    with folder("vk") as own:
        command = _as_nobody([program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                              "--dir", str(own)])  # fmt: skip
        with _process(command, signal.SIGKILL, own) as process:
            _until_listening(process, port, own)
            yield Server(f"redis://127.0.0.1:{port}/0", process.pid)


async def order(server: Server, *words: str | bytes | int) -> Any:
    """An order to a Valkey itself; what it replies is as valkey-py says it."""
    client = Valkey.from_url(server.url)
    try:
        return await client.execute_command(*words)
    finally:
        await client.aclose()


def new_database(url: str) -> str:
    """The URL of an empty database at that server."""
    name = f"test_{secrets.token_hex(8)}"
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
    return f"{url.rpartition('/')[0]}/{name}"


def has_postgres() -> bool:
    """Whether the programs are here."""
    return bool(list(Path("/usr/lib/postgresql").glob("*/bin/postgres")) or shutil.which("postgres"))


def valkey_program() -> str | None:
    """The path of valkey-server or redis-server."""
    return shutil.which("valkey-server") or shutil.which("redis-server")


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _postgres_programs() -> Path:
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3].split(".")[0])
    )
    on_path = shutil.which("postgres")
    if not found and on_path is None:
        raise AssertionError("no PostgreSQL here: see ./check")
    return found[-1].parent if found else Path(str(on_path)).resolve().parent


@contextlib.contextmanager
def folder(name: str) -> Iterator[Path]:
    """A short path, since it holds Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix=f"scibox-test-{name}-", dir="/tmp"))
    _give(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _give(path: Path) -> None:
    """PostgreSQL refuses to run as root."""
    if os.getuid() == 0:
        shutil.chown(path, "postgres" if has_postgres_user() else "nobody")


def has_postgres_user() -> bool:
    """Whether Debian's package has made its user."""
    return any(line.startswith("postgres:") for line in Path("/etc/passwd").read_text().splitlines())


def _as_nobody(command: Sequence[str]) -> list[str]:
    """Not as root, and not for longer than the thread that starts it lives: a killed test leaves no server."""
    user = "postgres" if has_postgres_user() else "nobody"
    who = [f"--reuid={user}", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
    return ["setpriv", "--pdeathsig=QUIT", *who, "--", *command]


def _run(*command: object) -> None:
    done = subprocess.run(
        _as_nobody([str(word) for word in command]), capture_output=True, text=True, cwd="/", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def _process(command: Sequence[str], end: signal.Signals, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/") as process,
    ):
        try:
            yield process
        finally:
            family = _family(process.pid)
            process.send_signal(end)
            for pid in family:  # one that was paused hears nothing else
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *(int(child) for child in (children.read_text().split() if children.exists() else ()))]


def _until_listening(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        _check_alive(process, folder, deadline)


def _until_ready(command: Sequence[str], process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_S
    while subprocess.run(command, check=False, cwd="/").returncode != 0:
        _check_alive(process, folder, deadline)


def _check_alive(process: subprocess.Popen[bytes], folder: Path, deadline: float) -> None:
    is_starting = process.poll() is None and time.monotonic() < deadline
    assert is_starting, (folder / "log").read_text()
    time.sleep(0.05)
