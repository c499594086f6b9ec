"""The nearest name is what a person meant, and nothing when that cannot be told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scibox.core.names import nearest

MODELS = ("Qwen2.5-72B-Instruct-AWQ", "bge-m3", "smollm2-135m-instruct", "multilingual-e5-small")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("qwen2.5-72b", "Qwen2.5-72B-Instruct-AWQ"),
        ("QWEN2.5-72B-INSTRUCT-AWQ", "Qwen2.5-72B-Instruct-AWQ"),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", "Qwen2.5-72B-Instruct-AWQ"),
        ("qwen", "Qwen2.5-72B-Instruct-AWQ"),
        ("BGE", "bge-m3"),
        ("bge_m3", "bge-m3"),
        ("BAAI/bge-m3", "bge-m3"),
        ("e5-small", "multilingual-e5-small"),
        ("smolm2", "smollm2-135m-instruct"),
        ("gpt-4o", None),
        ("", None),
        ("m", None),
    ],
)
def test_finds_what_was_meant(name: str, meant: str | None) -> None:
    assert nearest(name, MODELS) == meant


def test_knows_nothing_of_nothing() -> None:
    assert nearest("x", ()) is None


@settings(deadline=None)  # machines of CI are shared
@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=5))
def test_finds_a_known_name_or_none(name: str, known: list[str]) -> None:
    assert nearest(name, known) in {None, *known}


@settings(deadline=None)  # machines of CI are shared
@given(st.lists(st.text("abcdef-", min_size=1, max_size=12), min_size=1, max_size=5))
def test_a_name_is_nearest_to_itself(known: list[str]) -> None:
    for name in known:
        assert (nearest(name, known) or "").casefold() == name.casefold()
