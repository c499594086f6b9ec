"""Fenced code blocks of a Markdown file, and the only changes that a foreign manual's blocks may undergo.

Fences are those of CommonMark 0.31, section 4.5, at the outermost level. The first word of the info string is
the language; what follows it names the block (renderers ignore it), so that a test can tell the blocks apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
_HEADING = re.compile(r"^ {0,3}#{1,6}\s+(?P<title>.*?)(?:\s+#+)?\s*$")

# The original manual's addresses and its placeholder for a secret.
_HOSTS = ("https://llm.t1v.scibox.tech", "http://45.145.191.148:4000")
_PLACEHOLDER = "<YOUR_TOKEN>"


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `line` is where it opens, counted from 1; `heading` the nearest one above."""

    language: str
    name: str
    heading: str
    line: int
    code: str


def extract(markdown: str) -> list[Block]:
    """All fenced blocks in order; `ValueError` for a fence that is never closed."""
    blocks: list[Block] = []
    heading = ""
    lines = iter(enumerate(markdown.splitlines(), start=1))
    for number, line in lines:
        if (title := _HEADING.match(line)) is not None:
            heading = title["title"]
        opening = _FENCE.match(line)
        if opening is not None and not ("`" in opening["info"] and opening["fence"][0] == "`"):
            language, _, name = opening["info"].strip().partition(" ")
            code = _until_closed(lines, number, opening["fence"])
            blocks.append(Block(language, name.strip(), heading, number, code))
    return blocks


def adapt(code: str, base_url: str, secret: str) -> str:
    """The original manual's code for our service: its hosts and its placeholder replaced, nothing else."""
    for host in _HOSTS:
        code = code.replace(host, base_url)
    return code.replace(_PLACEHOLDER, secret)


def _until_closed(lines: Iterator[tuple[int, str]], opened_at: int, fence: str) -> str:
    """The code up to a closing fence: of the same sign, at least as long, with nothing after it."""
    code: list[str] = []
    for _, line in lines:
        closing = _FENCE.match(line)
        if closing is not None and closing["fence"].startswith(fence) and not closing["info"].strip():
            return "".join(f"{each}\n" for each in code)
        code.append(line)
    raise ValueError(f"the fence opened in line {opened_at} is never closed")
