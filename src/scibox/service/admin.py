"""The operator's use cases: keys."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Iterable

from scibox.core import secret as secrets
from scibox.core.types import Key, Role
from scibox.store.keys import KeyStore

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
    """A new key, stored, and its secret, which cannot be shown again. `now`: Unix seconds."""
    key, secret = _make(owner=owner, name=name, now=now, role=role, days=days, models=models)
    store.add([(key, secrets.digest(secret))])
    return key, secret


def ensure_operator(store: KeyStore, now: float) -> str | None:
    """At the first start: the operator's secret, to be shown once. None when there are keys already."""
    key, secret = _make(owner="operator", name="first start", role="operator", now=now)
    return secret if store.add_first(key, secrets.digest(secret)) else None


def _make(
    *,
    owner: str,
    name: str,
    now: float,
    role: Role = "member",
    days: float | None = None,
    models: Iterable[str] | None = None,
) -> tuple[Key, str]:
    """A new key and its secret, which is nowhere else."""
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
    return key, secret
