"""The listening side: uvicorn with our errors for malformed HTTP, and an end that drains."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from scibox.core.errors import InvalidRequest, OperatorError
from scibox.wire import errors

from .app import new_id

BACKLOG = 2048


class CannotListen(OperatorError):
    """The address is not to be had; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen, and with which certificate."""

    host: str
    port: int
    tls_certificate: Path | None = None
    tls_key: Path | None = None


def bind(listen: Listen) -> socket.socket:
    """A listening socket, or `CannotListen`."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((listen.host, listen.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise CannotListen(_why(listen, error)) from error
    sock.setblocking(False)
    return sock


def _why(listen: Listen, error: OSError) -> str:
    where = f"{listen.host}:{listen.port}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {listen.port} is in use on {listen.host}: stop the program that listens there, "
            f"or choose another with --port {listen.port + 1 if listen.port < 65535 else 4000}."
        )
    if error.errno == errno.EACCES:
        return f"No right to listen on {where}: choose a port above 1023 with --port."
    return f"Cannot listen on {where} ({error.strerror}): choose an address of this machine with --host."


class Server(uvicorn.Server):
    """uvicorn without its own signal handlers: `app.py` decides when it ends."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    @property
    def has_started(self) -> bool:
        """Whether connections are accepted."""
        return self.started


def server(app: ASGIApp, listen: Listen) -> Server:
    """A server for the application; run it with `serve(sockets=[bind(listen)])`."""
    return Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            ssl_certfile=listen.tls_certificate,
            ssl_keyfile=listen.tls_key,
        )
    )


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 whose own refusals have OpenAI's shape too."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP (RFC 9112) and close."""
        body = errors.render(
            InvalidRequest("This is not valid HTTP/1.1; check the client.", code="malformed_http")
        )
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {new_id()}\r\nconnection: close\r\n\r\n"
        )
        if not self.transport.is_closing():
            self.transport.write(head.encode() + body)
            self.transport.close()


async def stop(running: Server, task: asyncio.Task[None]) -> None:
    """End a server whose calls are over or given up."""
    running.should_exit = True
    running.force_exit = True
    await asyncio.gather(task, return_exceptions=True)
