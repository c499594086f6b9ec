"""Replicas at run time where several processes answer: workers ask the main process, and follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Raw, Struct, msgpack

from scibox.core.errors import SciBoxError, StorageUnavailable
from scibox.intercom.hub import Caller, Hub, Turn
from scibox.intercom.link import Link, LinkLost
from scibox.router.following import Followed, Follower, News, told
from scibox.router.replica import Route
from scibox.service.replicas import Fleet
from scibox.wire.admin.replicas import AdminReplica, AdminReplicaList, AdminReplicaRemoved, NewReplicaRequest

TELL_S = 0.1  # how often a worker looks whether its calls have become other ones
FOLLOW_S = 1.0  # what a change waits for workers at most; one that hangs is no reason to fail it


class _Drain(Struct, frozen=True):
    replica_id: str
    is_draining: bool
    force: bool


class _Remove(Struct, frozen=True):
    replica_id: str
    now: bool
    force: bool


_news = msgpack.Decoder(News).decode
_followed = msgpack.Decoder(Followed).decode
_new = msgpack.Decoder(NewReplicaRequest).decode
_drain = msgpack.Decoder(_Drain).decode
_remove = msgpack.Decoder(_Remove).decode
_name = msgpack.Decoder(str).decode
_list = msgpack.Decoder(AdminReplicaList).decode
_one = msgpack.Decoder(AdminReplica).decode
_removed = msgpack.Decoder(AdminReplicaRemoved).decode


class FleetBoard:
    """The main process's end: does what workers ask of the fleet, and tells them of changes."""

    def __init__(self, hub: Hub, fleet: Fleet, routes: Callable[[], Sequence[Route]]) -> None:
        self._hub = hub
        self._fleet = fleet
        self._routes = routes
        self._number = 0
        self._followed: dict[Caller, Followed] = {}
        self._heard = asyncio.Event()
        hub.asked |= {
            "replicas": self._tell,
            "replicas.list": self._list,
            "replicas.add": self._add,
            "replicas.drain": self._drain,
            "replicas.remove": self._remove,
        }
        hub.told["replicas.followed"] = self._hear
        hub.gone.append(self._forget)

    async def tell(self) -> None:
        """Say what holds now, and wait until every worker has followed, or the last of the time."""
        self._number += 1
        number = self._number
        self._hub.tell_all("replicas", told(number, self._routes()))
        with suppress(TimeoutError):
            async with asyncio.timeout(FOLLOW_S):
                while any(one.number < number for one in self._followed.values()):
                    self._heard.clear()
                    await self._heard.wait()

    def running(self, replica_id: str) -> int:
        """Calls of the workers there; one that has not followed counts, since it may have one."""
        return sum(
            one.running.get(replica_id, 0) if one.number >= self._number else 1
            for one in self._followed.values()
        )

    def _hear(self, caller: Caller, body: Raw) -> None:
        self._followed[caller] = _followed(body)
        self._heard.set()

    def _forget(self, caller: Caller) -> None:
        self._followed.pop(caller, None)
        self._heard.set()

    async def _tell(self, caller: Caller, turn: Turn) -> News:
        return told(self._number, self._routes())

    async def _list(self, caller: Caller, turn: Turn) -> AdminReplicaList:
        return await self._fleet.listed()

    async def _add(self, caller: Caller, turn: Turn) -> AdminReplica:
        return await asyncio.shield(self._fleet.add(_new(turn.body)))

    async def _drain(self, caller: Caller, turn: Turn) -> AdminReplica:
        asked = _drain(turn.body)
        return await asyncio.shield(self._fleet.drain(asked.replica_id, asked.is_draining, asked.force))

    async def _remove(self, caller: Caller, turn: Turn) -> AdminReplicaRemoved:
        asked = _remove(turn.body)
        return await asyncio.shield(self._fleet.remove(asked.replica_id, asked.now, asked.force))


class RemoteFleet:
    """`Fleet`, asked of the main process."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def listed(self) -> AdminReplicaList:
        """As `Fleet` says."""
        return _list(await self._ask("replicas.list"))

    async def add(self, asked: NewReplicaRequest) -> AdminReplica:
        """As `Fleet` says."""
        return _one(await self._ask("replicas.add", asked))

    async def drain(self, replica_id: str, is_draining: bool, force: bool) -> AdminReplica:
        """As `Fleet` says."""
        return _one(await self._ask("replicas.drain", _Drain(replica_id, is_draining, force)))

    async def remove(self, replica_id: str, now: bool, force: bool) -> AdminReplicaRemoved:
        """As `Fleet` says."""
        return _removed(await self._ask("replicas.remove", _Remove(replica_id, now, force)))

    async def _ask(self, what: str, about: object = None) -> Raw:
        try:
            return await self._link.ask(what, about)
        except LinkLost:
            raise StorageUnavailable(
                "The main process of the service cannot be asked now; try again.", retry_after_s=2
            ) from None


class Following:
    """A worker's end: keeps its routes as they are told, and tells which calls it has."""

    def __init__(self, link: Link, follower: Follower) -> None:
        self._link = link
        self._follower = follower
        self._told: Followed | None = None
        self._asking: asyncio.Task[None] | None = None
        link.told["replicas"] = self._follow
        link.told["replicas.cut"] = lambda body: follower.cut(_name(body))
        link.changed.append(self._on_link)

    async def ask(self) -> None:
        """Take what holds now."""
        with suppress(LinkLost, SciBoxError):
            self._follow(await self._link.ask("replicas", None))

    async def run(self) -> None:
        """For ever: tell when calls have become other ones."""
        while True:
            self._tell()
            await asyncio.sleep(TELL_S)

    def _follow(self, body: Raw) -> None:
        self._follower.follow(_news(body))
        self._tell()

    def _tell(self) -> None:
        now = self._follower.followed()
        if now != self._told:
            self._told = now
            self._link.tell("replicas.followed", now)

    def _on_link(self) -> None:
        self._told = None  # whoever is there now has not heard it
        if self._link.is_up:
            self._asking = asyncio.create_task(self.ask())
