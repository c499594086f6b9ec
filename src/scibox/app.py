"""The only place where things are constructed and joined; and the service's life from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import uvloop

from scibox import __version__, additions, banner, rooms
from scibox.config import Changes, Config, changes, refuse_restarts
from scibox.core.conditions import Condition
from scibox.core.errors import Conflict, KeysUnavailable, OperatorError
from scibox.core.events import Notice
from scibox.crew import Alone, Answering, Crew
from scibox.deployed import Deployed, Plan, obtain, plan
from scibox.engines.supervisor import EngineEvent, EngineFailed
from scibox.http import server
from scibox.ledger.feeder import Feeder
from scibox.observe.log import Log
from scibox.observe.space import space
from scibox.process import aside, first_of, has_terminal, program, quicken, say, sockets_folder
from scibox.router.health import look
from scibox.router.replica import Route
from scibox.service import admin
from scibox.service.quotas import Quotas
from scibox.service.replicas import Replicas
from scibox.service.runner import Runner
from scibox.service.status import Status
from scibox.store.entries import LEDGER, EntryStore
from scibox.store.keys import KeyStore
from scibox.store.links import DatabaseAway
from scibox.store.replicas import Kept, ReplicaStore
from scibox.store.sql import Sql
from scibox.wire.admin.replicas import AdminReplica
from scibox.wire.admin.status import Reloaded

QUOTAS_S = 2.0  # until what was used of them is known; then the service starts without
KEYS_POLL_S = 1.0  # for the first key, after a first start without the database
SWEEP_S = 0.5  # how long an engine that nobody needs any more may stay


def serve(read: Callable[[], Config]) -> int:
    """Run the service until it is told to stop; returns the exit status. Each reload calls `read` again."""
    config = read()
    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.closing(
        server.bind(rooms.listen(config))
    ) as sock:  # first: a busy port must not cost a download
        replicas = ReplicaStore(config.place("keys"), rooms.KEYS_PATIENCE_S)
        kept = _kept(replicas)
        extra = additions.judge(config, kept, os.environ)
        first = plan(config, obtain(config, extra), extra)
        with KeyStore(config.place("keys"), rooms.KEYS_PATIENCE_S) as store, sockets_folder() as sockets:
            try:
                return uvloop.run(
                    Box(read, config, first, sockets, store, replicas=replicas, kept=kept).live(sock)
                )
            except EngineFailed as error:
                raise OperatorError(error.message) from error


class Box:
    """The main process: engines, batches, the desk; and the calls, or the workers that answer them."""

    def __init__(
        self,
        read: Callable[[], Config],
        config: Config,
        first: Plan,
        sockets: Path,
        store: KeyStore,
        *,
        replicas: ReplicaStore,
        kept: Sequence[Kept],
    ) -> None:
        self._read = read
        self._store = store
        self._log = Log()
        self._stop = asyncio.Event()
        self._changing = asyncio.Lock()  # of the configuration
        self._aside: set[asyncio.Task[Any]] = set()  # reloads and what follows them; Any: of any result
        self._limits = rooms.shared_limits(config, self._log.emit)
        self._desk = rooms.local_desk(config, self._slots, limiter=self._limits)
        self._repeats = rooms.local_repeats(config)
        self._deployed = Deployed(sockets, self._note, lambda name: self._answering.running(name))  # noqa: PLW0108 - it is there later
        self._rooms = rooms.Rooms(
            config,
            self._desk,
            self._repeats,
            store,
            self._log.emit,
            replicas=lambda: self._deployed.replicas,
            look=self._desk.look,
        )
        self._replicas = Replicas(replicas, self, time.time, kept)
        self._ledger = Sql(config.place("ledger"), LEDGER)
        self._feeder = Feeder(
            config.data / "journal", EntryStore(self._ledger), self._log.emit, keep_s=_keep_s(config)
        )
        self._quotas = Quotas(
            self._desk.limiter, self._rooms.quotas, self._rooms.usage.of_period, self._log.emit
        )
        self._runner = Runner(self._rooms.tools)
        self._status = Status(
            self._rooms.gate,
            self._deployed,
            __version__,
            parts=(self._rooms.conditions, self._runner.conditions, self._conditions),
            slow_parts=(lambda: [space(config.data)],),
            elsewhere=lambda: self._answering.elsewhere,
            load=self._desk.load,
        )
        self._deployed.begin(first)
        self._adopt(config, first)
        self._answering = self._who_answers(config, sockets)

    async def live(self, sock: socket.socket) -> int:
        """Start, serve, drain, end."""
        self._watch_signals()
        if self._limits is not None:
            await self._limits.start()
        await self._quotas.start(within_s=QUOTAS_S)
        self._feeder.start()
        began_at = time.monotonic()
        tasks = [
            self._watch(work)
            for work in (
                self._answering.serve(sock),
                *self._rooms.works(),
                self._quotas.run(),
                self._replicas.run(),
                self._sweep(),
            )
        ]
        try:
            await self._greet()
            tasks.append(self._watch(self._await_keys()))
            await self._start(began_at)
            quicken()
            tasks.append(self._watch(self._runner.run()))
            await self._stop.wait()
            await self._drain()
        finally:
            await self._runner.stop(rooms.LAST_WORDS_S)
            await self._answering.close()
            ending = [*tasks, *self._aside]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            await asyncio.gather(*(child.stop() for child in self._deployed.children))
            if self._limits is not None:
                await self._limits.stop()
            await self._rooms.close()
            await self._feeder.stop(rooms.LAST_WORDS_S)
            self._ledger.close()
        say("Stopped.")
        return 0

    def _watch(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._on_end)
        return task

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """A part of the service that fails ends the service: whoever keeps it alive starts it whole again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.emit(
                Notice(f"the service stops, since a part of it failed: {error!r}", is_warning=True)
            )
            self._stop.set()

    # the start

    async def _greet(self) -> None:
        keys = self._rooms.keys
        await keys.started()
        self._secret = await self._first_secret() if keys.ring.trouble is None else None
        say(banner.greeting(__version__, self._config.server.url, str(self._config.data), self._secret))
        if keys.ring.is_empty:
            say(banner.no_keys(keys.ring.trouble or "it was away a moment ago"))

    async def _first_secret(self) -> str | None:
        """The operator's, where there is no key at all: it is made once, and known before it is shown."""
        keys = self._rooms.keys
        if not keys.ring.is_empty:
            return None
        with contextlib.suppress(DatabaseAway):
            secret = await asyncio.to_thread(admin.ensure_operator, self._store, time.time())
            with contextlib.suppress(KeysUnavailable):
                await keys.refresh()
            return secret
        return None

    async def _await_keys(self) -> None:
        """After a first start without the database: make the operator's key as soon as that can be done."""
        keys = self._rooms.keys
        await keys.started()
        while keys.ring.is_empty:
            await asyncio.sleep(KEYS_POLL_S)
            if keys.ring.trouble is None and (secret := await self._first_secret()) is not None:
                say(banner.first_key(secret))

    async def _start(self, began_at: float) -> None:
        """Start the children and wait until calls can be answered, or until the service is to stop."""
        async with self._changing:
            if await first_of(self._stop.wait(), self._ready()) == 0:
                return
        seconds = time.monotonic() - began_at
        say(banner.ready(self._config.server.url, self._secret, self._config.models, seconds, program()))

    async def _ready(self) -> None:
        await asyncio.gather(self._deployed.ready(self._deployed.plan), self._answering.ready())

    # a changed configuration

    def _adopt(self, config: Config, new: Plan) -> Sequence[Route]:
        """Serve by this from the next call on. Without an `await`, so that no call sees half of it."""
        self._config = config
        self._deployed.adopt(new)
        self._rooms.adopt(config, self._deployed.routes)
        self._desk.queue_per_model = config.gate.queue_per_model
        self._desk.queue_per_owner = config.gate.queue_per_owner
        self._desk.look()
        self._feeder.keep_s = _keep_s(config)
        return self._deployed.routes

    def _reload(self) -> asyncio.Task[Changes]:
        """Begin to take over the configuration as it is now; it goes on if whoever asked for it leaves."""
        task = asyncio.create_task(self._take_over())
        self._aside.add(task)
        task.add_done_callback(self._on_reloaded)
        return task

    def _on_reloaded(self, task: asyncio.Task[Changes]) -> None:
        self._aside.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        told = f"nothing has changed: {error}" if error else f"it was reloaded: {task.result()}"
        self._log.emit(Notice(f"the configuration: {told}", is_warning=error is not None))

    async def _reload_for_operator(self) -> Reloaded:
        found = await asyncio.shield(self._reload())
        return Reloaded(
            settings=list(found.settings),
            models_added=list(found.added),
            models_changed=list(found.changed),
            models_removed=list(found.removed),
        )

    async def _take_over(self) -> Changes:
        """All of it, or OperatorError and nothing."""
        async with self._changing:
            if self._rooms.gate.is_draining:
                raise OperatorError("the service is stopping")
            old, new = self._config, await asyncio.to_thread(self._read)
            refuse_restarts(old, new)
            before, wanted = self._deployed.plan, await aside(lambda: _planned(new, self._replicas.kept))
            added = self._deployed.begin(wanted)
            try:
                await self._deployed.ready(added)
                await look(self._rooms.client, self._deployed.replicas)
                await self._answering.reload(new, lambda: self._adopt(new, wanted))
            except BaseException as error:
                if self._config is not old:
                    self._adopt(old, before)
                if isinstance(error, EngineFailed):
                    raise OperatorError(error.message) from error
                raise
            finally:
                self._begin_release()
        return changes(old, new)

    def _begin_release(self) -> None:
        releasing = asyncio.create_task(self._release())
        self._aside.add(releasing)
        releasing.add_done_callback(self._aside.discard)

    async def _release(self) -> None:
        """What only a former plan has may go when its last calls have ended."""
        await self._answering.settled()
        async with self._changing:
            self._deployed.release()

    # replicas at run time: `service.replicas.Served`

    def members(self) -> list[AdminReplica]:
        """The replicas as they are."""
        return self._deployed.members()

    async def apply(self, kept: Sequence[Kept]) -> None:
        """Serve by these from now on, beside what the configuration says; raises, and nothing has changed."""
        async with self._changing:
            config, draining = self._config, {one.id for one in kept if one.is_draining}
            known = {one.id for one in self._replicas.kept}
            for one in kept:
                if one.is_added and one.id not in known:
                    additions.addition(config, one, os.environ)  # a new one must be right, whole
            wanted = await aside(lambda: _planned(config, kept))
            added = self._deployed.begin(wanted)
            try:
                await self._deployed.ready(added)
                await look(self._rooms.client, [self._deployed.replica(way) for way in added])
                self._deployed.change(wanted)
            except EngineFailed as error:
                raise Conflict(error.message, code="engine_failed", should_retry=False) from error
            finally:
                self._begin_release()
            self._desk.look()
            await self._answering.follow(self._deployed.routes)
        names = ", ".join(sorted(draining)) or "none"
        self._log.emit(Notice(f"replicas: {len(added)} more; drained are: {names}"))

    def cut(self, replica_id: str) -> None:
        """End its calls."""
        self._deployed.cut(replica_id)
        self._answering.cut(replica_id)

    async def _sweep(self) -> None:
        while True:
            await self._deployed.sweep()
            await asyncio.sleep(SWEEP_S)

    # the end

    async def _drain(self) -> None:
        """New calls are refused, running ones may finish; a second signal or the grace ends the wait."""
        self._rooms.gate.drain()
        self._runner.drain()
        self._stop.clear()
        running = self._rooms.gate.in_flight + self._answering.elsewhere
        if running:
            say(f"\nFinishing {running} running calls; press Ctrl-C again to stop at once.")
        await self._answering.drain(self._stop)

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        had_terminal = has_terminal()

        def hang_up() -> None:
            if had_terminal and not has_terminal():  # it was closed: nobody asks for a reload so
                self._stop.set()
            else:
                self._reload()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, hang_up)

    # the parts

    def _conditions(self) -> list[Condition]:
        feeder = self._feeder
        words = (
            f"It is away ({feeder.trouble}): see to it, or to its server. Calls go on, and the journal keeps "
            "their entries until it is back."
        )
        ledger = Condition("database of the ledger", feeder.trouble is None, words, feeder.trouble_since)
        if self._limits is None:
            return [ledger]
        return [ledger, Condition("shared limits", not self._limits.is_degraded, self._limits.words)]

    def _slots(self, model: str) -> Sequence[int]:
        return self._rooms.pipeline.directory.slots(model)  # of the directory that holds now

    def _who_answers(self, config: Config, sockets: Path) -> Answering:
        if config.server.workers == 1:
            return Alone(
                config,
                self._rooms,
                self._status,
                self._reload_for_operator,
                fleet=self._replicas,
                wake=self._runner.wake,
            )
        return Crew(
            config,
            self._desk,
            self._repeats,
            self._status,
            self._reload_for_operator,
            fleet=self._replicas,
            routes=lambda: self._deployed.routes,
            sockets=sockets,
            wake=self._runner.wake,
            emit=self._log.emit,
        )

    def _note(self, event: EngineEvent) -> None:
        """What happens to the children, for the log; a ready one is no news at the first start."""
        if event.state in {"restarting", "failed"}:
            self._log.emit(Notice(event.detail, is_warning=True))
        elif event.state == "ready" and event.restarts:
            self._log.emit(Notice(f"the engine {event.name} is back after {event.restarts} restarts"))


def _planned(config: Config, kept: Sequence[Kept]) -> Plan:
    """Blocks: weights may have to be fetched."""
    extra = additions.judge(config, kept, os.environ)
    return plan(config, obtain(config, extra), extra)


def _kept(store: ReplicaStore) -> Sequence[Kept]:
    """What was changed in an earlier life; while the database is away the configuration holds alone."""
    try:
        return store.all()
    except (DatabaseAway, OperatorError):
        return ()


def _keep_s(config: Config) -> float:
    return config.ledger.keep_days * admin.DAY_S
