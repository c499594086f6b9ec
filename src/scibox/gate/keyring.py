"""The keys in memory: the database is never on a request's way (ARCHITECTURE, law 9)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from typing import Protocol

from scibox.core import secret as secrets
from scibox.core.errors import Unauthorized
from scibox.core.events import Emit, Notice
from scibox.core.types import Key

POLL_S = 0.25  # a revoked key is refused within a second (PROMISES R4)


class Source(Protocol):
    """Where keys come from: `store.keys.KeyStore`."""

    def version(self) -> int:
        """Changes when another process has written."""

    def by_digest(self) -> Mapping[str, Key]:
        """Every key under its digest."""


class KeyRing:
    """Digest to key; replaced as a whole, so that a reader never sees half of a change."""

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self.replace(keys)

    def replace(self, keys: Mapping[str, Key]) -> None:
        """Take a new set of keys."""
        self._keys = keys
        self._by_id = {key.key_id: key for key in keys.values()}

    def find(self, secret: str, now: float) -> Key:
        """The key of a secret at `now` (Unix seconds), or `Unauthorized` with what to do."""
        if not secret:
            raise Unauthorized(
                "No key was given; send the header 'Authorization: Bearer <your key>'.",
                code="missing_api_key",
            )
        if not secrets.is_well_formed(secret):
            raise Unauthorized(
                "This is not a key of SciBox: it is mistyped or cut (a key begins with "
                f"'{secrets.PREFIX}' and has {secrets.LENGTH} "
                "characters). Copy it again."
            )
        key = self._keys.get(secrets.digest(secret))
        if key is None:
            raise Unauthorized("This key is not known here; ask the operator for one.")
        return _valid(key, now)

    def recall(self, key_id: str, now: float) -> Key:
        """The key of that id as it is at `now`, or `Unauthorized`."""
        key = self._by_id.get(key_id)
        if key is None:
            raise Unauthorized("This key is gone; ask the operator for a new one.", code="key_revoked")
        return _valid(key, now)


def _valid(key: Key, now: float) -> Key:
    if key.revoked_at is not None:
        raise Unauthorized("This key was revoked; ask the operator for a new one.", code="key_revoked")
    if key.is_expired(now):
        raise Unauthorized("This key has expired; ask the operator for a new one.", code="key_expired")
    return key


async def follow(ring: KeyRing, source: Source, emit: Emit) -> None:
    """Keep the ring like the database, for ever; while the database is away the ring stays as it is."""
    seen: int | None = None
    is_away = False
    while True:
        try:
            version = await asyncio.to_thread(source.version)
            if version != seen:
                ring.replace(await asyncio.to_thread(source.by_digest))
                seen = version
            if is_away:
                emit(Notice("the key database is back"))
                is_away = False
        except sqlite3.Error as error:
            if not is_away:
                message = f"the key database is away ({error}); known keys go on working"
                emit(Notice(message, is_warning=True))
                is_away = True
        await asyncio.sleep(POLL_S)
