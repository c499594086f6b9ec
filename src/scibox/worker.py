"""A worker process: the door and the way of every call; limits, slots and the queue are the main process's.

    python -m scibox.worker        settings on stdin, as every child

It has the connections that the main process hands it (`http/handing.py`), its own replicas, keyring and
journal, and asks the desk over the intercom. Batches, engines and the ledger's feeder are the main process's.
SIGTERM drains it: new calls are refused. SIGUSR1 lets it go when its clients have: what comes on the
connections it has is answered, and they are told to close.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import msgspec
import uvloop
from msgspec import Raw, Struct

from scibox import rooms
from scibox.config import Config
from scibox.core.errors import OperatorError
from scibox.engines.child import begin, fail
from scibox.gate.remote import RemoteDesk
from scibox.http import server
from scibox.http.handing import Taking
from scibox.http.info import State
from scibox.intercom.link import Link, LinkLost
from scibox.observe.log import Log
from scibox.router.replica import Route
from scibox.store.keys import KeyStore

LOOK_S = 0.1  # how often one that may go looks whether its clients have gone
_state = msgspec.msgpack.Decoder(State).decode


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker is told. `lane` and `log` are descriptors that it inherits."""

    config: Config
    routes: tuple[Route, ...]
    intercom: str  # the socket's path
    private: str = ""  # the path of the socket that it answers its supervisor on
    lane: int = -1
    log: int = 2


def encode(settings: Settings) -> bytes:
    """One line for a worker's stdin."""
    return msgspec.json.encode(settings, enc_hook=_plain)


def decode_hook(kind: type, value: object) -> object:
    """What JSON has no form of."""
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError


class Worker:
    """The rooms of one worker, and its life."""

    def __init__(self, settings: Settings, store: KeyStore) -> None:
        config, parts = settings.config, settings.config.server.workers
        log = Log(os.fdopen(settings.log, "w", 1, encoding="utf-8", errors="backslashreplace"))
        self._settings = settings
        self._emit = log.emit
        self._link = Link(Path(settings.intercom))
        names = rooms.directory(config, settings.routes)
        desk = RemoteDesk(self._link, rooms.local_desk(config, names, parts), parts, self._emit)
        self._rooms = rooms.Rooms(config, names, desk, store, self._emit)
        wake = partial(self._link.tell, "batches")
        listen = rooms.listen(config, Path(settings.private))
        self._web = server.server(self._rooms.door(lambda: self._state, wake), listen)
        self._state: State = "starting"
        self._stop = asyncio.Event()
        self._leave = asyncio.Event()
        self._connecting: set[asyncio.Task[None]] = set()

    async def live(self) -> int:
        """Serve until the main process says otherwise."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR1, self._leave.set)
        self._link.told["state"] = self._hear_state
        self._link.changed.append(self._on_change)
        await self._link.connect()
        serving = asyncio.create_task(self._web.serve(sockets=[]))
        await self._web.ready.wait()
        tasks = [*self._rooms.works(self._settings.routes), asyncio.create_task(self._take())]
        try:
            await rooms.first(self._stop.wait(), self._leave.wait(), *map(_failed, tasks), _failed(serving))
            if not self._stop.is_set():
                await rooms.first(self._stop.wait(), self._gone())
            self._stop.clear()
            await rooms.drain(self._rooms, self._stop)
        finally:
            await server.stop(self._web, serving)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._rooms.close()
            self._link.close()
        return 0

    async def _take(self) -> None:
        await Taking(
            self._settings.lane,
            self._begin,
            lambda: len(self._web.server_state.connections),
            lambda taken, held: self._link.tell("load", (taken, held)),
        ).run()

    def _begin(self, connection: socket.socket) -> None:
        task = asyncio.create_task(self._web.take(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _gone(self) -> None:
        """Wait until every client has left."""
        while self._connecting or self._web.server_state.connections:  # noqa: ASYNC110 - uvicorn's set
            await asyncio.sleep(LOOK_S)

    def _on_change(self) -> None:
        if self._link.is_up:
            asking = asyncio.create_task(self._ask_state())
            self._connecting.add(asking)
            asking.add_done_callback(self._connecting.discard)

    async def _ask_state(self) -> None:
        try:
            self._hear_state(await self._link.ask("state", None))
        except LinkLost:
            return

    def _hear_state(self, body: Raw) -> None:
        self._state = _state(body)


async def _failed(task: asyncio.Task[None]) -> None:
    """Wait until a part has failed, and fail with it; one that has ended well is no reason to end."""
    await asyncio.wait({task})
    task.result()
    await asyncio.Event().wait()


def main() -> int:
    """Serve with the settings on stdin."""
    settings = begin(Settings, decode_hook)
    try:
        with KeyStore(settings.config.data / "keys.db") as store:
            return uvloop.run(_live(settings, store))
    except OperatorError as error:
        fail(str(error))


async def _live(settings: Settings, store: KeyStore) -> int:
    return await Worker(settings, store).live()


if __name__ == "__main__":
    sys.exit(main())
