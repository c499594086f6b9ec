"""A web server on the loopback address that behaves as badly as it is told to, and keeps a log."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler


@dataclass(frozen=True)
class Fault:
    """What one answer does wrong."""

    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    cut_after: int | None = None  # bytes of the body, then the connection is closed
    promise_more: int = 0  # added to Content-Length
    ignore_range: bool = False
    other_range: bool = False
    body: bytes | None = None  # instead of the file's
    pause_s: float = 0.0  # before every kilobyte


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    range: str | None
    if_range: str | None
    authorization: str | None


@dataclass
class Shelf:
    """Files by path, faults by path (the first ones are used up first), and the log."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    heads: dict[str, Fault] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    password: str | None = None
    log: list[Asked] = field(default_factory=list)
    base: str = ""

    def url(self, path: str) -> str:
        return self.base + path

    def ranges(self, path: str) -> list[str | None]:
        return [asked.range for asked in self.log if asked.path == path and asked.method == "GET"]


class Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shelf: Shelf

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._note()
        self._answer(self.shelf.heads.get(self.path, Fault(status=404)), b"")

    def do_GET(self) -> None:
        self._note()
        waiting = self.shelf.faults.get(self.path, [])
        fault = waiting.pop(0) if waiting else Fault()
        wanted = self.shelf.password
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        if wanted is not None and base64.b64decode(given).decode() != wanted:
            self._answer(Fault(status=401, headers=(("WWW-Authenticate", "Basic"),)), b"")
        elif self.path not in self.shelf.files:
            self._answer(Fault(status=404), b"")
        else:
            self._answer(fault, fault.body if fault.body is not None else self.shelf.files[self.path])

    def _note(self) -> None:
        get = self.headers.get
        self.shelf.log.append(
            Asked(self.command, self.path, get("Range"), get("If-Range"), get("Authorization"))
        )

    def _answer(self, fault: Fault, body: bytes) -> None:
        start, status = 0, fault.status or 200
        tag, asked = self.shelf.tags.get(self.path), self.headers.get("Range")
        same = self.headers.get("If-Range") in {None, tag}
        extra = list(fault.headers)
        if asked and same and status == 200 and not fault.ignore_range:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                status, extra = 416, [("Content-Range", f"bytes */{len(body)}")]
                body, start = b"", 0
            else:
                said = 1 if fault.other_range else start
                status, extra = 206, [*extra, ("Content-Range", f"bytes {said}-{len(body) - 1}/{len(body)}")]
        body = body[start:] if status < 300 else b""
        self.send_response(status)
        for name, value in extra:
            self.send_header(name, value)
        if tag:
            self.send_header("ETag", tag)
        if self.path.endswith("/"):
            self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body) + fault.promise_more))
        self.end_headers()
        if self.command == "GET":
            self._send(body[: fault.cut_after], fault)
        if fault.cut_after is not None or fault.promise_more:
            self.close_connection = True

    def _send(self, body: bytes, fault: Fault) -> None:
        try:
            if not fault.pause_s:
                self.wfile.write(body)
                return
            for at in range(0, len(body), 1024):
                time.sleep(fault.pause_s)
                self.wfile.write(body[at : at + 1024])
        except OSError:
            self.close_connection = True  # the client was killed, as the test wanted
