"""The reference page of the API says of every parameter what the records say."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from scibox.wire import chat, parameters, schemas
from scibox.wire.anthropic_request import MessagesCountRequest, MessagesRequest
from scibox.wire.completions import CompletionRequest
from scibox.wire.responses_request import ResponsesRequest

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text("utf-8")
RECORDS: dict[str, type[msgspec.Struct]] = {
    "POST /v1/chat/completions": chat.ChatRequest,
    "POST /v1/completions": CompletionRequest,
    "POST /v1/responses": ResponsesRequest,
    "POST /v1/messages": MessagesRequest,
    "POST /v1/messages/count_tokens": MessagesCountRequest,
}


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("heading", RECORDS)
def test_every_parameter_stands_on_the_page_with_what_is_done_with_it(heading: str) -> None:
    listed = [line for line in section(heading).splitlines() if line.startswith("| `")]

    assert listed == parameters.rows(RECORDS[heading])


def test_every_verdict_is_explained() -> None:
    for verdict, meaning in parameters.VERDICTS.items():
        assert f"**{verdict}**: {meaning}" in PAGE


def test_the_limits_of_schemas_are_those_of_the_code() -> None:
    told = {
        name: int(value.replace(",", ""))
        for name, value in re.findall(r"\| ([^|]+?) \| ([\d,]+) \|", section("JSON schemas"))
    }

    assert told == {
        "bytes": schemas.MAX_BYTES,
        "levels of JSON": schemas.MAX_DEPTH,
        "levels of schemas, through `$ref`": schemas.MAX_CHAIN,
        "weight (below)": schemas.MAX_WEIGHT,
        "`properties` in all": schemas.MOST["properties"],
        "`enum` values in all": schemas.MOST["enum"],
        "`patternProperties` in all": schemas.MOST["patternProperties"],
        "`minLength`, `maxLength`": schemas.MAX_LENGTH,
        "characters of a pattern": schemas.MAX_PATTERN_CHARS,
        "characters of a pattern, repetitions written out": schemas.MAX_PATTERN_SIZE,
        "groups of a pattern, one within the other": schemas.MAX_PATTERN_DEPTH,
        "bytes of a grammar": schemas.MAX_GRAMMAR_BYTES,
    }
    assert all(f"`{name}`" in section("JSON schemas") for name in schemas.FORMATS)
