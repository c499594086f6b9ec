"""A real `scibox serve` process for tests: started, watched, ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

SERVE = [sys.executable, "-m", "scibox.cli"]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def environment(data: Path) -> dict[str, str]:
    """The environment without settings of the developer's own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SCIBOX_")}
    return {**kept, "SCIBOX_DATA": str(data), "PYTHONUNBUFFERED": "1"}


def scibox(
    data: Path, *arguments: str, timeout_s: float = 60, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command of the command line."""
    return subprocess.run(
        [*SERVE, *arguments],
        env={**environment(data), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


class Serve:
    """`scibox serve` with its data in a folder; ends with the `with`."""

    def __init__(
        self,
        data: Path,
        *flags: str,
        command: list[str] | None = None,
        port: int | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._environ = environ or {}
        self.port = port or free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.data = data
        self._runtime = tempfile.TemporaryDirectory(prefix="sb-")
        self._log = Path(self._runtime.name) / "log"
        self._command = [*(command or SERVE), "serve", "--port", str(self.port), *flags]
        self.secret = ""
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Serve:
        env = {**environment(self.data), "XDG_RUNTIME_DIR": self._runtime.name, **self._environ}
        with self._log.open("wb") as stream:
            self.process = subprocess.Popen(
                self._command,
                env=env,
                stdout=stream,
                stderr=stream,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._runtime.cleanup()

    def stop(self, number: signal.Signals = signal.SIGTERM, within_s: float = 30) -> int:
        """End it and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def said(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def until(self, holds: Callable[[], bool], within_s: float = 120) -> None:
        end = time.monotonic() + within_s
        while not holds():
            if self.process.poll() is not None:
                raise AssertionError(f"the service ended with {self.process.returncode}:\n{self.said()}")
            if time.monotonic() > end:
                raise AssertionError(f"not within {within_s} s:\n{self.said()}")
            time.sleep(0.02)

    def until_said(self, words: str, within_s: float = 120) -> None:
        self.until(lambda: words in self.said(), within_s)

    def until_ready(self, within_s: float = 120) -> Serve:
        self.until(lambda: self.get("/health")[1].get("status") == "ok", within_s)
        return self

    def get(self, path: str, secret: str | None = None) -> tuple[int, Any]:
        return self.ask("GET", path, None, secret)

    def post(self, path: str, body: object, secret: str | None = None) -> tuple[int, Any]:
        return self.ask("POST", path, body, secret)

    def ask(self, method: str, path: str, body: object, secret: str | None = None) -> tuple[int, Any]:
        """Status and JSON of an answer; status 0 when the service cannot be reached."""
        headers = {"content-type": "application/json", "authorization": f"Bearer {secret or self.secret}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base_url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:
            return 0, {}

    def operator_secret(self) -> str:
        """The secret that the first start shows."""
        [secret] = set(re.findall(r"sk-scibox-[0-9A-Za-z]{36}", self.said()))
        return str(secret)

    def children(self) -> list[int]:
        """Process ids of its engines."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.process.pid and fields[0] != "Z":
                    found.append(int(stat.parent.name))
        return sorted(found)
