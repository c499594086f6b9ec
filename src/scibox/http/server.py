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

from scibox.core.errors import OperatorError

from .front import Entrance, Front
from .protocol import Patience, Protocol, Settings, Sweep

BACKLOG = 2048


class CannotListen(OperatorError):
    """The address is not to be had; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen, and with which certificate; `private` is a Unix socket that answers without one."""

    host: str
    port: int
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    patience: Patience = field(default_factory=Patience)
    private: Path | None = None


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

    def __init__(self, settings: Settings, private: Path | None) -> None:
        super().__init__(settings)
        self._settings = settings
        self._sweep = Sweep()
        self._private = private
        self.ready = asyncio.Event()  # set when connections are served

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on the sockets, and on the private one."""
        await super().startup(sockets)
        if self._private is not None:
            loop = asyncio.get_running_loop()
            self.servers.append(await loop.create_unix_server(self._protocol, str(self._private)))
        self.ready.set()

    async def take(self, connection: socket.socket) -> None:
        """Serve a connection that another process has accepted."""
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as asyncio does on its own
        with contextlib.suppress(OSError):  # the client has left, or what it said is no TLS
            await loop.connect_accepted_socket(self._protocol, connection, ssl=self._settings.ssl)

    def _protocol(self) -> asyncio.Protocol:
        return Protocol(self._settings, self.server_state, self.lifespan.state)

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
        check(listen)
        if listen.tls_certificate is not None and listen.tls_key is not None:
            assert self._settings.ssl is not None, "TLS is not switched on or off by a reload"
            # New connections are greeted with it; those that are open keep theirs.
            self._settings.ssl.load_cert_chain(listen.tls_certificate, listen.tls_key)
        self._settings.patience = listen.patience

    @property
    def has_started(self) -> bool:
        """Whether connections are accepted."""
        return self.started


def server(entrance: Entrance | Front, listen: Listen) -> Server:
    """A server for what is behind it; run it with `serve(sockets=[bind(listen)])`."""
    return Server(
        Settings(
            entrance,
            patience=listen.patience,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ssl_certfile=listen.tls_certificate,
            ssl_keyfile=listen.tls_key,
        ),
        listen.private,
    )


def check(listen: Listen) -> None:
    """Whether the certificate can be used, or `CannotListen`."""
    certificate, key = listen.tls_certificate, listen.tls_key
    if certificate is None or key is None:
        return
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
