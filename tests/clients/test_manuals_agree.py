"""The two manuals hold the same programs; only sentences for people differ."""

from __future__ import annotations

import re

import pytest

from clients.blocks import Block, extract
from clients.setting import ROOT

# A double-quoted string or a comment; single quotes hold the shell's JSON, whose strings are double-quoted.
_SENTENCE = re.compile(r'("(?:[^"\\\n]|\\.)*"|(?:#|//) .*)')
_CYRILLIC = re.compile(r"[а-яё]", re.IGNORECASE)


def differences(russian: str, english: str) -> list[tuple[str, str]]:
    """Pieces that differ, other than a Russian sentence in the place of one that has no Cyrillic letters."""
    ours, theirs = _SENTENCE.split(russian), _SENTENCE.split(english)
    if len(ours) != len(theirs):
        return [(russian, english)]
    return [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b and not _is_translation(a, b)]


def _is_translation(russian: str, english: str) -> bool:
    is_sentence = _SENTENCE.fullmatch(russian) is not None and _SENTENCE.fullmatch(english) is not None
    return is_sentence and bool(_CYRILLIC.search(russian)) and not _CYRILLIC.search(english)


def _blocks(language: str) -> list[Block]:
    text = (ROOT / "docs" / f"manual.{language}.md").read_text("utf-8")
    return [block for block in extract(text) if block.name]


def test_both_manuals_have_the_same_blocks_in_the_same_order() -> None:
    russian, english = _blocks("ru"), _blocks("en")

    assert [(b.language, b.name) for b in russian] == [(b.language, b.name) for b in english]
    assert len({block.name for block in english}) == len(english)
    for ours, theirs in zip(russian, english, strict=True):
        assert differences(ours.code, theirs.code) == [], ours.name


def test_every_block_without_a_name_is_an_answer_to_look_at() -> None:
    for language in ("ru", "en"):
        text = (ROOT / "docs" / f"manual.{language}.md").read_text("utf-8")
        assert {block.language for block in extract(text) if not block.name} == {"json"}


@pytest.mark.parametrize(
    ("russian", "english"),
    [
        ('print("Привет, мир")  # всё\n', 'print("Hello, world")  # all\n'),
        ("""-d '{"content": "Привет"}'\n""", """-d '{"content": "Hello"}'\n"""),
    ],
)
def test_translated_sentences_are_no_difference(russian: str, english: str) -> None:
    assert differences(russian, english) == []


@pytest.mark.parametrize(
    ("russian", "english"),
    [
        ('f("Привет", 1)', 'f("Hello", 2)'),
        ('f("smollm2")', 'f("smollm3")'),
        ('f("Привет")', 'f("Здравствуй")'),
        ('f("Привет", "a")', 'f("Hello")'),
        ('get("http://a/v1")', 'get("http://a/v2")'),
    ],
)
def test_everything_else_is(russian: str, english: str) -> None:
    assert differences(russian, english) != []
