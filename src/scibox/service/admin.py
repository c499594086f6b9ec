"""The operator's use cases: keys."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Callable, Iterable

from scibox.core import secret as secrets
from scibox.core.errors import NotFound
from scibox.core.keys import state
from scibox.core.types import Key, Role
from scibox.store.keys import KeyStore
from scibox.wire.admin.keys import KeyQuery

from .disk import Disk

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
    numbers = [randomness.randbelow(len(secrets.ALPHABET)) for _ in range(secrets.RANDOM_CHARS)]
    secret = secrets.compose(numbers)
    key = Key(
        key_id=f"key_{randomness.token_hex(6)}",
        owner=owner,
        name=name,
        role=role,
        last_four=secret[-4:],
        created_at=now,
        expires_at=None if days is None else now + days * DAY_S,
        models=None if models is None else frozenset(models),
    )
    store.add(key, secrets.digest(secret))
    return key, secret


def ensure_operator(store: KeyStore, now: float) -> str | None:
    """At the first start: the operator's secret, to be shown once. None when there are keys already."""
    if store.all():
        return None
    _, secret = create_key(store, owner="operator", name="first start", role="operator", now=now)
    return secret


class Admin:
    """The use cases of `/admin/v1`; `now` is Unix time in seconds."""

    def __init__(self, store: KeyStore, disk: Disk, now: Callable[[], float]) -> None:
        self._store = store
        self._disk = disk
        self.now = now

    async def keys(self, query: KeyQuery) -> tuple[list[Key], bool]:
        """A page of keys, and whether more follow."""
        keys = await self._disk.run(self._store.all)
        now = self.now()
        if not query.page.is_ascending:
            keys.reverse()
        if query.page.after is not None:
            at = next((i for i, key in enumerate(keys) if key.key_id == query.page.after), None)
            if at is None:
                raise NotFound(f"There is no key '{query.page.after[:100]}'.", param="after")
            keys = keys[at + 1 :]
        found = [
            key for key in keys if query.owner in {None, key.owner} and query.state in {None, state(key, now)}
        ]
        return found[: query.page.limit], len(found) > query.page.limit
