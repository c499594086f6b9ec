"""Tables of keys: whatever a spreadsheet makes of one, the same keys come out, or the wrong line is named."""

from __future__ import annotations

import contextlib
import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.errors import InvalidRequest
from scibox.core.keys import Draft, Shown
from scibox.core.types import Key, Limits
from scibox.wire.admin import table
from scibox.wire.admin.table import Style

NOW = 1_000.0
ENGLISH = "owner,name,days,models,limits,weight,role,note\n"
EXPECTED = (
    Draft("физфак", "Иванов", "member", NOW + 90 * 86_400, None, Limits(calls_per_minute=60), 1.5, "каб. 5"),
    Draft("химфак", "химфак", "operator", None, frozenset({"a", "b"})),
)
PLAIN = ENGLISH + 'физфак,Иванов,90,,calls_per_minute=60,"1,5",member,каб. 5\nхимфак,,,"a, b",,,operator,\n'
EXCEL = (
    "Владелец;Имя;Срок, дней;Модели;Лимиты;Вес;Роль;Примечание;;\r\n"
    "физфак;Иванов;90;;calls_per_minute = 60;1,5;Участник;каб.\u00a05;;\r\n"
    ";;;;;;;;;\r\n"
    "химфак;;;a b;;;Оператор;;;\r\n\r\n"
)


def drafts(raw: bytes) -> tuple[Draft, ...]:
    return tuple(draft for _, draft in table.parse(raw, NOW).drafts)


def wrong(raw: str | bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        table.parse(raw if isinstance(raw, bytes) else raw.encode(), NOW)
    return caught.value


@pytest.mark.parametrize(
    ("text", "encoding", "style"),
    [
        (PLAIN, "utf-8", Style(",", has_bom=False)),
        (PLAIN, "utf-8-sig", Style(",", has_bom=True)),
        (EXCEL, "utf-8-sig", Style(";", has_bom=True)),
        (EXCEL, "cp1251", Style(";", has_bom=True)),  # what Excel saves in Russia as "CSV"
        (EXCEL.replace(";", "\t"), "utf-16", Style("\t", has_bom=True)),  # as "Unicode text"
        ("sep=;\r\n" + EXCEL, "utf-8", Style(";", has_bom=False)),
        (EXCEL.replace("\r\n", "\r"), "utf-8", Style(";", has_bom=False)),
    ],
)
def test_the_same_keys_come_out_of_every_spreadsheet(text: str, encoding: str, style: Style) -> None:
    parsed = table.parse(text.encode(encoding), NOW)

    assert tuple(draft for _, draft in parsed.drafts) == EXPECTED
    assert parsed.style == style


def test_places_are_numbered_as_editors_do() -> None:
    raw = b'owner,note\nx,"two\nlines"\n\ny,\n'

    assert [where for where, _ in table.parse(raw, NOW).drafts] == ["line 2", "line 5"]


def test_every_wrong_line_is_named_at_once() -> None:
    error = wrong(
        "owner,days,limits,calls_in_flight,role\n"
        "a,soon,,,\n"
        "b,,calls_per_minut=4,,\n"
        "c,,,7.5,\n"
        "d,,,,boss\n"
        ",3,,,\n"
        "good,1,,,\n"
        "=1,,,,\n"
        "e,,,,,too much\n"
        "f,0,,,\n"
    )

    lines = error.message.split("\n")
    assert [line.split(":")[0] for line in lines] == [f"line {n}" for n in (2, 3, 4, 5, 6, 8, 9, 10)]
    assert "'soon'" in lines[0]
    assert "'calls_per_minute'" in lines[1]
    assert "'owner'" in lines[4]
    assert error.param == "line 2"


def test_of_very_many_wrong_lines_the_first_are_told() -> None:
    message = wrong("owner,days\n" + "a,x\n" * 500).message

    assert len(message.split("\n")) == 21
    assert message.endswith("... and 480 more.")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("", "no column 'owner'"),
        ("name,days\nx,1\n", "no column 'owner'"),
        ("ownr,days\nx,1\n", "Did you mean 'owner'?"),
        ("владелиц\nx\n", "Did you mean 'владелец'?"),
        ("owner,team\nx,y\n", "two columns"),
        ("owner\n", "0 keys"),
        ("owner\n" + "x\n" * 10_001, "10001 keys"),
        ('owner\n"x\n', "line 2: this is no line of a CSV file"),
        (b"PK\x03\x04" + b"\0" * 50, "CSV UTF-8"),
        (b"owner\n\x98\xff\n", "CSV UTF-8"),
        ("owner;weight\nx;1,000\n", "thousands"),
        ("owner;days\nx;inf\n", "'days' must be a number"),
        ("owner;days\nx;1e3\n", "'days' must be a number"),
        ("owner;weight\nx;0\n", "'weight'"),
        ("owner;tokens_per_day\nx;١٢\n", "whole number"),
    ],
)
def test_what_is_no_table_of_keys_is_said(raw: str | bytes, words: str) -> None:
    assert words in wrong(raw).message


def test_limits_may_stand_in_columns_of_their_own() -> None:
    raw = b"owner;limits;tokens_per_day\nx;calls_per_minute=5;100 000\n"

    assert drafts(raw)[0].limits == Limits(calls_per_minute=5, tokens_per_day=100_000)


def test_what_is_handed_out_opens_in_the_same_program() -> None:
    key = Key("key_1", "физфак", "a;b", "member", "abcd", 1.0)

    handed = table.render([Shown(key, secret="sk-1")], "http://h/v1", Style(";", has_bom=True))

    assert handed.startswith(b"\xef\xbb\xbfowner;name;key_id;secret;base_url\r\n")
    [_, row] = csv.reader(io.StringIO(handed.decode("utf-8-sig")), delimiter=";")
    assert row == ["физфак", "a;b", "key_1", "sk-1", "http://h/v1"]


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: ("owner,days\n" + text).encode()))
def test_no_bytes_bring_anything_but_keys_or_a_sentence(raw: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        assert table.parse(raw, NOW).drafts
