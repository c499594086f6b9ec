"""The operator's use cases: owners, keys, limits. They block: the service runs them off its loop.

What cannot be done is an error that a caller should read; trouble with the database is `DatabaseAway`.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from scibox.core import secret as secrets
from scibox.core.errors import Conflict, NotFound
from scibox.core.files import Page
from scibox.core.keys import (
    Draft,
    KeyChange,
    OwnerChange,
    Shown,
    change_key,
    change_owner,
    locks_out,
    state,
    written,
)
from scibox.core.types import Key, Owner, Role
from scibox.store.keys import KeyStore, NoSuchOwner, Plan
from scibox.store.revoked import is_listable
from scibox.store.sql import DatabaseAway
from scibox.wire.admin.body import Problems
from scibox.wire.admin.keys import KeyQuery

from .making import Labelled, check_models, make, new_secret, plan
from .revocation import Outcome, Revocation

T = TypeVar("T")
DAY_S = 86400.0


def create_key(
    store: KeyStore,
    *,
    owner: str,
    name: str,
    now: float,
    role: Role = "member",
    days: float | None = None,
    models: Iterable[str] | None = None,
) -> tuple[Key, str]:
    """A new key and its secret; the secret is nowhere else and cannot be shown again. `now`: Unix seconds."""
    expires_at = None if days is None else now + days * DAY_S
    key, secret = make(
        Draft(owner, name, role, expires_at, None if models is None else frozenset(models)), now
    )
    store.add([(key, secrets.digest(secret))])
    return key, secret


def ensure_operator(store: KeyStore, now: float) -> str | None:
    """At the first start: the operator's secret, to be shown once. None when there are keys already."""
    key, secret = make(Draft("operator", "first start", "operator"), now)
    return secret if store.add_first(key, secrets.digest(secret)) else None


@dataclass(frozen=True, slots=True)
class Made:
    """The keys of a table with their secrets, and the places of those that were there before."""

    keys: list[Shown]
    skipped: tuple[str, ...]


class Admin:
    """The use cases. `now` is Unix time in seconds, `models` are the public names that are served.

    `remembered`: the keys in memory: what must not wait for the database is decided by them.
    """

    def __init__(
        self,
        store: KeyStore,
        revocation: Revocation,
        models: Callable[[], Collection[str]],
        now: Callable[[], float],
        remembered: Callable[[], Iterable[Key]] = tuple,
    ) -> None:
        self._store = store
        self._revocation = revocation
        self._models = models
        self._remembered = remembered
        self.now = now

    def owners(self, page: Page) -> tuple[list[Owner], Mapping[str, int], bool]:
        """A page of owners, how many keys each has that are not revoked, and whether more follow."""
        owners = sorted(self._store.owners(), key=lambda owner: (owner.created_at, owner.name))
        stretch, has_more = _stretch(owners, page, lambda owner: owner.name, _no_owner)
        return stretch, self._counts(), has_more

    def owner(self, name: str) -> tuple[Owner, int]:
        """One owner, and how many keys it has that are not revoked."""
        name = written(name)
        found = next((owner for owner in self._store.owners() if owner.name == name), None)
        if found is None:
            raise _no_owner(name)
        return found, self._counts()[name]

    def add_owner(self, owner: Owner) -> Owner:
        """Make an owner that is not there yet."""
        if not self._store.add_owner(owner):
            raise Conflict(
                f"There is an owner '{owner.name}' already; POST /admin/v1/owners/{owner.name} changes it.",
                param="name",
            )
        return owner

    def change_owner(self, name: str, change: OwnerChange) -> tuple[Owner, int]:
        """Change an owner's weight, limits or note."""
        name = written(name)
        try:
            owner = self._store.change_owner(name, lambda before: change_owner(before, change))
        except NoSuchOwner:
            raise _no_owner(name) from None
        return owner, self._counts()[name]

    def remove_owner(self, name: str) -> None:
        """Forget an owner, its weight and its limits; entries and revoked keys go on naming it."""
        name = written(name)
        try:
            if not self._store.remove_owner(name):
                raise Conflict(
                    f"'{name}' has keys that are not revoked; revoke them first (scibox keys revoke --owner)."
                )
        except NoSuchOwner:
            raise _no_owner(name) from None

    def keys(self, query: KeyQuery) -> tuple[list[Shown], bool]:
        """A page of keys, and whether more follow."""
        now, keys = self.now(), self._store.all()
        owner = None if query.owner is None else written(query.owner)
        found = [key for key in keys if owner in {None, key.owner} and query.state in {None, state(key, now)}]
        stretch, has_more = _stretch(found, query.page, lambda key: key.key_id, _no_key)
        uses = self._store.uses()
        return [Shown(key, uses.get(key.key_id)) for key in stretch], has_more

    def key(self, key_id: str) -> Shown:
        """One key."""
        keys = self._store.all()
        found = next((key for key in keys if key.key_id == key_id), None)
        if found is None:
            raise _no_key(key_id)
        return self._shown(found)

    def create(self, draft: Draft) -> Shown:
        """Make one key; its owner too, where that is not there yet."""
        check_models(draft.models, self._models())
        key, secret = make(draft, self.now())
        self._store.add([(key, secrets.digest(secret))])
        return Shown(key, secret=secret)

    def create_many(
        self, drafts: Sequence[Labelled], again: bool, hand_out: Callable[[Made], None] | None = None
    ) -> Made:
        """Make all of these keys or none; `hand_out` is called before they are stored, and may prevent it."""
        problems, known, now = Problems(), self._models(), self.now()
        for where, draft in drafts:
            with problems.within(where):
                check_models(draft.models, known)
        problems.tell()
        made = Made([], ())

        def decide(keys: Iterable[Key], owners: Mapping[str, Owner]) -> Plan:
            nonlocal made
            todo = plan(drafts, keys, owners, now, again=again)
            fresh = [make(draft, now) for draft in todo.drafts]
            made = Made([Shown(key, secret=secret) for key, secret in fresh], todo.skipped)
            if hand_out is not None:
                hand_out(made)
            return [(key, secrets.digest(secret)) for key, secret in fresh], todo.owners

        self._store.add_planned(decide)
        return made

    def change(self, key_id: str, change: KeyChange, force: bool) -> Shown:
        """Change a key's name, role, expiry, models or limits; enable or disable it."""
        if isinstance(change.models, frozenset):
            check_models(change.models, self._models())
        return self._shown(self._change([key_id], change, force)[0])

    def change_many(self, key_ids: Iterable[str], change: KeyChange, force: bool) -> list[Key]:
        """The same for several keys, all or none."""
        return self._change(list(key_ids), change, force)

    def rotate(self, key_id: str, overlap_s: float) -> Shown:
        """Give a key a new secret; the one before works for `overlap_s` seconds more."""
        key = self.key(key_id).key
        if key.revoked_at is not None:
            raise _revoked(key)
        secret, old_until = new_secret(), self.now() + overlap_s
        changed = self._store.rotate(key_id, secrets.digest(secret), secret[-4:], old_until)
        return Shown(changed, self._store.uses().get(key_id), secret, old_until)

    def revoke(self, key_id: str, force: bool) -> Shown:
        """End a key for ever; also while the database is away."""
        keys = self._known(key_id)
        if key_id not in keys:
            raise _no_key(key_id)
        now = self.now()
        if not force and locks_out(keys.values(), [replace(keys[key_id], revoked_at=now)], now):
            raise last_operator()
        outcome = self._revocation.revoke([key_id], now)
        return Shown(outcome.keys[0] if outcome.keys else replace(keys[key_id], revoked_at=now))

    def revoke_many(self, key_ids: Sequence[str], force: bool) -> Outcome:
        """The same for several keys: those that there are."""
        keys, now = self._known(*key_ids), self.now()
        ended = [replace(keys[key_id], revoked_at=now) for key_id in key_ids if key_id in keys]
        if not force and locks_out(keys.values(), ended, now):
            raise last_operator()
        return self._revocation.revoke(filter(is_listable, key_ids), now)

    def give_up(self, key: Key) -> None:
        """End the key of a secret that was presented for that: whoever has it may."""
        self._revocation.revoke([key.key_id], self.now())

    def ids_of(self, owner: str) -> list[str]:
        """The keys of an owner that are not revoked."""
        owner = written(owner)
        ids = [key.key_id for key in self._known().values() if key.owner == owner and key.revoked_at is None]
        if not ids:
            raise NotFound(f"'{owner[:100]}' has no key that is not revoked; see: scibox keys list")
        return ids

    def _known(self, *key_ids: str) -> dict[str, Key]:
        """The keys in memory, or in the database where these are not among them and it can be asked."""
        keys = {key.key_id: key for key in self._remembered()}
        if not keys or not keys.keys() >= set(key_ids):
            with contextlib.suppress(DatabaseAway):  # to revoke must not wait for it
                keys = {key.key_id: key for key in self._store.all()}
        return keys

    def _change(self, key_ids: list[str], change: KeyChange, force: bool) -> list[Key]:
        def changed(keys: Mapping[str, Key]) -> list[Key]:
            after = []
            for key_id in key_ids:
                if key_id not in keys:
                    raise _no_key(key_id)
                if keys[key_id].revoked_at is not None:
                    raise _revoked(keys[key_id])
                after.append(change_key(keys[key_id], change))
            if not force and locks_out(keys.values(), after, self.now()):
                raise last_operator()
            return after

        return self._store.change_keys(changed)

    def _shown(self, key: Key) -> Shown:
        return Shown(key, self._store.uses().get(key.key_id))

    def _counts(self) -> Counter[str]:
        keys = self._store.all()
        return Counter(key.owner for key in keys if key.revoked_at is None)


def last_operator() -> Conflict:
    """What is asked would lock the operators out."""
    return Conflict(
        "No operator's key that works would be left: make another first (scibox keys create NAME "
        "--operator), or say 'force'.",
        code="last_operator",
    )


def _stretch(
    rows: Sequence[T], page: Page, name: Callable[[T], str], missing: Callable[[str, str], NotFound]
) -> tuple[list[T], bool]:
    """A page of rows that come oldest first, and whether more follow."""
    rows = list(rows if page.is_ascending else reversed(rows))
    if page.after is not None:
        names = [name(row) for row in rows]
        if page.after not in names:
            raise missing(page.after, "after")
        rows = rows[names.index(page.after) + 1 :]
    return rows[: page.limit], len(rows) > page.limit


def _no_key(key_id: str, param: str | None = None) -> NotFound:
    return NotFound(
        f"There is no key '{key_id[:100]}'; see GET /admin/v1/keys (scibox keys list).", param=param
    )


def _no_owner(name: str, param: str | None = None) -> NotFound:
    return NotFound(
        f"There is no owner '{name[:100]}'; see GET /admin/v1/owners (scibox owners list).", param=param
    )


def _revoked(key: Key) -> Conflict:
    return Conflict(f"{key.key_id} is revoked, and that is for ever: make a new key.")
