"""The keys in memory: who is let in, and what has ended."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig import EXPIRED, KEYS, REVOKED, SECRET, STRANGER
from scibox.core import secret as secrets
from scibox.core.errors import KeysUnavailable, Unauthorized
from scibox.core.types import Key, Limits, Owner
from scibox.gate.keyring import KeyRing
from scibox.store.keys import Known

NOW = 1_800_000_000.0
FULL = KEYS[secrets.digest(SECRET)]


def opens(ring: KeyRing, secret: str, now: float = NOW) -> bool:
    try:
        ring.find(secret, now)
    except Unauthorized:
        return False
    return True


def test_a_known_secret_opens_and_its_use_is_noted() -> None:
    ring = KeyRing(Known(KEYS))

    assert ring.find(SECRET, NOW) == ring.recall("key_full", NOW) == FULL
    assert ring.used == {"key_full": NOW}


async def test_a_wrong_checksum_is_refused_and_the_database_is_not_asked() -> None:
    async def ask() -> None:
        raise AssertionError("asked")

    with pytest.raises(Unauthorized, match="mistyped"):
        await KeyRing(Known(KEYS), ask).identify(SECRET[:-1] + ("0" if SECRET[-1] != "0" else "1"), NOW)


async def test_a_text_that_no_encoding_has_is_refused() -> None:
    with pytest.raises(Unauthorized, match="mistyped"):
        await KeyRing(Known(KEYS)).identify("sk-scibox-\ud800", NOW)


async def test_a_key_made_a_moment_ago_is_looked_for_before_it_counts_as_gone() -> None:
    async def ask() -> None:
        ring.replace(Known(KEYS))

    ring = KeyRing(Known({}), ask)

    assert await ring.recall_newest("key_full", NOW) == FULL


@pytest.mark.parametrize(
    ("secret", "code"), [("", "missing_api_key"), (REVOKED, "key_revoked"), (EXPIRED, "key_expired")]
)
def test_what_does_not_open_says_why(secret: str, code: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        KeyRing(Known(KEYS)).find(secret, NOW)

    assert caught.value.code == code


def test_a_disabled_key_does_not_open() -> None:
    ring = KeyRing(Known({secrets.digest(SECRET): replace(FULL, is_enabled=False)}))
    for ask in (lambda: ring.find(SECRET, NOW), lambda: ring.recall("key_full", NOW)):
        with pytest.raises(Unauthorized) as caught:
            ask()
        assert caught.value.code == "key_disabled"


def test_both_secrets_of_a_rotated_key_open_until_the_old_one_ends() -> None:
    keys = {secrets.digest(SECRET): FULL, secrets.digest(STRANGER): FULL}
    ring = KeyRing(Known(keys, ends={secrets.digest(SECRET): NOW}))

    assert opens(ring, SECRET, NOW - 0.1)
    assert not opens(ring, SECRET, NOW)
    assert opens(ring, STRANGER, NOW)


def test_owners_have_their_limits_and_unknown_ones_none() -> None:
    team = Owner("team", 2.0, Limits(calls_in_flight=3))
    ring = KeyRing(Known(KEYS, {"team": team}))

    assert ring.owner("team") == team
    assert ring.owner("others") == Owner("others")


def test_unknown_keys_are_not_refused_while_the_database_is_away() -> None:
    ring = KeyRing(Known({secrets.digest(SECRET): FULL}))
    ring.trouble = "it is away"

    assert ring.find(SECRET, NOW) == FULL
    for ask in (lambda: ring.find(STRANGER, NOW), lambda: ring.recall("key_stranger", NOW)):
        with pytest.raises(KeysUnavailable) as caught:
            ask()
        assert caught.value.retry_after_s is not None
        assert 1 <= caught.value.retry_after_s <= 60


CASE = st.sampled_from(["end key", "end digest", "replace", "replace with an old state"])


@given(st.lists(CASE, max_size=12))
def test_what_has_ended_never_opens_again(cases: list[str]) -> None:
    """Whatever databases, snapshots and backups say later."""
    digest, other = secrets.digest(SECRET), secrets.digest(STRANGER)
    keys: dict[str, Key] = {digest: FULL, other: FULL}
    states: list[dict[str, Any]] = [{}, {"ends": {digest: NOW + 99}}]
    ring, has_ended = KeyRing(Known(keys)), {"key": False, "digest": False}
    for index, case in enumerate(cases):
        if case == "end key":
            ring.end({"key_full": NOW - index})
            has_ended["key"] = True
        elif case == "end digest":
            ring.end({digest: NOW - index})
            has_ended["digest"] = True
        else:
            ring.replace(Known(keys, **states[case == "replace"]))

        assert opens(ring, SECRET) == (not any(has_ended.values()))
        assert opens(ring, STRANGER) == (not has_ended["key"])
