"""A worker process: the door and the way of every call; limits, slots and the queue are the main process's.

    python -m scibox.worker        settings on stdin, as every child

It has the connections that the main process hands it (`http/handing.py`), its own replicas, keyring and
journal, and asks the desk over the intercom. Batches, engines and the ledger's feeder are the main process's.
SIGTERM drains it: new calls are refused. SIGUSR1 lets it go when its clients have: what comes on the
connections it has is answered, and they are told to close. SIGUSR2 ends those that a drain would finish: a
signal of its own, since two of one kind that come close together are one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import uvloop
from msgspec import Raw, Struct

from scibox import __version__, rooms
from scibox.config import Config
from scibox.core.conditions import Condition
from scibox.core.errors import Conflict, OperatorError
from scibox.engines.child import begin, fail
from scibox.fleet import Following, RemoteFleet
from scibox.gate.gate import Gate
from scibox.gate.remote import RemoteDesk
from scibox.gate.repeated import RemoteRepeats
from scibox.http import server
from scibox.http.handing import Taking
from scibox.intercom.link import Link, LinkLost
from scibox.observe.log import Log
from scibox.process import first_of, quicken
from scibox.router.following import Follower
from scibox.router.replica import Route
from scibox.service.status import Part, State, Status
from scibox.store.keys import KeyStore
from scibox.wire.admin.status import Reloaded
from scibox.wire.admin.status import Status as Report

LOOK_S = 0.1  # how often one that may go looks whether its clients have gone


class Standing(Struct, frozen=True):
    """What the main process knows of the engines and upstreams."""

    state: State
    answering: tuple[str, ...]  # models that can probably answer now


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker is told. `lane` and `log` are descriptors that it inherits."""

    config: Config
    routes: tuple[Route, ...]
    intercom: str  # the socket's path
    standing: Standing
    private: str = ""  # the path of the socket that it answers its supervisor on
    lane: int = -1
    log: int = 2


_standing = msgspec.msgpack.Decoder(Standing).decode
_report = msgspec.msgpack.Decoder(Report).decode
_reloaded = msgspec.msgpack.Decoder(Reloaded).decode


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


class Heard:
    """The models, as the main process tells of them: `service.status.Models`."""

    def __init__(self, settings: Settings) -> None:
        self._names = [model.name for model in settings.config.models]
        self.standing = settings.standing

    @property
    def is_ready(self) -> bool:
        """As `Models` says."""
        return self.standing.state == "ok"

    def answering(self) -> Sequence[str]:
        """As `Models` says."""
        return self.standing.answering

    def names(self) -> Sequence[str]:
        """As `Models` says."""
        return self._names

    def conditions(self) -> Sequence[Condition]:
        """As `Models` says; the main process knows more."""
        return ()


class AskedStatus(Status):
    """What the main process tells, who knows the whole service."""

    def __init__(self, gate: Gate, models: Heard, link: Link, own: Part) -> None:
        super().__init__(gate, models, __version__, parts=(own, self._of_link))
        self._link = link

    async def report(self) -> Report:
        """Everything, for the operator; what is broken at this worker alone too."""
        here = await super().report()
        try:
            whole = _report(await self._link.ask("report", None))
        except LinkLost:
            return here
        known = {one.part for one in whole.broken}
        more = [one for one in here.broken if one.part not in known]
        if more and whole.status == "ok":
            whole.status = "degraded"
        whole.broken += more
        return whole

    def _of_link(self) -> list[Condition]:
        words = "The main process of the service cannot be asked: each worker serves its part of every limit."
        return [Condition("main process", self._link.is_up, words)]


class Worker:
    """The rooms of one worker, and its life."""

    def __init__(self, settings: Settings, store: KeyStore) -> None:
        config, parts = settings.config, settings.config.server.workers
        log = Log(os.fdopen(settings.log, "w", 1, encoding="utf-8", errors="backslashreplace"))
        self._settings = settings
        self._link = Link(Path(settings.intercom))
        desk = RemoteDesk(self._link, rooms.local_desk(config, self._slots, parts), parts, log.emit)
        self._follower = Follower(settings.routes)
        self._rooms = rooms.Rooms(
            config,
            desk,
            RemoteRepeats(self._link),
            store,
            log.emit,
            replicas=lambda: self._follower.replicas,
            look=lambda: None,  # the desk is the main process's, which looks itself
        )
        self._rooms.adopt(config, settings.routes)
        self._heard = Heard(settings)
        self._status = AskedStatus(self._rooms.gate, self._heard, self._link, self._rooms.conditions)
        wake = partial(self._link.tell, "batches")
        application = self._rooms.application(
            config, self._status, self._reload, RemoteFleet(self._link), wake
        )
        self._web = server.server(application, rooms.listen(config, Path(settings.private)))
        self._stop = asyncio.Event()
        self._leave = asyncio.Event()
        self._hurry = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()  # short ones; a task needs a holder

    async def live(self) -> int:
        """Serve until the main process says otherwise."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR1, self._leave.set)
        loop.add_signal_handler(signal.SIGUSR2, self._hurry.set)
        self._link.told["standing"] = self._hear
        self._link.changed.append(self._on_link)
        following = Following(self._link, self._follower)
        await self._link.connect()
        await following.ask()  # one that is started again was begun with replicas of long ago
        tasks = [asyncio.create_task(work) for work in (*self._rooms.works(), following.run())]
        await self._rooms.keys.started()  # or the first callers would be strangers
        serving = asyncio.create_task(self._web.serve(sockets=[]))
        await self._web.ready.wait()
        quicken()
        tasks.append(asyncio.create_task(self._take()))
        try:
            await first_of(self._stop.wait(), self._leave.wait(), *map(_failed, [*tasks, serving]))
            if not self._stop.is_set():
                self._status.is_leaving = True
                await first_of(self._stop.wait(), self._gone())
            await self._rooms.drain(self._hurry)
        finally:
            await server.stop(self._web, serving)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._rooms.close()
            self._link.close()
        return 0

    def _slots(self, model: str) -> Sequence[int]:
        return self._rooms.pipeline.directory.slots(model)

    async def _take(self) -> None:
        await Taking(
            self._settings.lane,
            lambda connection: self._begin(self._web.take(connection)),
            lambda: len(self._web.server_state.connections),
            lambda taken, held: self._link.tell("load", (taken, held)),
        ).run()

    async def _gone(self) -> None:
        """Wait until every client has left."""
        while self._tasks or self._web.server_state.connections:  # noqa: ASYNC110 - uvicorn's set
            await asyncio.sleep(LOOK_S)

    async def _reload(self) -> Reloaded:
        try:
            return _reloaded(await self._link.ask("reload", None))
        except Conflict as error:
            raise OperatorError(error.message) from error
        except LinkLost:
            raise OperatorError("the main process of the service cannot be asked now") from None

    def _hear(self, body: Raw) -> None:
        self._heard.standing = _standing(body)

    def _on_link(self) -> None:
        if self._link.is_up:
            self._begin(self._ask_standing())

    async def _ask_standing(self) -> None:
        with suppress(LinkLost):
            self._hear(await self._link.ask("standing", None))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _failed(task: asyncio.Task[None]) -> None:
    """Wait until a part has failed, and fail with it; one that has ended well is no reason to end."""
    await asyncio.wait({task})
    task.result()
    await asyncio.Event().wait()


def main() -> int:
    """Serve with the settings on stdin."""
    settings = begin(Settings, decode_hook)
    try:
        with KeyStore(settings.config.place("keys"), rooms.KEYS_PATIENCE_S) as store:
            return uvloop.run(_live(settings, store))
    except OperatorError as error:
        fail(str(error))


async def _live(settings: Settings, store: KeyStore) -> int:
    return await Worker(settings, store).live()


if __name__ == "__main__":
    sys.exit(main())
