"""Tables of keys: planned as a whole, made once, also by two who ask at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from scibox.core import secret as secrets
from scibox.core.errors import InvalidRequest
from scibox.core.keys import Draft
from scibox.core.types import Key, Limits, Owner
from scibox.service.admin import Admin, Made
from scibox.service.making import plan
from scibox.service.revocation import Revocation
from scibox.store.keys import KeyStore
from scibox.store.revoked import Revoked

NOW = 1_000.0
KEY = Key("key_1", "a", "laptop", "member", "abcd", 1.0)


def labelled(*drafts: Draft) -> list[tuple[str, Draft]]:
    return [(f"line {number}", draft) for number, draft in enumerate(drafts, 2)]


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    with KeyStore(f"sqlite://{tmp_path}/keys.db") as store:
        yield Admin(store, Revocation(store, Revoked(tmp_path / "revoked")), lambda: {"m"}, lambda: NOW)


@pytest.mark.parametrize(
    ("there", "is_skipped"),
    [
        (KEY, True),
        (replace(KEY, is_enabled=False), True),
        (replace(KEY, revoked_at=2.0), False),
        (replace(KEY, expires_at=2.0), False),  # the same table serves the next term
        (replace(KEY, name="desk"), False),
        (replace(KEY, owner="b"), False),
    ],
)
def test_a_key_that_is_there_is_not_made_again(there: Key, is_skipped: bool) -> None:
    drafts = labelled(Draft("a", "laptop", weight=3.0))

    todo = plan(drafts, [there], {}, NOW, again=False)
    forced = plan(drafts, [there], {}, NOW, again=True)

    assert todo.skipped == (("line 2",) if is_skipped else ())
    assert len(todo.drafts) == len(todo.owners) == (0 if is_skipped else 1)
    assert len(forced.drafts) == 1


def test_what_a_table_says_of_owners_is_put_together() -> None:
    known = Owner("a", 5.0, Limits(calls_in_flight=2), 1.0, "old")
    drafts = labelled(
        Draft("a", "1", weight=2.0), Draft("a", "2", note="new"), Draft("a", "3", weight=2.0), Draft("b", "1")
    )

    todo = plan(drafts, [], {"a": known}, NOW, again=False)

    assert todo.owners == (Owner("a", 2.0, Limits(calls_in_flight=2), 1.0, "new"),)


def test_contradictions_and_twins_name_both_lines() -> None:
    drafts = labelled(
        Draft("a", "1", weight=2.0), Draft("a", "2", weight=3.0), Draft("b", "x"), Draft("b", "x")
    )

    with pytest.raises(InvalidRequest) as caught:
        plan(drafts, [], {}, NOW, again=False)

    first, second = caught.value.message.split("\n")
    assert first.startswith("line 3: 'a' has another weight in line 2")
    assert second.startswith("line 5: 'b' has a key 'x' in line 4")


def test_two_who_send_the_same_table_at_once_make_it_once(admin: Admin) -> None:
    drafts = labelled(*(Draft(f"team-{n}", "n") for n in range(100)))
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: admin.create_many(drafts, again=False), range(4)))

    assert sorted(len(one.keys) for one in made) == [0, 0, 0, 100]
    assert sorted(len(one.skipped) for one in made) == [0, 100, 100, 100]


def test_what_cannot_be_handed_out_is_not_made(admin: Admin, tmp_path: Path) -> None:
    def fail(made: Made) -> None:
        assert len(made.keys) == 2
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        admin.create_many(labelled(Draft("a", "1"), Draft("a", "2")), again=False, hand_out=fail)

    with KeyStore(f"sqlite://{tmp_path}/keys.db") as store:
        assert store.all() == []
        assert store.owners() == []


def test_only_digests_are_stored(admin: Admin, tmp_path: Path) -> None:
    made = admin.create_many(labelled(Draft("a", "1")), again=False)
    secret = str(made.keys[0].secret)
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert secrets.digest(secret).encode() in files
    assert secret.encode() not in files
    assert secret[10:40].encode() not in files
