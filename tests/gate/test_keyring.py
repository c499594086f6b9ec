import asyncio
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest

from rig import KEYS, SECRET
from scibox.core.errors import Unauthorized
from scibox.core.events import Event, Notice
from scibox.core.types import Key
from scibox.gate import keyring
from scibox.gate.keyring import KeyRing, follow
from scibox.service import admin
from scibox.store.keys import KeyStore

NOW = 1_800_000_000.0


def test_a_known_secret_opens() -> None:
    assert KeyRing(KEYS).find(SECRET, NOW).key_id == "key_full"


def test_a_wrong_checksum_is_refused_without_a_look_up() -> None:
    class Untouchable(dict[str, Key]):
        def get(self, *_: object) -> Key:  # type: ignore[override]
            raise AssertionError("looked up")

    with pytest.raises(Unauthorized, match="mistyped"):
        KeyRing(Untouchable()).find(SECRET[:-1] + ("0" if SECRET[-1] != "0" else "1"), NOW)


async def until(ring: KeyRing, secret: str, *, known: bool) -> None:
    async with asyncio.timeout(1.0):  # PROMISES R4: within a second
        while True:
            try:
                ring.find(secret, NOW)
                found = True
            except Unauthorized:
                found = False
            if found is known:
                return
            await asyncio.sleep(0.01)


async def test_another_process_creates_and_revokes_within_a_second(tmp_path: Path) -> None:
    events: list[Event] = []
    with KeyStore(tmp_path / "keys.db") as reader, KeyStore(tmp_path / "keys.db") as writer:
        ring = KeyRing(reader.by_digest())
        task = asyncio.create_task(follow(ring, reader, events.append))
        key, secret = admin.create_key(writer, owner="team", name="t", now=NOW)
        await until(ring, secret, known=True)
        writer.revoke(key.key_id, NOW)
        await until(ring, secret, known=False)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert events == []


class Flaky:
    """A database that goes away and comes back, with a new key."""

    def __init__(self) -> None:
        self.is_away = True
        self.asked = 0

    def version(self) -> int:
        self.asked += 1
        if self.is_away:
            raise sqlite3.OperationalError("disk I/O error")
        return 2

    def by_digest(self) -> Mapping[str, Key]:
        return {}


async def test_known_keys_work_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "POLL_S", 0.01)
    ring, source, events = KeyRing(KEYS), Flaky(), list[Event]()
    task = asyncio.create_task(follow(ring, source, events.append))
    async with asyncio.timeout(5):
        while source.asked < 3:
            await asyncio.sleep(0.01)
        assert ring.find(SECRET, NOW)
        source.is_away = False
        await until(ring, SECRET, known=False)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert [type(event) for event in events] == [Notice, Notice]
