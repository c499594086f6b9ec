"""Whether the servers of others are there: each is looked at again and again.

One that fails several looks in a row gets no new calls, and gets them again after one that succeeds; it is
asked then what it is. Calls have an opinion of their own (`Replica.trouble`); this is for what no call has
met yet.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from scibox.upstream.client import Client

from . import discovery
from .replica import Replica
from .trouble import Trouble

FAILURES = 3  # looks in a row; one may be lost when the server, or this process, is busy for a moment
AT_ONCE = 64
TICK_S = 0.1
RETELL_S = 60.0  # what a server says of itself changes seldom
WITHIN_S = 10.0  # a server under load is slow to say that it is well
Luck = Callable[[], float]


@dataclass
class _Patient:
    """A replica as it was when it was looked at last."""

    replica: Replica
    due_at: float
    failures: int = 0
    told_at: float = 0.0
    looking: asyncio.Task[None] | None = None


class Health:
    """Looks at `replicas`, each about every `every_s`; `changed` hears when calls may go elsewhere."""

    def __init__(
        self,
        client: Client,
        replicas: Callable[[], Iterable[Replica]],
        every_s: float,
        changed: Callable[[], None] = lambda: None,
        luck: Luck = random.random,
    ) -> None:
        self.every_s = every_s
        self._client = client
        self._replicas = replicas
        self._changed = changed
        self._luck = luck
        self._room = asyncio.Semaphore(AT_ONCE)
        self._patients: dict[int, _Patient] = {}

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                self.begin(asyncio.get_running_loop().time())
                await asyncio.sleep(TICK_S)
        finally:
            looking = [one.looking for one in self._patients.values() if one.looking is not None]
            for task in looking:
                task.cancel()
            await asyncio.gather(*looking, return_exceptions=True)

    def begin(self, now: float) -> None:
        """Begin the looks that are due."""
        there = {id(replica): replica for replica in self._replicas() if not replica.is_local}
        for key in self._patients.keys() - there.keys():
            gone = self._patients.pop(key)
            if gone.looking is not None:
                gone.looking.cancel()
        for key, replica in there.items():
            patient = self._patients.get(key)
            if patient is None:
                patient = self._patients[key] = _Patient(replica, now)
                if replica.is_known:
                    patient.told_at = now
                    patient.due_at += self.every_s * self._luck()
            if patient.looking is None and patient.due_at <= now:
                patient.looking = asyncio.create_task(self._look(patient))

    async def _look(self, patient: _Patient) -> None:
        loop, replica = asyncio.get_running_loop(), patient.replica
        try:
            async with self._room:
                before = (replica.slots, replica.is_usable)
                is_long_ago = loop.time() - patient.told_at >= RETELL_S
                if is_long_ago or not replica.is_known or replica.ailment is not None:
                    words = await examine(self._client, replica, patient.failures + 1)
                    patient.told_at = loop.time()
                else:
                    words = await _in_time(discovery.probe(self._client, replica))
                    _note(replica, words, patient.failures + 1)
                patient.failures = 0 if words is None else patient.failures + 1
            if before != (replica.slots, replica.is_usable):
                self._changed()
        finally:
            patient.looking = None
            # Each at times of its own: a thousand that began together are soon spread.
            patient.due_at = loop.time() + self._pause_s(replica) * (0.75 + 0.5 * self._luck())

    def _pause_s(self, replica: Replica) -> float:
        """Somebody else's public service is not asked as often as one's own servers."""
        return max(self.every_s, RETELL_S) if replica.kind == "openai" else self.every_s


async def look(client: Client, replicas: Iterable[Replica]) -> None:
    """Ask those that have not told what they are, or are not well, once."""
    due = [one for one in replicas if not one.is_local and (not one.is_known or one.ailment is not None)]
    await asyncio.gather(*(examine(client, replica, FAILURES) for replica in due))


async def examine(client: Client, replica: Replica, failures: int = 1) -> str | None:
    """Ask it all, and note how it is; what is wrong in words. `failures`: if it fails, how many in a row."""
    words = await _in_time(discovery.ask(client, replica))
    _note(replica, words, failures)
    if words is None:
        replica.answered()
    return words


def _note(replica: Replica, words: str | None, failures: int) -> None:
    if words is None:
        replica.away = None
    elif failures >= FAILURES or not replica.is_known or replica.away is not None:
        replica.away = Trouble(words, replica.away.since if replica.away else time.time())


async def _in_time(question: discovery.Question) -> str | None:
    try:
        async with asyncio.timeout(WITHIN_S):
            return await question
    except TimeoutError:
        return f"It does not say within {WITHIN_S:g} s that it is well: look at its load."
