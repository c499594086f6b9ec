"""Who answers the calls of a service: its one process (`Alone`), or workers of it (`Crew`).

Both take a changed configuration over with `reload`: all of it, or an error and nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from msgspec import Raw

from scibox import rooms
from scibox.config import Config
from scibox.core.admission import Desk
from scibox.core.errors import Conflict, OperatorError
from scibox.core.events import Emit
from scibox.fleet import FleetBoard
from scibox.gate.repeated import RepeatsBoard
from scibox.gate.repeats import Repeats
from scibox.gate.switchboard import Switchboard
from scibox.http import server
from scibox.http.front import Entrance
from scibox.http.running import Reload
from scibox.intercom.hub import Caller, Hub, Turn
from scibox.pool import Pool
from scibox.router.replica import Route
from scibox.service.replicas import Fleet
from scibox.service.status import Status
from scibox.wire.admin.status import Reloaded
from scibox.wire.admin.status import Status as Report
from scibox.worker import Settings, Standing

LOOK_S = 0.1  # how often the engines' state is looked at, to tell the workers


class Answering(Protocol):
    """The two of them."""

    @property
    def elsewhere(self) -> int:
        """Calls that run in other processes."""

    async def serve(self, sock: socket.socket) -> None:
        """For ever."""

    async def ready(self) -> None:
        """Wait until connections are served."""

    async def reload(self, config: Config, adopt: Callable[[], Sequence[Route]]) -> None:
        """Answer by another configuration; `adopt` makes it hold in the main process."""

    async def follow(self, routes: Sequence[Route]) -> None:
        """Wait until these replicas hold in every process; the main process has them already."""

    def running(self, replica_id: str) -> int:
        """Calls of other processes at a replica; those that have not followed may have one."""

    def cut(self, replica_id: str) -> None:
        """End the calls of other processes at a replica."""

    async def settled(self) -> None:
        """Wait until nobody uses what only a former configuration has, except calls of this process."""

    async def drain(self, hurry: asyncio.Event) -> None:
        """Finish what runs: within the grace, or until somebody is in a hurry."""

    async def close(self) -> None:
        """The end."""


class Alone:
    """The main process answers itself."""

    def __init__(
        self,
        config: Config,
        own: rooms.Rooms,
        status: Status,
        reload: Reload,
        *,
        fleet: Fleet,
        wake: Callable[[], None],
    ) -> None:
        self._rooms = own
        self._build = partial(own.application, status=status, reload=reload, fleet=fleet, wake=wake)
        self._entrance = Entrance(self._build(config))
        self._web = server.server(self._entrance, rooms.listen(config))
        self._task: asyncio.Task[None] | None = None

    @property
    def elsewhere(self) -> int:
        """As `Answering` says."""
        return 0

    async def serve(self, sock: socket.socket) -> None:
        """As `Answering` says."""
        self._task = asyncio.create_task(self._web.serve(sockets=[sock]))
        await self._task

    async def ready(self) -> None:
        """As `Answering` says."""
        await self._web.ready.wait()

    async def reload(self, config: Config, adopt: Callable[[], Sequence[Route]]) -> None:
        """As `Answering` says. Without an `await`, so that no call sees half of it."""
        application = self._build(config)
        self._web.reload(rooms.listen(config))
        adopt()
        self._entrance.app = application

    async def follow(self, routes: Sequence[Route]) -> None:
        """As `Answering` says."""

    def running(self, replica_id: str) -> int:
        """As `Answering` says."""
        return 0

    def cut(self, replica_id: str) -> None:
        """As `Answering` says."""

    async def settled(self) -> None:
        """As `Answering` says."""

    async def drain(self, hurry: asyncio.Event) -> None:
        """As `Answering` says."""
        await self._rooms.drain(hurry)

    async def close(self) -> None:
        """As `Answering` says."""
        if self._task is not None:
            await server.stop(self._web, self._task)


class Crew:
    """Workers answer; the main process has the desk that they all ask. `routes` are those that hold now."""

    def __init__(
        self,
        config: Config,
        desk: Desk,
        repeats: Repeats,
        status: Status,
        reload: Reload,
        *,
        fleet: Fleet,
        routes: Callable[[], Sequence[Route]],
        sockets: Path,
        wake: Callable[[], None],
        emit: Emit,
    ) -> None:
        self._config = config
        self._status = status
        self._reload = reload
        self._routes = routes
        self._sockets = sockets
        self._intercom = sockets / "intercom.sock"
        self._wake = wake
        self._emit = emit
        self._hub = Hub(emit)
        self._switchboard = Switchboard(self._hub, desk)
        self._repeats = RepeatsBoard(self._hub, repeats)
        self._fleet = FleetBoard(self._hub, fleet, routes)
        self._pool: Pool | None = None
        self._ready = asyncio.Event()
        self._log = os.dup(sys.stderr.fileno())  # the workers' own is for their last words
        self._hub.asked |= {
            "standing": self._tell_standing,
            "report": self._tell_report,
            "reload": self._reload_for_worker,
        }
        self._hub.told["batches"] = self._batches_changed

    @property
    def elsewhere(self) -> int:
        """As `Answering` says."""
        return self._switchboard.calls

    async def serve(self, sock: socket.socket) -> None:
        """As `Answering` says."""
        await self._hub.start(self._intercom)
        pool = self._pool = Pool(sock, self._hub, self._sockets, self._log, self._emit)
        await pool.start(self._settings(self._config, self._routes()))
        self._ready.set()
        told = None
        while True:
            if (now := self._standing()) != told:
                told = now
                self._hub.tell_all("standing", now)
            await asyncio.sleep(LOOK_S)

    async def ready(self) -> None:
        """As `Answering` says."""
        await self._ready.wait()

    async def reload(self, config: Config, adopt: Callable[[], Sequence[Route]]) -> None:
        """As `Answering` says; the old workers answer until the new ones do."""
        assert self._pool is not None, "a reload waits for the start"
        server.check(rooms.listen(config))
        routes = adopt()  # first: the desk must know what the new workers will ask for
        await self._pool.replace(self._settings(config, routes))
        self._config = config

    async def follow(self, routes: Sequence[Route]) -> None:
        """As `Answering` says."""
        await self._fleet.tell()

    def running(self, replica_id: str) -> int:
        """As `Answering` says."""
        return self._fleet.running(replica_id)

    def cut(self, replica_id: str) -> None:
        """As `Answering` says."""
        self._hub.tell_all("replicas.cut", replica_id)

    async def settled(self) -> None:
        """As `Answering` says."""
        if self._pool is not None:
            await self._pool.settled()

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

    def _settings(self, config: Config, routes: Sequence[Route]) -> Settings:
        return Settings(config, tuple(routes), str(self._intercom), self._standing(), log=self._log)

    def _standing(self) -> Standing:
        return Standing(self._status.state, tuple(self._status.models.answering()))

    async def _tell_standing(self, caller: Caller, turn: Turn) -> Standing:
        return self._standing()

    async def _tell_report(self, caller: Caller, turn: Turn) -> Report:
        return await self._status.report()

    async def _reload_for_worker(self, caller: Caller, turn: Turn) -> Reloaded:
        try:
            return await self._reload()
        except OperatorError as error:
            raise Conflict(str(error)) from error

    def _batches_changed(self, caller: Caller, body: Raw) -> None:
        self._wake()

    async def _hurry(self, pool: Pool, hurry: asyncio.Event) -> None:
        await hurry.wait()
        pool.hurry()
