"""Replicas at run time: listed, added, drained, removed, without a call that is dropped."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from msgspec import UNSET, json

from scibox.core.errors import Conflict, NotFound, OperatorError, StorageUnavailable
from scibox.store.replicas import Kept, ReplicaStore
from scibox.store.sql import DatabaseAway
from scibox.wire.admin.replicas import AdminReplica, AdminReplicaList, AdminReplicaRemoved, NewReplicaRequest

T = TypeVar("T")
POLL_S = 2.0  # for what another node of the same database has changed
PLACE = frozenset({"model", "deployment"})  # of a request; the rest are settings of the replica


class Fleet(Protocol):
    """What operators do with replicas; in the main process (`Replicas`), or asked of it."""

    async def listed(self) -> AdminReplicaList:
        """All of them."""

    async def add(self, asked: NewReplicaRequest) -> AdminReplica:
        """One more; returns when it gets calls."""

    async def drain(self, replica_id: str, is_draining: bool, force: bool) -> AdminReplica:
        """No new calls, or new calls again."""

    async def remove(self, replica_id: str, now: bool, force: bool) -> AdminReplicaRemoved:
        """Drain it for good; `now`: its calls are cut."""


class Served(Protocol):
    """What `Replicas` needs of the running service."""

    def members(self) -> list[AdminReplica]:
        """The replicas as they are."""

    async def apply(self, kept: Sequence[Kept]) -> None:
        """Serve by these from now on; raises what cannot be, and then nothing has changed."""

    def cut(self, replica_id: str) -> None:
        """End its calls."""


class Replicas:
    """`Fleet` of the main process; `kept` is what the database says. `now` is Unix time."""

    def __init__(
        self, store: ReplicaStore, served: Served, now: Callable[[], float], kept: Sequence[Kept] = ()
    ) -> None:
        self._store = store
        self._served = served
        self._now = now
        self._changing = asyncio.Lock()
        self.kept = tuple(kept)

    async def listed(self) -> AdminReplicaList:
        """As `Fleet` says."""
        return AdminReplicaList(self._served.members())

    async def add(self, asked: NewReplicaRequest) -> AdminReplica:
        """As `Fleet` says."""
        settings = {
            name: value
            for name in asked.__struct_fields__
            if name not in PLACE and (value := getattr(asked, name)) is not UNSET
        }
        text = json.encode(settings).decode()
        new = Kept(f"rep_{secrets.token_hex(6)}", asked.model, asked.deployment, text, created_at=self._now())
        async with self._changing:
            self._refuse_second(asked)
            await self._hold((*self.kept, new), self._store.put, new)
        return self._member(new.id)

    async def drain(self, replica_id: str, is_draining: bool, force: bool) -> AdminReplica:
        """As `Fleet` says."""
        async with self._changing:
            member = self._member(replica_id)
            if is_draining and not force:
                self._refuse_last(member)
            before = next((one for one in self.kept if one.id == replica_id), None)
            rest = tuple(one for one in self.kept if one.id != replica_id)
            row = _drained(before, replica_id, is_draining, self._now())
            kept = (*rest, row) if row else rest
            await self._hold(kept, self._store.drain, replica_id, is_draining, self._now())
        return self._member(replica_id)

    async def remove(self, replica_id: str, now: bool, force: bool) -> AdminReplicaRemoved:
        """As `Fleet` says."""
        async with self._changing:
            member = self._member(replica_id)
            if not member.added and member.state != "leaving":
                raise Conflict(
                    f"{replica_id} stands in the configuration: take it out of the file and reload, "
                    "or drain it.",
                    code="replica_is_configured",
                    should_retry=False,
                )
            if member.state != "leaving":
                if not force:
                    self._refuse_last(member)
                kept = tuple(one for one in self.kept if one.id != replica_id)
                await self._hold(kept, self._store.forget, replica_id)
            if now:
                self._served.cut(replica_id)
        left = [one.in_flight for one in self._served.members() if one.id == replica_id]
        return AdminReplicaRemoved(replica_id, 0 if now else sum(left))

    async def run(self) -> None:
        """For ever: follow what other nodes change. A database that is away changes nothing."""
        while True:
            with contextlib.suppress(DatabaseAway, OperatorError):
                await self.follow()
            await asyncio.sleep(POLL_S)

    async def follow(self) -> None:
        """Serve by what the database says now."""
        async with self._changing:
            found = await asyncio.to_thread(self._store.all)
            if set(found) != set(self.kept):
                await self._served.apply(found)
                self.kept = tuple(found)

    async def _hold(self, kept: tuple[Kept, ...], write: Callable[..., object], *arguments: object) -> None:
        """Serve by it, and remember it; neither where one of them fails."""
        before = self.kept
        await self._served.apply(kept)
        self.kept = kept
        try:
            await _stored(write, *arguments)
        except BaseException:
            await self._served.apply(before)
            self.kept = before
            raise

    def _member(self, replica_id: str) -> AdminReplica:
        found = [one for one in self._served.members() if one.id == replica_id]
        if not found:
            raise NotFound(f"There is no replica '{replica_id[:80]}'; GET /admin/v1/replicas lists them.")
        return min(found, key=lambda one: one.state == "leaving")

    def _refuse_second(self, asked: NewReplicaRequest) -> None:
        if asked.url is UNSET:
            return
        url = asked.url.rstrip("/")
        twins = [one for one in self._served.members() if (one.model, one.url) == (asked.model, url)]
        for one in twins:
            if one.state != "leaving":
                raise Conflict(
                    f"{url} is a replica of '{asked.model}' already: {one.id}.",
                    param="url",
                    code="replica_exists",
                    should_retry=False,
                )

    def _refuse_last(self, member: AdminReplica) -> None:
        """A model without a replica that takes calls refuses them all."""
        others = [
            one
            for one in self._served.members()
            if one.model == member.model and one.id != member.id and one.state in {"ready", "starting"}
        ]
        if not others:
            raise Conflict(
                f"{member.id} is the last replica of '{member.model}' that takes calls: add another before, "
                "or say force.",
                code="last_replica",
                should_retry=False,
            )


def _drained(before: Kept | None, replica_id: str, is_draining: bool, now: float) -> Kept | None:
    row = before or Kept(replica_id, created_at=now)
    if not is_draining and not row.is_added:
        return None
    return Kept(row.id, row.model, row.deployment, row.settings, is_draining, row.created_at)


async def _stored(write: Callable[..., T], *arguments: object) -> T:
    waiting: Awaitable[T] = asyncio.to_thread(write, *arguments)
    try:
        return await waiting
    except (DatabaseAway, OperatorError) as error:
        raise StorageUnavailable(
            f"The database of keys does not work now ({error}), so that nothing of this would survive a "
            "restart: nothing has changed; try again when it is back.",
            retry_after_s=30,
        ) from error
