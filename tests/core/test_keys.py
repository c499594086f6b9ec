import pytest

from scibox.core.errors import InvalidRequest
from scibox.core.keys import (
    KeyChange,
    OwnerChange,
    change_key,
    change_owner,
    check_name,
    locks_out,
    state,
)
from scibox.core.types import Key, Limits, Owner

KEY = Key("key_1", "team", "laptop", "member", "abcd", 1.0, 50.0, limits=Limits(calls_per_minute=5))
BOSS = Key("key_2", "it", "root", "operator", "abcd", 1.0)


def test_a_change_leaves_alone_what_it_does_not_name() -> None:
    change = KeyChange(expires_at=None, limits={"tokens_per_day": 9, "calls_per_minute": None})

    changed = change_key(KEY, change)

    assert (changed.name, changed.is_enabled, changed.expires_at) == ("laptop", True, None)
    assert changed.limits == Limits(tokens_per_day=9)
    assert change_key(KEY, KeyChange()) == KEY
    assert change_owner(Owner("o", 2.0, note="n"), OwnerChange(note="")) == Owner("o", 2.0)


@pytest.mark.parametrize(
    ("change", "now", "expected"),
    [
        ({}, 10.0, "active"),
        ({"is_enabled": False}, 10.0, "disabled"),
        ({"is_enabled": False}, 60.0, "expired"),
    ],
)
def test_the_state_of_a_key(change: dict[str, bool], now: float, expected: str) -> None:
    assert state(change_key(KEY, KeyChange(**change)), now) == expected  # type: ignore[arg-type]


def test_who_would_take_the_last_operators_key_away_is_noticed() -> None:
    second = Key("key_3", "it", "spare", "operator", "abcd", 1.0, expires_at=30.0)

    for change in (KeyChange(is_enabled=False), KeyChange(role="member"), KeyChange(expires_at=5.0)):
        changed = change_key(BOSS, change)
        assert locks_out([KEY, BOSS], [changed], 10.0)
        assert not locks_out([KEY, BOSS, second], [changed], 10.0)
        assert locks_out([KEY, BOSS, second], [changed], 30.0)  # the other has expired
        assert locks_out([KEY, BOSS, second], [changed, change_key(second, change)], 10.0)
    assert not locks_out([KEY], [change_key(KEY, KeyChange(is_enabled=False))], 10.0)  # there was none before


@pytest.mark.parametrize("name", ["a", "Физфак, каб. 5", "team-7", "x" * 100, "org/team", "_1"])
def test_names_that_are_taken(name: str) -> None:
    assert check_name(name, "owner") == name


@pytest.mark.parametrize(
    "name",
    ["", " a", "a ", "x" * 101, "a\nb", "a\0", "=1+1", "+7", "-x", "@all", "/a", "a/", "...", "\u202ea"],
)
def test_names_that_would_break_paths_tables_or_spreadsheets(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_name(name, "owner")

    assert caught.value.param == "owner"
