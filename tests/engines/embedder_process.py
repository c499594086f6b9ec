"""A running embedder on a Unix socket, and the little HTTP its tests need."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

START_S = 60


class UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("embedder", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Running:
    """The child process; `stop` ends it."""

    def __init__(self, folder: Path, weights: Path, **settings: object) -> None:
        self.socket = folder / "e.sock"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scibox.engines.embedder"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        told = {"socket": str(self.socket), "weights": str(weights), "name": "tiny", "threads": 1} | settings
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told).encode() + b"\n")
        self.process.stdin.flush()

    def wait(self) -> Running:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            assert self.process.poll() is None, self.process.stderr.read()
            try:
                if self.get("/health")[0] == 200:
                    return self
            except (ConnectionError, FileNotFoundError):
                pass
            time.sleep(0.02)
        raise AssertionError("the embedder did not start")

    def get(self, path: str) -> tuple[int, Any]:
        return self._ask("GET", path, None)

    def post(self, path: str, body: object) -> tuple[int, Any]:
        return self._ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())

    def _ask(self, method: str, path: str, body: bytes | None) -> tuple[int, Any]:
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def resident_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def stop(self) -> int:
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
        code = self.process.wait(10)
        if self.process.stderr:
            self.process.stderr.close()
        return code
