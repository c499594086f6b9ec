"""Who answers the calls of a service: its one process (`Alone`), or workers of it (`Crew`)."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Raw

from scibox import rooms
from scibox.config import Config
from scibox.core.admission import Desk
from scibox.core.events import Emit
from scibox.gate.office import Office
from scibox.http import server
from scibox.http.info import State
from scibox.intercom.hub import Caller, Hub, Turn
from scibox.pool import Pool
from scibox.router.replica import Route
from scibox.worker import Settings

LOOK_S = 0.1  # how often the engines' state is looked at, to tell the workers


class Answering(Protocol):
    """The two of them."""

    @property
    def running(self) -> int:
        """Calls under way."""

    async def serve(self, sock: socket.socket, state: Callable[[], State]) -> None:
        """For ever."""

    async def ready(self) -> None:
        """Wait until connections are served."""

    async def drain(self, hurry: asyncio.Event) -> None:
        """Finish what runs: within the grace, or until somebody is in a hurry."""

    async def close(self) -> None:
        """The end."""


class Alone:
    """The main process answers itself."""

    def __init__(self, config: Config, own: rooms.Rooms, wake: Callable[[], None]) -> None:
        self._config = config
        self._rooms = own
        self._wake = wake
        self._web: server.Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        """As `Answering` says."""
        return self._rooms.gate.in_flight

    async def serve(self, sock: socket.socket, state: Callable[[], State]) -> None:
        """As `Answering` says."""
        web = self._web = server.server(self._rooms.door(state, self._wake), rooms.listen(self._config))
        self._task = asyncio.create_task(web.serve(sockets=[sock]))
        await self._task

    async def ready(self) -> None:
        """As `Answering` says."""

    async def drain(self, hurry: asyncio.Event) -> None:
        """As `Answering` says."""
        await rooms.drain(self._rooms, hurry)

    async def close(self) -> None:
        """As `Answering` says."""
        if self._web is not None and self._task is not None:
            await server.stop(self._web, self._task)


class Crew:
    """Workers answer; the main process has the desk that they all ask."""

    def __init__(
        self,
        config: Config,
        routes: Sequence[Route],
        desk: Desk,
        *,
        sockets: Path,
        wake: Callable[[], None],
        emit: Emit,
    ) -> None:
        self._config = config
        self._routes = tuple(routes)
        self._sockets = sockets
        self._wake = wake
        self._emit = emit
        self._hub = Hub(emit)
        self._office = Office(self._hub, desk)
        self._pool: Pool | None = None
        self._ready = asyncio.Event()
        self._log = os.dup(sys.stderr.fileno())  # the workers' own is for their last words

    @property
    def running(self) -> int:
        """As `Answering` says."""
        return self._office.running

    async def serve(self, sock: socket.socket, state: Callable[[], State]) -> None:
        """As `Answering` says."""

        async def tell_state(caller: Caller, turn: Turn) -> State:
            return state()

        def batches_changed(caller: Caller, body: Raw) -> None:
            self._wake()

        self._hub.asked["state"] = tell_state
        self._hub.told["batches"] = batches_changed
        path = self._sockets / "intercom.sock"
        await self._hub.start(path)
        pool = self._pool = Pool(sock, self._hub, self._sockets, self._log, self._emit)
        await pool.start(Settings(self._config, self._routes, str(path)))
        self._ready.set()
        told = state()
        while True:
            await asyncio.sleep(LOOK_S)
            if (now := state()) != told:
                told = now
                self._hub.tell_all("state", now)

    async def ready(self) -> None:
        """As `Answering` says."""
        await self._ready.wait()

    async def drain(self, hurry: asyncio.Event) -> None:
        """As `Answering` says."""
        if self._pool is None:
            return
        hurrying = asyncio.create_task(self._hurry(self._pool, hurry))
        try:
            await self._pool.drain(self._config.server.drain_s + rooms.LAST_WORDS_S)
        finally:
            hurrying.cancel()

    async def close(self) -> None:
        """As `Answering` says."""
        if self._pool is not None:
            await self._pool.drain(0.0)
        self._hub.stop()
        os.close(self._log)

    async def _hurry(self, pool: Pool, hurry: asyncio.Event) -> None:
        await hurry.wait()
        pool.hurry()
