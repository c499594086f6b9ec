"""The rooms that answer calls, joined: in the one process of a service, or in each of its workers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path

from scibox.config import Config
from scibox.core.admission import Desk, Subject
from scibox.core.conditions import Condition
from scibox.core.events import Emit, Notice
from scibox.core.limits import Limiter, Windows
from scibox.core.sharing import part_of
from scibox.gate.desk import LocalDesk
from scibox.gate.gate import Gate
from scibox.gate.keywatch import KeyWatch
from scibox.gate.repeats import LocalRepeats, Repeats
from scibox.gate.shared import SharedLimiter
from scibox.http import app as door
from scibox.http import server
from scibox.http.ending import Ending
from scibox.http.front import Front
from scibox.http.protocol import Patience
from scibox.http.running import Reload
from scibox.ledger.journal import Journal
from scibox.ledger.reports import Reports
from scibox.process import first_of
from scibox.router.health import Health
from scibox.router.replica import Replica, Route
from scibox.router.router import Deadlines, Router
from scibox.router.vectors import Packing, Vectors
from scibox.service import admin
from scibox.service.batches import Batches
from scibox.service.directory import Directory
from scibox.service.disk import Disk
from scibox.service.files import Files, Limits
from scibox.service.office import Office
from scibox.service.pipeline import Pipeline
from scibox.service.replicas import Fleet
from scibox.service.revocation import Revocation
from scibox.service.status import Status
from scibox.service.usage import Usage
from scibox.service.work import Pace, Tools
from scibox.store.entries import LEDGER, EntryStore
from scibox.store.keys import KeyStore
from scibox.store.revoked import Revoked
from scibox.store.shelf import Shelf
from scibox.store.sql import Sql
from scibox.store.vectors import VectorCache
from scibox.upstream.client import Client
from scibox.wire.faces import FACES

KEYS_PATIENCE_S = 2.0  # for the database of keys: it is asked again and again
LAST_WORDS_S = 2.0  # for the error events of calls that outlive the drain


class Rooms:
    """Everything between the door and the replicas. `adopt` is what differs between two configurations.

    `replicas` are those to be looked after, `look` tells the desk that other calls may start now.
    """

    def __init__(
        self,
        config: Config,
        desk: Desk,
        repeats: Repeats,
        store: KeyStore,
        emit: Emit,
        *,
        replicas: Callable[[], Iterable[Replica]],
        look: Callable[[], None],
    ) -> None:
        # What is wrong with a form is said to its client; python-multipart would write it to the log as well.
        logging.getLogger("python_multipart").addHandler(logging.NullHandler())
        self.config = config
        self.emit = emit
        self.ending = Ending()
        revoked = Revoked(config.data / "revoked")
        self.keys = KeyWatch(store, revoked, config.data / "keys.snapshot", emit)
        self.client = Client(config.deadlines.connect_s)
        self._health = Health(self.client, replicas, config.routing.health_every_s, look)
        self._cache = VectorCache(
            _cache_bytes(config),
            config.data / "embeddings.cache.db",
            config.embeddings.cache_disk_bytes,
            lambda message: emit(Notice(message, is_warning=True)),
        )
        self._repeats = repeats
        self._journal = Journal(config.data / "journal", emit, is_strict=config.ledger.strict)
        self.gate = self._new_gate(desk)
        self.pipeline = self._new_pipeline()
        self.tools = self._new_tools()
        self._files = Files(self.tools.shelf, self.tools.disk, self.tools.limits, time.time)
        self._ledger = Sql(config.place("ledger"), LEDGER)
        self.usage = Usage(Reports(config.data / "journal", EntryStore(self._ledger)), time.time)
        self._office = self._new_office(store, revoked)

    def adopt(self, config: Config, routes: Iterable[Route]) -> None:
        """Serve by this from the next call on. Without an `await`, so that no call sees half of it."""
        self.config = config
        aliases = {alias: model.name for model in config.models for alias in model.aliases}
        self.pipeline.directory = Directory(
            routes, aliases, config.gate.upstream_slots, former=self.pipeline.directory
        )
        self.pipeline.router.deadlines = _deadlines(config)
        self.pipeline.vectors.packing = _packing(config)
        self.client.connect_s = config.deadlines.connect_s
        self._health.every_s = config.routing.health_every_s
        self._cache.memory_bytes = _cache_bytes(config)
        self.gate.configure(config.gate.patience_s, config.batches.concurrency)
        self.tools.pace = _pace(config)
        self.tools.limits = self._files.limits = _limits(config)
        self.tools.max_line_bytes = config.server.max_body_bytes

    def works(self) -> list[Coroutine[None, None, None]]:
        """What goes on beside the calls, for ever."""
        return [self.keys.run(), self.gate.watch(), self._health.run()]

    def application(
        self, config: Config, status: Status, reload: Reload, fleet: Fleet, wake: Callable[[], None]
    ) -> Front:
        """The door for a configuration. `wake` is called when something about the batches has changed."""
        return door.build(
            door.Door(
                pipeline=self.pipeline,
                files=self._files,
                batches=Batches(self.tools, self._files, wake),
                office=self._office,
                usage=self.usage,
                emit=self.emit,
                status=status,
                reload=reload,
                fleet=fleet,
                ending=self.ending,
                repeats=self._repeats,
                heartbeat_s=config.server.heartbeat_s,
                max_body_bytes=config.server.max_body_bytes,
                cors_origins=config.server.cors_origins,
                may_rotate=config.gate.holders_rotate,
            )
        )

    def quotas(self) -> Sequence[Subject]:
        """Everybody who has a quota now."""
        return self.gate.quotas(self.pipeline.directory.originals)

    def conditions(self) -> list[Condition]:
        """How the parts are that each process has."""
        ring, journal = self.keys.ring, self._journal
        keys = (
            f"It is away ({ring.trouble}): see to it, or to its server. Keys that are known go on working, "
            "others get 503."
        )
        calls = (
            f"It cannot be written ({journal.trouble}): make room on the disk of the data folder. "
            f"{journal.waiting} records wait in memory; when there are too many, calls are refused."
        )
        return [
            Condition("database of keys", ring.trouble is None, keys, ring.trouble_since),
            Condition("journal", journal.trouble is None, calls, journal.trouble_since),
        ]

    async def drain(self, hurry: asyncio.Event) -> None:
        """New calls are refused, running ones may finish; somebody's hurry or the grace ends the wait."""
        self.gate.drain()
        await first_of(self.gate.idle.wait(), hurry.wait(), within_s=self.config.server.drain_s)
        self.gate.end()
        self.ending.set()
        await first_of(self.gate.idle.wait(), within_s=LAST_WORDS_S)

    async def close(self) -> None:
        """When no call is under way any more."""
        await self.keys.stop()
        self._office.close()
        self.client.close()
        self.tools.disk.close()
        self.tools.shelf.close()
        self._cache.close()
        self._journal.close()
        self.usage.close()
        self._ledger.close()

    def _new_gate(self, desk: Desk) -> Gate:
        return Gate(
            self.keys.ring,
            desk,
            self._journal,
            self.emit,
            clock=time.monotonic,
            now=time.time,
            patience_s=self.config.gate.patience_s,
            background_calls=self.config.batches.concurrency,
        )

    def _new_office(self, store: KeyStore, revoked: Revoked) -> Office:
        ring = self.keys.ring
        revocation = Revocation(store, revoked, ring.end)
        return Office(
            admin.Admin(store, revocation, lambda: self.pipeline.directory.names, time.time, ring.keys),
            self.keys.refresh,
        )

    def _new_pipeline(self) -> Pipeline:
        router = Router(self.client, _deadlines(self.config))
        vectors = Vectors(router, self._cache, _packing(self.config))
        return Pipeline(self.gate, Directory((), {}), router, vectors)

    def _new_tools(self) -> Tools:
        return Tools(
            pipeline=self.pipeline,
            faces=FACES,
            shelf=Shelf(self.config.data),
            disk=Disk(),
            pace=_pace(self.config),
            limits=_limits(self.config),
            max_line_bytes=self.config.server.max_body_bytes,
            emit=self.emit,
            now=time.time,
        )


def shared_limits(config: Config, emit: Emit) -> SharedLimiter | None:
    """The limits of all nodes, if there are others."""
    own = config.shared
    if own.limits_url is None:
        return None
    return SharedLimiter(own.limits_url, emit, prefix=own.limits_prefix)


def local_repeats(config: Config) -> LocalRepeats:
    """What was answered, kept in this process."""
    return LocalRepeats(config.gate.repeat_keep_s, config.gate.repeat_bytes, time.monotonic)


def local_desk(
    config: Config,
    slots: Callable[[str], Sequence[int]],
    parts: int = 1,
    limiter: Limiter | None = None,
) -> LocalDesk:
    """A desk in this process, with one of so many parts of the slots and of the places to wait."""
    return LocalDesk(
        lambda model: [part_of(own, parts) for own in slots(model)],
        limiter or Windows(),
        time.monotonic,
        time.time,
        queue_per_model=part_of(config.gate.queue_per_model, parts),
        queue_per_owner=part_of(config.gate.queue_per_owner, parts),
    )


def listen(config: Config, private: Path | None = None) -> server.Listen:
    """Where and how the door listens."""
    own = config.server
    patience = Patience(own.header_s, own.body_s, own.keep_alive_s)
    return server.Listen(own.host, own.port, own.tls_certificate, own.tls_key, patience, private)


def _cache_bytes(config: Config) -> int:
    """Of memory; the processes of a service share the file, and each has its part of this."""
    return config.embeddings.cache_memory_bytes // config.server.workers


def _deadlines(config: Config) -> Deadlines:
    own = config.deadlines
    return Deadlines(own.first_chunk_s, own.next_chunk_s, own.total_s)


def _packing(config: Config) -> Packing:
    own = config.embeddings
    return Packing(own.texts_per_call, own.tokens_per_call, own.calls_at_once)


def _pace(config: Config) -> Pace:
    return Pace(config.batches.concurrency)


def _limits(config: Config) -> Limits:
    own = config.files
    return Limits(own.max_file_bytes, own.max_owner_bytes, own.keep_days * admin.DAY_S)
