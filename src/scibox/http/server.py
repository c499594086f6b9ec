"""The listening side: uvicorn with a protocol of ours (`protocol.py`), and an end that drains."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from scibox.core.errors import OperatorError

from .protocol import Patience, Settings, Sweep

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
    patience: Patience = field(default_factory=Patience)


def bind(listen: Listen) -> socket.socket:
    """A listening socket, or `CannotListen`."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    # asyncio switches Nagle off only on sockets that say TCP: else every answer waits 40 ms for an ACK.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._sweep = Sweep()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; in every tenth, connections that have been slow for too long are closed."""
        if counter % 10 == 0:
            self._sweep(self.server_state.connections)
        return await super().on_tick(counter)

    def reload(self, listen: Listen) -> None:
        """Take over what may change while connections are open, or `CannotListen` and nothing."""
        if listen.tls_certificate is not None and listen.tls_key is not None:
            _check(listen.tls_certificate, listen.tls_key)
            assert self._settings.ssl is not None, "TLS is not switched on or off by a reload"
            # New connections are greeted with it; those that are open keep theirs.
            self._settings.ssl.load_cert_chain(listen.tls_certificate, listen.tls_key)
        self._settings.patience = listen.patience

    @property
    def has_started(self) -> bool:
        """Whether connections are accepted."""
        return self.started


def server(app: ASGIApp, listen: Listen) -> Server:
    """A server for the application; run it with `serve(sockets=[bind(listen)])`."""
    return Server(
        Settings(
            app,
            patience=listen.patience,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ssl_certfile=listen.tls_certificate,
            ssl_keyfile=listen.tls_key,
        )
    )


def _check(certificate: Path, key: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise CannotListen(
            f"{certificate} and {key} cannot be used ({error.strerror or error}): they must be a certificate "
            "and its key, both in PEM."
        ) from error


async def stop(running: Server, task: asyncio.Task[None]) -> None:
    """End a server whose calls are over or given up."""
    running.should_exit = True
    running.force_exit = True
    await asyncio.gather(task, return_exceptions=True)
