"""PROMISES R3 and R4 over any history: outages, backups put back, restarts, revocations here and elsewhere.

A machine of the rules beside the real ring, list, snapshot and revocation; only the database is made up.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from books import Books, House
from hypothesis import given, settings

from scibox.core import secret as secrets
from scibox.core.errors import KeysUnavailable, Unauthorized
from scibox.core.types import Key
from scibox.service.revocation import Revocation
from scibox.store.keys import Known
from scibox.store.sql import DatabaseAway

NOW = 1_800_000_000.0
STEP = st.one_of(
    st.sampled_from(
        ["create", "away", "back", "look", "write", "keep a backup", "put the backup back", "restart"]
    ),
    st.tuples(st.sampled_from(["revoke here", "revoke elsewhere"]), st.integers(0, 3)),
)


def secret_of(number: int) -> str:
    return secrets.compose([number, *[3] * (secrets.RANDOM_CHARS - 1)])


class History:
    """What has happened, and what must therefore be true."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.books = Books({})
        self.house = House(folder, self.books)
        self.made = 0
        self.backup = self.books.known
        self.seen: frozenset[str] = frozenset()  # ids of the keys that the service has read last
        self.ended: set[str] = set()  # what was revoked here, or elsewhere and then read here

    async def step(self, step: str | tuple[str, int]) -> None:
        match step:
            case "create" if self.books.trouble is None:
                key = Key(f"key_{self.made}", "team", "n", "member", "abcd", NOW)
                self.books.put(Known({**self.books.known.keys, secrets.digest(secret_of(self.made)): key}))
                self.made += 1
            case "away":
                self.books.trouble = DatabaseAway("away")
            case "back":
                self.books.trouble = None
            case "look":
                await self.look()
            case "write":
                await self.house.watch.write(with_uses=True)
            case "keep a backup":
                self.backup = self.books.known
            case "put the backup back":
                self.books.put(self.backup)
            case "restart":
                await self.house.watch.stop()
                self.house = House(self.folder, self.books)
            case "revoke here", number if f"key_{number}" in self.seen:
                Revocation(self.books, self.house.revoked, self.house.ring.end).revoke([f"key_{number}"], NOW)
                self.ended.add(f"key_{number}")
            case "revoke elsewhere", number if self.books.trouble is None:
                self.books.end({f"key_{number}": NOW})

    async def look(self) -> None:
        await self.house.watch.look()
        keys = self.books.known.keys.values()
        has_lost_all = not keys and self.seen
        if self.books.trouble is None and not has_lost_all:
            self.seen = frozenset(key.key_id for key in keys)
            self.ended |= {key.key_id for key in keys if key.revoked_at is not None}
        assert (self.house.ring.trouble is None) == (self.books.trouble is None and not has_lost_all)

    def check(self) -> None:
        ring = self.house.ring
        for number in range(self.made):
            key_id, secret = f"key_{number}", secret_of(number)
            try:
                ring.find(secret, NOW)
            except KeysUnavailable:
                assert key_id not in self.seen
                assert ring.trouble is not None
            except Unauthorized:
                assert key_id in self.ended or key_id not in self.seen
                assert key_id in self.seen or ring.trouble is None
            else:
                assert key_id in self.seen
                assert key_id not in self.ended

    async def end(self) -> None:
        """Some seconds later, with the database back, it knows everything."""
        self.books.trouble = None
        for _ in range(2):
            await self.look()
            await self.house.watch.write(with_uses=True)
        self.check()
        if self.house.ring.trouble is None:
            revoked = {key.key_id for key in self.books.known.keys.values() if key.revoked_at is not None}
            assert revoked == self.ended & self.seen
        await self.house.watch.stop()


@settings(max_examples=60)  # each step waits for disks
@given(st.lists(STEP, max_size=25))
def test_keys_open_and_end_as_they_should_whatever_happens(steps: list[str | tuple[str, int]]) -> None:
    async def live(folder: Path) -> None:
        history = History(folder)
        for step in ("create", "create", "look", *steps):
            await history.step(step)
            history.check()
        await history.end()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder)))


def test_the_machine_notices_a_key_that_comes_back() -> None:
    """It can fail: without the list, a backup put back opens what was revoked."""

    async def live(folder: Path) -> str:
        history = History(folder)
        for step in ("create", "look", "keep a backup", ("revoke here", 0), "put the backup back"):
            await history.step(step)
        (folder / "revoked").unlink()
        await history.step("restart")
        await history.look()
        try:
            history.check()
        except AssertionError:
            return "noticed"
        return "missed"

    with tempfile.TemporaryDirectory() as folder:
        assert asyncio.run(live(Path(folder))) == "noticed"
