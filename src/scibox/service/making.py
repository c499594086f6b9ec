"""Keys to be made: the secrets of new ones, and which of a table are there already. `now` is Unix seconds."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from scibox.core import secret as secrets
from scibox.core.errors import InvalidRequest
from scibox.core.keys import Draft, state
from scibox.core.names import nearest
from scibox.core.types import Key, Owner
from scibox.wire.admin.body import Problems

Labelled = tuple[str, Draft]  # with the place that errors name: "line 7", "keys[6]"


@dataclass(frozen=True, slots=True)
class Plan:
    """What of many drafts is to be made, the places of those that are there, and the owners that change."""

    drafts: tuple[Draft, ...]
    skipped: tuple[str, ...]
    owners: tuple[Owner, ...]


def new_secret() -> str:
    """A secret of the operating system's randomness."""
    return secrets.compose([randomness.randbelow(len(secrets.ALPHABET)) for _ in range(secrets.RANDOM_CHARS)])


def make(draft: Draft, now: float) -> tuple[Key, str]:
    """A key and its secret; the secret is nowhere else and cannot be shown again."""
    secret = new_secret()
    key = Key(
        key_id=f"key_{randomness.token_hex(6)}",
        owner=draft.owner,
        name=draft.name,
        role=draft.role,
        last_four=secret[-4:],
        created_at=now,
        expires_at=draft.expires_at,
        models=draft.models,
        limits=draft.limits,
    )
    return key, secret


def check_models(models: Iterable[str] | None, known: Collection[str]) -> None:
    """Refuse the name of a model that is not served."""
    for name in sorted(models or ()):
        if name not in known:
            close = nearest(name, known)
            hint = f"Did you mean '{close}'?" if close else f"There are: {', '.join(sorted(known))}."
            raise InvalidRequest(f"There is no model '{name[:100]}'. {hint}", param="models")


def plan(
    drafts: Sequence[Labelled],
    keys: Iterable[Key],
    owners: Mapping[str, Owner],
    now: float,
    *,
    again: bool,
) -> Plan:
    """What is to be done for a table; `again` makes keys also where the owner has one of that name.

    A key that was revoked or has expired is not one any more: the same table serves the next term.
    """
    problems = Problems()
    there = {(key.owner, key.name) for key in keys if state(key, now) in {"active", "disabled"}}
    firsts: dict[tuple[str, str], str] = {}
    said: dict[str, tuple[str, Draft]] = {}
    made: list[Draft] = []
    skipped: list[str] = []
    for where, draft in drafts:
        with problems.within(where):
            if not again:
                _refuse_twin(draft, where, firsts)
                if (draft.owner, draft.name) in there:
                    skipped.append(where)
                    continue
            _note_owner(draft, where, said)
            made.append(draft)
    problems.tell()
    changed = [_owner(draft, owners.get(draft.owner), now) for _, draft in said.values()]
    return Plan(tuple(made), tuple(skipped), tuple(changed))


def _refuse_twin(draft: Draft, where: str, firsts: dict[tuple[str, str], str]) -> None:
    first = firsts.setdefault((draft.owner, draft.name), where)
    if first != where:
        message = f"'{draft.owner}' has a key '{draft.name}' in {first} already; give this one another name."
        raise InvalidRequest(message, param="name")


def _note_owner(draft: Draft, where: str, said: dict[str, tuple[str, Draft]]) -> None:
    """Gather what the drafts of one owner say of it; they must not contradict each other."""
    if draft.weight is None and draft.note is None:
        return
    first, before = said.get(draft.owner, (where, draft))
    for param in ("weight", "note"):
        old, new = getattr(before, param), getattr(draft, param)
        if None not in {old, new} and old != new:
            message = f"'{draft.owner}' has another {param} in {first}; it is the owner's, not the key's."
            raise InvalidRequest(message, param=param)
        before = replace(before, **{param: old if new is None else new})
    said[draft.owner] = (first, before)


def _owner(draft: Draft, owner: Owner | None, now: float) -> Owner:
    before = owner or Owner(draft.owner, created_at=now)
    weight = before.weight if draft.weight is None else draft.weight
    return replace(before, weight=weight, note=before.note if draft.note is None else draft.note)
