"""A made-up database of keys, and a data folder in which keys are watched: for tests of trouble with both."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

from scibox.core.events import Event, Notice
from scibox.core.types import Key
from scibox.gate.keyring import KeyRing
from scibox.gate.keywatch import KeyWatch
from scibox.store.keys import KeyStore, Known
from scibox.store.revoked import Revoked


class Books:
    """A database of keys in memory that goes away, hangs and comes back as the test wants."""

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self.known = Known(keys)
        self.number = 1
        self.trouble: Exception | None = None
        self.answers = threading.Event()
        self.answers.set()
        self.asked = 0
        self.loaded = 0
        self.ended: dict[str, float] = {}
        self.used: dict[str, float] = {}

    def change(self) -> int:
        self.asked += 1
        self._work()
        return self.number

    def load(self) -> tuple[int, Known]:
        self.loaded += 1
        self._work()
        return self.number, self.known

    def end(self, ends: Mapping[str, float]) -> None:
        self._work()
        self.ended |= ends
        keys = {
            digest: replace(key, revoked_at=ends[key.key_id])
            if key.revoked_at is None and key.key_id in ends
            else key
            for digest, key in self.known.keys.items()
        }
        self.put(replace(self.known, keys=keys))

    def all(self) -> list[Key]:
        self._work()
        return list(self.known.keys.values())

    def note_uses(self, used: Mapping[str, float]) -> None:
        self._work()
        self.used |= used

    def put(self, known: Known) -> None:
        self.known = known
        self.number += 1

    def _work(self) -> None:
        self.answers.wait(30)
        if self.trouble is not None:
            raise self.trouble


class House:
    """A data folder, and what watches keys in it."""

    def __init__(self, folder: Path, source: KeyStore | Books) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.revoked = Revoked(folder / "revoked")
        self.watch = KeyWatch(source, self.revoked, folder / "keys.snapshot", self.events.append)
        self.ring = self.watch.ring

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[KeyRing]:
        task = asyncio.create_task(self.watch.run())
        try:
            await self.watch.started()
            yield self.ring
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.watch.stop()

    @property
    def notices(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Notice)]
