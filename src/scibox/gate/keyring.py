"""The keys in memory: the database is never on a request's way (ARCHITECTURE, law 9)."""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping

from scibox.core import secret as secrets
from scibox.core.errors import KeysUnavailable, Unauthorized
from scibox.core.types import Key, Owner
from scibox.store.keys import Known
from scibox.store.revoked import merge

RETRY_AFTER_S = 5
MOST_PASSED = 65_536
_NOBODY: tuple[Key | None, float] = (None, 0.0)


class _Unknown(Unauthorized):
    """Nothing in memory has this secret."""


async def _nothing_newer() -> None:
    """For a ring whose keys come from nowhere else."""


class KeyRing:
    """Digest to key; replaced as a whole, so that a reader never sees half of a change.

    `refresh` waits until the ring is as the database is at that moment, or raises `KeysUnavailable`.
    Times are Unix seconds.
    """

    def __init__(self, known: Known, refresh: Callable[[], Awaitable[None]] = _nothing_newer) -> None:
        self._refresh = refresh
        self._lock = threading.Lock()  # of those who change it: what has ended comes from several threads
        self._listed: Mapping[str, float] = {}
        self.used: dict[str, float] = {}  # when each key was last used, by its id; whoever keeps it takes it
        self.trouble: str | None = None  # why the database cannot be asked now
        self.trouble_since = 0.0
        self._passed: dict[str, tuple[Key, float]] = {}  # digests that open now, and until when at most
        self.replace(known)

    def replace(self, known: Known) -> None:
        """Take what the database has now."""
        with self._lock:
            self.known = known
            self._by_id = {key.key_id: key for key in known.keys.values()}
            self._ends = merge(known.ends, self._listed)
            self._passed = {}

    def end(self, ends: Mapping[str, float]) -> None:
        """Keys (by id) and digests that have ended, or will have, whatever any database says later."""
        with self._lock:
            self._listed = merge(self._listed, ends)
            self._ends = merge(self._ends, ends)
            self._passed = {}

    @property
    def listed(self) -> Mapping[str, float]:
        """All that `end` was told."""
        return self._listed

    @property
    def is_empty(self) -> bool:
        """Whether there is no key at all."""
        return not self._by_id

    def keys(self) -> Collection[Key]:
        """Every key that is known here."""
        return self._by_id.values()

    async def identify(self, secret: str, now: float) -> Key:
        """As `find`; a secret that nobody knows here is looked for in the database before it is refused."""
        try:
            return self.find(secret, now)
        except _Unknown:
            await self._refresh()
        return self.find(secret, now)

    async def holder(self, secret: str, now: float) -> Key:
        """The key of a secret whatever has become of it, looked for in the same way."""
        try:
            return self._holder(secret, now)
        except _Unknown:
            await self._refresh()
        return self._holder(secret, now)

    def find(self, secret: str, now: float) -> Key:
        """The key of a secret, or `Unauthorized` with what to do, or `KeysUnavailable`."""
        digest, passed = secrets.digest(secret), self._passed
        key, until = passed.get(digest, _NOBODY)
        if key is None or now >= until:
            key = self._find(secret, digest, now)
            self._check(key, now)
            # Into what was there before it was looked at: who changes the ring begins another.
            if len(passed) < MOST_PASSED:
                until = math.inf if key.expires_at is None else key.expires_at
                passed[digest] = key, min(until, self._ends.get(digest, math.inf))
        self.used[key.key_id] = now
        return key

    def _holder(self, secret: str, now: float) -> Key:
        return self._find(secret, secrets.digest(secret), now)

    def _find(self, secret: str, digest: str, now: float) -> Key:
        key = self.known.keys.get(digest)
        if key is None:
            _check_form(secret)
            self._check_database()
            raise _Unknown("This key is not known here; ask the operator for one.")
        if digest in self._ends and self._ends[digest] <= now:
            raise Unauthorized(
                "This secret was replaced by a new one; ask whoever has it, or the operator.",
                code="key_revoked",
            )
        return key

    def recall(self, key_id: str, now: float) -> Key:
        """The key of that id as it is at `now`, or `Unauthorized`, or `KeysUnavailable`."""
        key = self._by_id.get(key_id)
        if key is None:
            self._check_database()
            raise Unauthorized("This key is gone; ask the operator for a new one.", code="key_revoked")
        self._check(key, now)
        return key

    async def recall_newest(self, key_id: str, now: float) -> Key:
        """As `recall`; an id that nobody knows here is looked for in the database first."""
        if key_id not in self._by_id:
            await self._refresh()
        return self.recall(key_id, now)

    def owner(self, name: str) -> Owner:
        """The owner of that name; one of whom nothing is known has the usual weight and no limits."""
        return self.known.owners.get(name) or Owner(name)

    def _check(self, key: Key, now: float) -> None:
        if key.revoked_at is not None or key.key_id in self._ends:
            raise Unauthorized("This key was revoked; ask the operator for a new one.", code="key_revoked")
        if key.expires_at is not None and now >= key.expires_at:
            raise Unauthorized("This key has expired; ask the operator for a new one.", code="key_expired")
        if not key.is_enabled:
            raise Unauthorized("This key is disabled; ask the operator to enable it.", code="key_disabled")

    def _check_database(self) -> None:
        if self.trouble is not None:
            raise unavailable()


def _check_form(secret: str) -> None:
    """Refuse what cannot be anybody's secret; the database is not asked for it."""
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


def unavailable() -> KeysUnavailable:
    """What is said of a key that cannot be looked for now."""
    return KeysUnavailable(
        "This key is not known here yet, and the database of keys cannot be asked now; try again in a few "
        "seconds. Keys that were used here before go on working. If that lasts, tell the operator.",
        retry_after_s=RETRY_AFTER_S,
    )
