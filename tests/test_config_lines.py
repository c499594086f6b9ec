"""The line of every key: told of the same keys as the real parser, and on the right lines."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scibox.config.lines import Where, lines_of

SAMPLE = '''
# a comment with = and [brackets]
data = "/var/lib"   # trailing
[server]
host = "a # b"
port = 4000
[ models . "Qwen2.5-72B" ]
kind = 'chat'
aliases = [
  "one", # first ]
  "two",
]
[[models."Qwen2.5-72B".deployments]]
url = "http://gpu1:8000/v1"

[[models."Qwen2.5-72B".deployments]]
text = """
[not.a.table]
key = "no"
"""
weights = \'\'\'
[[nor.this]]\'\'\'
inline = { a = 1, b.c = [ { d = 2 }, { d = 3 } ], "e f" = "}" }
when = 1979-05-27 07:32:00Z
[models."Qwen2.5-72B".extra]
deep.er = true
'''


def places(value: Any, at: Where = ()) -> set[Where]:
    found: set[Where] = {at} if at else set()
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= places(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found |= places(inner, (*at, index))
    return found


def test_knows_every_place_of_a_text_with_everything_in_it() -> None:
    lines = lines_of(SAMPLE)

    assert set(lines) == places(tomllib.loads(SAMPLE))
    assert lines["data",] == 3
    assert lines["server", "port"] == 6
    assert lines["models", "Qwen2.5-72B", "aliases", 1] == 11
    assert lines["models", "Qwen2.5-72B", "deployments", 0, "url"] == 14
    assert lines["models", "Qwen2.5-72B", "deployments", 1] == 16
    assert lines["models", "Qwen2.5-72B", "deployments", 1, "weights"] == 21
    assert lines["models", "Qwen2.5-72B", "deployments", 1, "inline", "b", "c", 1, "d"] == 23
    assert lines["models", "Qwen2.5-72B", "extra", "deep", "er"] == 26


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        'a = """x"""""\nb = 1',
        "a = '''x'''''\nb = 1",
        'a = "\\"]"\nb = 1',
        'a = """\\"""" # \n b = 1',
        '"" = 1',
        "a = [[1, 2], [], [{b = 1}]]\nc = 1",
        "a = [ # x\n]\nb = {}",
        "a=1979-05-27T07:32:00-07:00\nb=07:32:00",
        "[a]\r\nb = 1\r\n[c]\r\nd = 2",
        "[[a]]\nb=1\n[[a.c]]\nd=1\n[[a.c]]\nd=2\n[[a]]\n[[a.c]]\nd=3",
        "[[a]]\n[a.b]\nc=1\n[[a]]\n[a.b]\nc=2",
        "a.b.c = 1\na.b.d = 2\n[e.f]\n[e]\ng=1",
        "x = -inf\ny = 0xDEAD_beef\nz = 1e-6",
    ],
)
def test_knows_the_same_places_as_the_real_parser(text: str) -> None:
    assert set(lines_of(text)) == places(tomllib.loads(text))


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=6)
SCALARS = st.one_of(
    st.integers(-(2**40), 2**40),
    st.booleans(),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs",))),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def written(value: Any, newline: str) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return quoted(value)
        case list():
            return "[" + ",".join(f"{newline}{written(item, newline)}" for item in value) + f"{newline}]"
        case dict():
            return (
                "{" + ", ".join(f"{quoted(key)} = {written(item, '')}" for key, item in value.items()) + "}"
            )
    raise AssertionError(value)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@settings(deadline=None)  # machines of CI are shared
@given(
    st.lists(st.tuples(KEYS, VALUES), max_size=6, unique_by=lambda pair: pair[0]),
    st.sampled_from(["", "\n", " # ]\n"]),
)
def test_finds_every_assignment_on_its_own_line(pairs: list[tuple[str, Any]], newline: str) -> None:
    text, expected = "", {}
    for key, value in pairs:
        expected[key,] = text.count("\n") + 1
        text += f"{quoted(key)} = {written(value, newline)}\n"

    lines = lines_of(text)

    assert set(lines) == places(tomllib.loads(text))
    assert {place: lines[place] for place in expected} == expected
