"""The worker processes of a service: started, watched, given connections, replaced, ended.

A reload (`app.py`) is one call: `await pool.replace(settings)`. New workers start with the new settings, and
when all of them answer, connections go to them; the old ones finish the calls they have, announce the end on
each connection that is kept, and go when the last has closed: no call is dropped. If a new worker cannot
start, `replace` raises `EngineFailed` and the old ones stay as they are. What the old ones still use (engines
that are gone from the configuration) must live until `await pool.settled()` returns.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

from msgspec import Raw, msgpack
from msgspec.structs import replace

from scibox.core.events import Emit, Notice
from scibox.engines.supervisor import Command, EngineEvent, Supervisor
from scibox.http.handing import Lane, Usher
from scibox.intercom.hub import Caller, Hub
from scibox.worker import Settings, encode

START_S = 60.0
KILL_S = 5.0  # a worker that has not gone so long after its time is killed
_load = msgpack.Decoder(tuple[int, int]).decode


class _Place:
    """The place of one worker, whichever process it is just now."""

    def __init__(self, supervisor: Supervisor, lane: Lane) -> None:
        self.supervisor = supervisor
        self.lane = lane


class Pool:
    """`sockets` is a private folder, `log` the descriptor that the workers write their log lines to."""

    def __init__(self, listener: socket.socket, hub: Hub, sockets: Path, log: int, emit: Emit) -> None:
        self._usher = Usher(listener, hub.warn)
        self._sockets = sockets
        self._log = log
        self._emit = emit
        self._places: list[_Place] = []
        self._retiring: dict[_Place, asyncio.Task[None]] = {}
        self._numbers = itertools.count(1)
        hub.told["load"] = self._hear

    async def start(self, settings: Settings) -> None:
        """Start as many workers as the settings say, and wait until all answer; raises EngineFailed."""
        self._places = await self._begin(settings)

    async def replace(self, settings: Settings) -> None:
        """Other workers with other settings; returns when they serve. EngineFailed: nothing has changed."""
        fresh = await self._begin(settings)
        old, self._places = self._places, fresh
        for place in old:
            place.lane.is_open = False
            # However long its calls may take: each has its own deadline.
            self._retire(place, settings.config.deadlines.total_s + KILL_S, signal.SIGUSR1)

    async def settled(self) -> None:
        """Wait until the workers that were replaced are gone."""
        while self._retiring:
            await asyncio.wait(self._retiring.values())

    async def drain(self, within_s: float) -> None:
        """Every worker refuses new calls and finishes those it has; returns when all are gone.

        Connections are accepted as long as somebody is there to refuse them.
        """
        self._signal(signal.SIGTERM)  # those that are being replaced have been told something else
        for place in self._places:
            self._retire(place, within_s + KILL_S, signal.SIGTERM)
        self._places = []
        ending = asyncio.create_task(self.settled())
        _, late = await asyncio.wait({ending}, timeout=within_s + 2 * KILL_S)
        if late:
            self._signal(signal.SIGKILL)
            await ending
        self._usher.stop()

    def hurry(self) -> None:
        """While they drain: end the calls now."""
        self._signal(signal.SIGUSR2)

    async def _begin(self, settings: Settings) -> list[_Place]:
        fresh = [self._place(settings) for _ in range(settings.config.server.workers)]
        try:
            for place in fresh:
                await place.supervisor.start()
            await asyncio.gather(*(place.supervisor.wait_ready() for place in fresh))
        except BaseException:
            await asyncio.gather(*(self._end(place, KILL_S, signal.SIGTERM) for place in fresh))
            raise
        return fresh

    def _place(self, settings: Settings) -> _Place:
        name = str(next(self._numbers))
        path = self._sockets / f"worker-{name}.sock"
        lane = Lane()
        own = replace(settings, private=str(path), lane=lane.end, log=self._log)
        supervisor = Supervisor(
            name,
            Command("scibox.worker", encode(own), keeps=(lane.end, self._log)),
            path,
            report=lambda event: self._note(lane, event),
            ready_timeout_s=START_S,
            kind="worker",
        )
        self._usher.add(lane)
        return _Place(supervisor, lane)

    def _note(self, lane: Lane, event: EngineEvent) -> None:
        match event.state:
            case "ready":
                self._usher.open(lane)
                if event.restarts:
                    self._emit(Notice(f"the worker {event.name} is back after {event.restarts} restarts"))
            case "restarting" | "failed":
                self._usher.shut(lane)
                self._emit(Notice(event.detail, is_warning=True))
            case _:
                pass

    def _hear(self, caller: Caller, body: Raw) -> None:
        """A worker tells how many connections it has taken, and how many it has."""
        for place in [*self._places, *self._retiring]:
            if place.supervisor.pid == caller.pid:
                place.lane.told(*_load(body))

    def _retire(self, place: _Place, grace_s: float, number: signal.Signals) -> None:
        task = asyncio.create_task(self._end(place, grace_s, number))
        self._retiring[place] = task
        task.add_done_callback(lambda _: self._retiring.pop(place))

    async def _end(self, place: _Place, grace_s: float, number: signal.Signals) -> None:
        await place.supervisor.stop(grace_s, number)
        self._usher.remove(place.lane)

    def _signal(self, number: signal.Signals) -> None:
        for place in self._retiring:
            if (pid := place.supervisor.pid) is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
