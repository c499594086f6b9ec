"""The rooms that answer calls, joined: in the one process of a service, or in each of its workers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path

from scibox import __version__
from scibox.config import Config
from scibox.core.admission import Desk
from scibox.core.events import Emit, Notice
from scibox.core.limits import Windows
from scibox.core.sharing import part_of
from scibox.gate.desk import LocalDesk
from scibox.gate.gate import Gate
from scibox.gate.keyring import KeyRing, follow
from scibox.http import app as door
from scibox.http import server
from scibox.http.front import Front
from scibox.http.info import State
from scibox.http.protocol import Patience
from scibox.ledger.journal import Journal
from scibox.router.discovery import discover
from scibox.router.replica import Route
from scibox.router.router import Deadlines, Router
from scibox.router.vectors import Packing, Vectors
from scibox.service import admin
from scibox.service.batches import Batches
from scibox.service.directory import Directory
from scibox.service.disk import Disk
from scibox.service.files import Files, Limits
from scibox.service.pipeline import Pipeline
from scibox.service.work import Pace, Tools
from scibox.store.keys import KeyStore
from scibox.store.shelf import Shelf
from scibox.store.vectors import VectorCache
from scibox.upstream.client import Client
from scibox.wire.faces import FACES

LAST_WORDS_S = 2.0  # for the error events of calls that outlive the drain


class Rooms:
    """Everything between the door and the replicas. `desk` may be in another process."""

    def __init__(self, config: Config, directory: Directory, desk: Desk, store: KeyStore, emit: Emit) -> None:
        # What is wrong with a form is said to its client; python-multipart would write it to the log as well.
        logging.getLogger("python_multipart").addHandler(logging.NullHandler())
        self.config = config
        self.emit = emit
        self.ending = asyncio.Event()
        self.ring = KeyRing(store.by_digest())
        self._store = store
        self._directory = directory
        self._client = Client(config.deadlines.connect_s)
        self._cache = _cache(config, emit)
        self._journal = Journal(config.data / "journal", emit, is_strict=config.ledger.strict)
        self.gate = Gate(
            self.ring,
            desk,
            self._journal,
            emit,
            clock=time.monotonic,
            now=time.time,
            patience_s=config.gate.patience_s,
            background_calls=config.batches.concurrency,
        )
        self.tools = self._tools()
        self._files = Files(self.tools.shelf, self.tools.disk, self.tools.limits, time.time)

    def works(self, routes: Iterable[Route]) -> list[asyncio.Task[None]]:
        """What goes on beside the calls, begun."""
        return [
            asyncio.create_task(follow(self.ring, self._store, self.emit)),
            asyncio.create_task(self.gate.watch()),
            asyncio.create_task(discover(self._client, (r for route in routes for r in route.replicas))),
        ]

    def door(self, state: Callable[[], State], wake: Callable[[], None]) -> Front:
        """The ASGI application. `wake` is called when something about the batches has changed."""
        own = self.config.server
        return door.build(
            door.Door(
                pipeline=self.tools.pipeline,
                files=self._files,
                batches=Batches(self.tools, self._files, wake),
                emit=self.emit,
                state=state,
                ending=self.ending,
                version=__version__,
                heartbeat_s=own.heartbeat_s,
                max_body_bytes=own.max_body_bytes,
                cors_origins=own.cors_origins,
            )
        )

    def close(self) -> None:
        """When no call is under way any more."""
        self._client.close()
        self.tools.disk.close()
        self.tools.shelf.close()
        self._cache.close()
        self._journal.close()

    def _pipeline(self) -> Pipeline:
        limits, own = self.config.deadlines, self.config.embeddings
        router = Router(self._client, Deadlines(limits.first_chunk_s, limits.next_chunk_s, limits.total_s))
        packing = Packing(own.texts_per_call, own.tokens_per_call, own.calls_at_once)
        return Pipeline(self.gate, self._directory, router, Vectors(router, self._cache, packing))

    def _tools(self) -> Tools:
        own = self.config.files
        return Tools(
            pipeline=self._pipeline(),
            faces=FACES,
            shelf=Shelf(self.config.data),
            disk=Disk(),
            pace=Pace(self.config.batches.concurrency),
            limits=Limits(own.max_file_bytes, own.max_owner_bytes, own.keep_days * admin.DAY_S),
            max_line_bytes=self.config.server.max_body_bytes,
            emit=self.emit,
            now=time.time,
        )


def directory(config: Config, routes: Sequence[Route]) -> Directory:
    """The public names of a configuration."""
    aliases = {alias: model.name for model in config.models for alias in model.aliases}
    return Directory(routes, aliases, config.gate.upstream_slots)


def local_desk(config: Config, names: Directory, parts: int = 1) -> LocalDesk:
    """A desk in this process, with one of so many parts of the slots and of the places to wait."""
    own = config.gate
    return LocalDesk(
        lambda model: [part_of(slots, parts) for slots in names.slots(model)],
        Windows(),
        time.monotonic,
        time.time,
        queue_per_model=part_of(own.queue_per_model, parts),
        queue_per_owner=part_of(own.queue_per_owner, parts),
    )


async def first(*waits: Coroutine[None, None, object], within_s: float | None = None) -> int | None:
    """Which of these ended first (the others are cancelled), or None at the end of the time."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for index, task in enumerate(tasks):
        if task in done:
            task.result()
            return index
    return None


async def drain(own: Rooms, hurry: asyncio.Event) -> None:
    """New calls are refused, running ones may finish; somebody's hurry or the grace ends the wait."""
    own.gate.drain()
    await first(own.gate.idle.wait(), hurry.wait(), within_s=own.config.server.drain_s)
    own.ending.set()
    await first(own.gate.idle.wait(), within_s=LAST_WORDS_S)


def listen(config: Config, private: Path | None = None) -> server.Listen:
    """Where and how the door listens."""
    own = config.server
    return server.Listen(
        own.host,
        own.port,
        own.tls_certificate,
        own.tls_key,
        Patience(own.header_s, own.body_s, own.keep_alive_s),
        private,
    )


def _cache(config: Config, emit: Emit) -> VectorCache:
    """The processes of a service share the file; each has its part of the memory."""
    own = config.embeddings
    return VectorCache(
        own.cache_memory_bytes // config.server.workers,
        config.data / "embeddings.cache.db",
        own.cache_disk_bytes,
        lambda message: emit(Notice(message, is_warning=True)),
    )
