"""Keeps the ring like the database and like the list of what has ended, through any trouble of either.

Three loops, each with a thread of its own, so that a database that hangs holds up nothing else: the list is
read, the database is read, and what the database must be told is written. A change is noticed by asking for
one number: that works alike on SQLite and PostgreSQL, through poolers too, and no notification can be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from scibox.core.errors import OperatorError
from scibox.core.events import Emit, Notice
from scibox.store import snapshot
from scibox.store.keys import Known
from scibox.store.revoked import Revoked
from scibox.store.sql import DatabaseAway

from .keyring import KeyRing, unavailable

T = TypeVar("T")

POLL_S = 0.25  # a revoked key is refused within a second (PROMISES R4)
LEAST_S = 0.1  # between two looks, however many unknown keys come
LOOK_S = 1.0  # that the caller with an unknown key waits for a look
SLOW_S = 2.0  # after which a database that does not answer counts as away
WHOLE_S = 60.0  # between two whole readings though the number is the same: a backup may have been put back
WRITE_S = 1.0  # between two tries to write
USES_S = 30.0  # between two writings of when keys were used
LAST_S = 1.0  # for the last of them
ROUNDING_S = 0.01  # the list has milliseconds


class Source(Protocol):
    """Where keys come from: `store.keys.KeyStore`. Methods block, and raise `DatabaseAway`."""

    def change(self) -> int:
        """A number that differs after each change."""

    def load(self) -> tuple[int, Known]:
        """That number, and everything."""

    def end(self, ends: Mapping[str, float]) -> None:
        """Revoke keys, end digests."""

    def note_uses(self, used: Mapping[str, float]) -> None:
        """Keep when keys were used last."""


class KeyWatch:
    """The ring, and what keeps it. It starts from the snapshot, so it starts whatever the database does."""

    def __init__(self, source: Source, revoked: Revoked, saved_at: Path, emit: Emit) -> None:
        self._source = source
        self._revoked = revoked
        self._saved_at = saved_at
        self._emit = emit
        self._threads = ThreadPoolExecutor(3, "scibox-keys")
        self._seen: int | None = None  # the number of the change that the ring has
        self._whole_at = 0.0
        self._wanted = asyncio.Event()  # a look, before its time
        self._next: asyncio.Future[None] | None = None  # the end of the first look that begins from now on
        self._first = asyncio.Event()
        self._fault: OperatorError | None = None
        self._complaints: set[str] = set()
        self._saved = snapshot.read(saved_at)
        self.ring = KeyRing(self._saved or Known({}), self.refresh)
        with contextlib.suppress(OSError):  # the loop says so
            self.ring.end(revoked.read())

    async def run(self) -> None:
        """Watch, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for loop in (self._watch_list(), self._watch_database(), self._write()):
                tasks.create_task(loop)

    async def started(self) -> None:
        """Wait for the end of the first look, whatever it found; what the operator must mend is raised."""
        await self._first.wait()
        if self._fault is not None:
            raise self._fault

    async def refresh(self) -> None:
        """Wait until the ring is as the database is now; `KeysUnavailable` where that takes too long."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        self._wanted.set()
        done, _ = await asyncio.wait([self._next], timeout=LOOK_S)
        if not done:
            raise unavailable()

    async def stop(self) -> None:
        """After `run` has ended: write when keys were used, if the database can."""
        if self.ring.used and self.ring.trouble is None:
            work = self._in_thread(self._source.note_uses, self.ring.used)
            await asyncio.wait([work], timeout=LAST_S)
            if work.done():
                work.exception()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _watch_list(self) -> None:
        seen: tuple[int, int] | None = None
        while True:
            try:
                stamp = await self._in_thread(self._revoked.stamp)
                if stamp != seen:
                    self.ring.end(await self._in_thread(self._revoked.read))
                    seen = stamp
            except OSError as error:
                self._complain(f"the list of revoked keys cannot be read ({error.strerror})")
            await asyncio.sleep(POLL_S)

    async def _watch_database(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LEAST_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S - LEAST_S):
                    await self._wanted.wait()

    async def look(self) -> None:
        """Make the ring as the database is now; `ring.trouble` says why not, where that cannot be."""
        self._wanted.clear()
        waiting, self._next = self._next, None
        try:
            await self._look()
        except DatabaseAway as error:
            self._lose(str(error))
        except OperatorError as error:
            self._fault = error
            self._lose(str(error))
        else:
            self._regain()
        if waiting is not None:
            waiting.set_result(None)
        self._first.set()

    async def _look(self) -> None:
        work = self._in_thread(self._read)
        done, _ = await asyncio.wait([work], timeout=SLOW_S)
        if not done:
            self._lose("it does not answer")
        if (read := await work) is not None:
            self._seen, known = read
            self.ring.replace(known)
            try:
                await self._in_thread(self._remember, known)
            except OSError as error:
                self._complain(f"what is known of keys cannot be kept for the next start ({error.strerror})")

    def _read(self) -> tuple[int, Known] | None:
        """In a thread: what the database has, if that is news."""
        now = time.monotonic()
        if self._source.change() == self._seen and now < self._whole_at:
            return None
        number, known = self._source.load()
        if not known.keys and self.ring.known.keys:  # keys are never deleted
            raise DatabaseAway("it is empty, and was not: put its backup back")
        self._whole_at = now + WHOLE_S
        return number, known

    def _remember(self, known: Known) -> None:
        """In a thread: for a start without the database, and against a database from before a revocation."""
        listed = self.ring.listed
        fresh = {
            key.key_id: key.revoked_at
            for key in known.keys.values()
            if key.revoked_at is not None and key.key_id not in listed
        }
        fresh |= {digest: at for digest, at in known.ends.items() if _is_earlier(at, listed.get(digest))}
        if fresh:
            self._revoked.add(fresh)
            self.ring.end(fresh)
        if known != self._saved:
            snapshot.save(self._saved_at, known)
            self._saved = known

    async def _write(self) -> None:
        uses_at = time.monotonic() + USES_S
        while True:
            await asyncio.sleep(WRITE_S)
            is_due = time.monotonic() >= uses_at
            await self.write(with_uses=is_due)
            if is_due:
                uses_at = time.monotonic() + USES_S

    async def write(self, *, with_uses: bool) -> None:
        """Tell the database what has ended, and when keys were used; what fails is tried again later."""
        if self.ring.trouble is not None:
            return
        try:
            if ends := self._unwritten():
                await self._in_thread(self._source.end, ends)
            if with_uses:
                await self._write_uses()
        except (DatabaseAway, OperatorError) as error:
            self._complain(f"the database of keys cannot be written now ({error})")
        else:
            self._complaints.clear()

    async def _write_uses(self) -> None:
        used, self.ring.used = self.ring.used, {}
        if not used:
            return
        try:
            await self._in_thread(self._source.note_uses, used)
        except BaseException:
            self.ring.used = used | self.ring.used
            raise

    def _unwritten(self) -> dict[str, float]:
        """What is on the list and not in the database."""
        known, ring = self.ring.known, self.ring
        open_keys = {key.key_id for key in known.keys.values() if key.revoked_at is None}
        return {
            subject: at
            for subject, at in ring.listed.items()
            if subject in open_keys or (subject in known.keys and _is_earlier(at, known.ends.get(subject)))
        }

    def _lose(self, reason: str) -> None:
        if self.ring.trouble is None:
            self._emit(
                Notice(f"the key database is away ({reason}); known keys go on working", is_warning=True)
            )
            self.ring.trouble_since = time.time()
        self.ring.trouble = reason

    def _regain(self) -> None:
        if self.ring.trouble is not None:
            self._emit(Notice("the key database is back"))
        self.ring.trouble = None

    def _complain(self, message: str) -> None:
        """Once, until it is over."""
        if message not in self._complaints:
            self._complaints.add(message)
            self._emit(Notice(message, is_warning=True))

    def _in_thread(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _is_earlier(at: float, other: float | None) -> bool:
    return other is None or at < other - ROUNDING_S
