"""A real `scibox serve` for measurements: started in a folder of its own, ended by itself."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Service:
    """Where it listens, its operator's secret, its process, and the sockets of its engines."""

    base_url: str
    secret: str
    pid: int
    sockets: Path
    log: Path
    first_health_s: float
    ready_s: float

    def engine(self, index: int) -> str:
        """The address of an engine, past the gateway."""
        [folder] = self.sockets.glob("scibox-*")
        return f"unix:{folder}/{index}.sock"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running(
    data: Path, *flags: str, wait_s: float = 600.0, settings: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """The service on a free port, with its data in `data`; weights that are there are not fetched again.

    `settings` are environment variables of the service's.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="sb-") as folder:
        log = Path(folder) / "log"
        environ = {k: v for k, v in os.environ.items() if not k.startswith("SCIBOX_")}
        environ |= {"XDG_RUNTIME_DIR": folder, "SCIBOX_DATA": str(data), **(settings or {})}
        secret = _secret(environ)
        command = [sys.executable, "-m", "scibox.cli", "serve", "--port", str(port), *flags]
        began = time.monotonic()
        with log.open("wb") as stream:
            process = subprocess.Popen(command, env=environ, stderr=stream, stdin=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{port}"
            first = _until(process, log, lambda: _health(url) is not None, wait_s) - began
            ready = _until(process, log, lambda: _health(url) == "ok", wait_s) - began
            yield Service(url, secret, process.pid, Path(folder), log, first, ready)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


def _secret(environ: dict[str, str]) -> str:
    command = [sys.executable, "-m", "scibox.cli", "keys", "create", "bench", "--operator"]
    made = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    [secret] = re.findall(r"^sk-\S+$", made.stdout, re.MULTILINE)
    return str(secret)


def _until(process: subprocess.Popen[bytes], log: Path, holds, wait_s: float) -> float:  # type: ignore[no-untyped-def]
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"the service ended: {log.read_text()[-2000:]}")
        if holds():
            return time.monotonic()
        time.sleep(0.02)
    raise SystemExit(f"the service was not ready in {wait_s} s: {log.read_text()[-2000:]}")


def _health(url: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as answer:
            return str(json.load(answer)["status"])
    except OSError:
        return None


def resident_mb(pid: int) -> float:
    """Resident memory of a process and its children, in MB (10^6 bytes); shared pages counted once each."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(path.parent.name) == pid or int(fields[1]) == pid:
                rollup = (path.parent / "smaps_rollup").read_text()
                total += int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1]) * 1024  # type: ignore[index]
    return total / 1e6
