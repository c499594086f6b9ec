"""The one way to revoke keys, for commands, the admin API and `DELETE /v1/key`; it needs no database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from scibox.core.types import Key
from scibox.store.keys import KeyStore
from scibox.store.revoked import Revoked
from scibox.store.sql import DatabaseAway


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a wish to revoke keys. `waits_for`: why the database does not know of it yet."""

    keys: tuple[Key, ...] = ()  # as the database has them now
    unknown: tuple[str, ...] = ()  # ids that it does not have
    waits_for: str | None = None


def _nowhere(ends: Mapping[str, float]) -> None:
    """For a process that has no ring."""


class Revocation:
    """Revokes keys for ever: first on this data folder's list, which the service sees within a second.

    `at_once` is told as soon as it is durable: in the service, `KeyRing.end`.
    """

    def __init__(
        self, store: KeyStore, revoked: Revoked, at_once: Callable[[Mapping[str, float]], None] = _nowhere
    ) -> None:
        self._store = store
        self._revoked = revoked
        self._at_once = at_once

    def revoke(self, key_ids: Iterable[str], now: float) -> Outcome:
        """Revoke keys at `now` (Unix seconds). It blocks; without the database the service writes it later.

        Raises `DatabaseAway` only where the disk of the list does not work either.
        """
        ends = dict.fromkeys(key_ids, now)
        failure: OSError | None = None
        try:
            self._revoked.add(ends)
        except OSError as error:
            failure = error
        self._at_once(ends)
        try:
            self._store.end(ends)
            known = {key.key_id: key for key in self._store.all()}
        except DatabaseAway as error:
            if failure is not None:
                raise DatabaseAway(f"{error}; and the list of revoked keys: {failure.strerror}") from error
            return Outcome(waits_for=str(error))
        return Outcome(
            tuple(known[key_id] for key_id in ends if key_id in known),
            tuple(key_id for key_id in ends if key_id not in known),
        )
