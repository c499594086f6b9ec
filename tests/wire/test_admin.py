"""What operators send: strict, each error with the field and what was probably meant."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.errors import InvalidRequest
from scibox.core.keys import Draft, KeyChange, OwnerChange, Shown
from scibox.core.types import Key, Limits, Owner
from scibox.wire.admin import keys, owners

NOW = 1_000.0
DAY_S = 86_400.0


def raw(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def refused(parse: Any, *arguments: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(*arguments)
    return caught.value


def test_a_new_key_in_full_and_with_as_little_as_possible() -> None:
    full = raw(
        owner="team",
        name="laptop",
        role="operator",
        models=["b", "a"],
        limits={"calls_per_minute": 5, "tokens_per_day": None},
        days=2,
    )

    assert keys.parse_new(full, NOW) == Draft(
        *("team", "laptop", "operator", NOW + 2 * DAY_S, frozenset({"a", "b"}), Limits(calls_per_minute=5))
    )
    assert keys.parse_new(raw(owner="team"), NOW) == Draft("team", "team")
    assert keys.parse_new(raw(owner="team", days=None, expires_at=None, models=None), NOW) == Draft(
        "team", "team"
    )
    assert keys.parse_new(raw(owner="team", expires_at=2_000), NOW).expires_at == 2_000


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({}, "owner", "Missing field 'owner'"),
        ({"owner": "a", "ownr": 1}, "ownr", "Did you mean 'owner'?"),
        ({"owner": "a", "zzz": 1}, "zzz", "Known are: owner, name"),
        ({"owner": "a", "limits": {"calls_per_minut": 1}}, "limits.calls_per_minut", "'calls_per_minute'"),
        ({"owner": "a", "limits": {"calls_per_minute": 0}}, "limits.calls_per_minute", ">= 1"),
        ({"owner": "a", "limits": {"calls_per_minute": 1.5}}, "limits.calls_per_minute", "'int"),
        ({"owner": "a", "limits": {"tokens_per_day": 10**15}}, "limits.tokens_per_day", "<"),
        ({"owner": "a", "role": "boss"}, "role", "boss"),
        ({"owner": "a", "models": []}, "models", ">= 1"),
        ({"owner": "a", "days": 0}, "days", "> 0"),
        ({"owner": "a", "days": 1, "expires_at": 5_000}, "expires_at", "not both"),
        ({"owner": "a", "expires_at": 999}, "expires_at", "in the future"),
        ({"owner": "a", "expires_at": 1_800_000_000_000}, "expires_at", "<"),
        ({"owner": " a"}, "owner", "space"),
        ({"owner": "a", "name": "=cmd()"}, "name", "begin with none of"),
        ({"owner": 7}, "owner", "'str'"),
        ({"owner": "a", "weight": 2}, "weight", "Unknown field"),
    ],
)
def test_what_is_wrong_with_a_new_key_is_named(fields: dict[str, Any], param: str, words: str) -> None:
    error = refused(keys.parse_new, raw(**fields), NOW)

    assert error.param == param
    assert words in error.message


def test_many_keys_name_their_place_and_all_problems() -> None:
    body = raw(
        keys=[{"owner": "a", "weight": 2, "note": "x"}, {"owner": "=b"}, {"owner": "c", "expires_at": 1}]
    )
    error = refused(keys.parse_bulk, body, NOW)
    unknown = refused(keys.parse_bulk, raw(keys=[{"owner": "a"}, {"owner": "b", "wait": 1}]), NOW)
    drafts, again = keys.parse_bulk(raw(keys=[{"owner": "a", "weight": 2, "note": "x"}], again=True), NOW)

    assert (error.param, len(error.message.split("\n"))) == ("keys[1].owner", 2)
    assert (unknown.param, "'weight'" in unknown.message) == ("keys[1].wait", True)
    assert (drafts, again) == ([("keys[0]", Draft("a", "a", weight=2.0, note="x"))], True)
    assert refused(keys.parse_bulk, raw(keys=[]), NOW).param == "keys"


def test_a_change_knows_what_is_left_out_from_what_is_taken_away() -> None:
    nothing_else = KeyChange(expires_at=None, models=None, limits={"tokens_per_day": None})
    some = raw(name="n", role="member", enabled=False, days=1, models=["m"], limits={"calls_per_minute": 3})

    cleared, force = keys.parse_change(
        raw(expires_at=None, models=None, limits={"tokens_per_day": None}, force=True), NOW
    )
    changed, _ = keys.parse_change(some, NOW)

    assert (cleared, force) == (nothing_else, True)
    assert changed == KeyChange(
        *("n", "member", False, NOW + DAY_S, frozenset({"m"}), {"calls_per_minute": 3})  # type: ignore[arg-type]
    )
    assert refused(keys.parse_change, b"{}", NOW).param == "body"
    assert refused(keys.parse_change, raw(force=True), NOW).param == "body"
    assert "'enabled'" in refused(keys.parse_change, raw(enable=True), NOW).message


def test_owners() -> None:
    made = owners.parse_new(raw(name="team", weight=2, limits={"calls_in_flight": 4}, note="n"), NOW)

    assert made == Owner("team", 2.0, Limits(calls_in_flight=4), NOW, "n")
    assert owners.parse_change(raw(note="", limits={"calls_in_flight": None})) == OwnerChange(
        note="", limits={"calls_in_flight": None}
    )
    assert refused(owners.parse_new, raw(name="team", weight=0), NOW).param == "weight"
    assert "'weight'" in refused(owners.parse_change, raw(weigth=1)).message
    assert refused(owners.parse_change, b"{}").param == "body"


def test_bodies_that_may_be_left_out() -> None:
    assert keys.parse_rotate(b"") == 0.0
    assert keys.parse_rotate(raw(overlap_s=60)) == 60.0
    assert keys.parse_revoke(b"") is False
    assert keys.parse_revoke(raw(force=True)) is True
    assert refused(keys.parse_rotate, raw(overlap_s=-1)).param == "overlap_s"
    assert refused(keys.parse_rotate, raw(overlap_s=10**9)).param == "overlap_s"
    assert "'overlap_s'" in refused(keys.parse_rotate, raw(overlap=1)).message


def test_a_key_is_told_without_its_secret_unless_it_was_just_made() -> None:
    key = Key(
        "key_1", "o", "n", "member", "abcd", 1.5, 2_000.7, None, frozenset({"b", "a"}), is_enabled=False
    )

    told = json.loads(keys.render(Shown(key, used_at=3.9), NOW))
    made = json.loads(keys.render(Shown(key, secret="sk-1", old_until=7.5), NOW))

    assert told["state"] == "disabled"
    assert (told["models"], told["created_at"], told["expires_at"]) == (["a", "b"], 1, 2_000)
    assert (told["last_used_at"], made["last_used_at"]) == (3, None)
    assert set(told["limits"]) == set(Limits.__dataclass_fields__)
    assert not {"secret", "old_secret_until"} & set(told)
    assert (made["secret"], made["old_secret_until"]) == ("sk-1", 7)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(
    [*keys.TableKeyRequest.__struct_fields__, *keys.KeyChangeRequest.__struct_fields__, "keys", "again"]
)


@given(st.dictionaries(fields, json_values, max_size=4))
def test_no_body_brings_anything_but_an_answer_or_a_sentence(body: dict[str, Any]) -> None:
    sent = json.dumps(body).encode()
    for parse in (keys.parse_new, keys.parse_bulk, keys.parse_change, owners.parse_new):
        with contextlib.suppress(InvalidRequest):
            parse(sent, NOW)
