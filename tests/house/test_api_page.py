"""The reference page of the API says of every parameter what the records say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from scibox.wire import chat, extras
from scibox.wire.admin.keys import (
    BulkRequest,
    KeyChangeRequest,
    NewKeyRequest,
    RevokeRequest,
    RotateRequest,
)
from scibox.wire.admin.owners import NewOwnerRequest, OwnerChangeRequest
from scibox.wire.admin.replicas import NewReplicaRequest, ReplicaChangeRequest
from scibox.wire.anthropic.request import MessagesCountRequest, MessagesRequest
from scibox.wire.completions.face import CompletionRequest
from scibox.wire.constraints import schemas
from scibox.wire.document import openapi, parameters
from scibox.wire.embeddings import EmbeddingRequest
from scibox.wire.rerank import RerankRequest, ScoreRequest
from scibox.wire.responses.request import ResponsesRequest
from scibox.wire.stored.batches import BatchRequest
from scibox.wire.tokenize import DetokenizeRequest, TokenizeRequest

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text("utf-8")
RECORDS: dict[str, type[msgspec.Struct]] = {
    "POST /v1/chat/completions": chat.ChatRequest,
    "POST /v1/completions": CompletionRequest,
    "POST /v1/responses": ResponsesRequest,
    "POST /v1/messages": MessagesRequest,
    "POST /v1/messages/count_tokens": MessagesCountRequest,
    "POST /v1/embeddings": EmbeddingRequest,
    "POST /v1/rerank": RerankRequest,
    "POST /v1/score": ScoreRequest,
    "POST /tokenize": TokenizeRequest,
    "POST /detokenize": DetokenizeRequest,
    "POST /v1/batches": BatchRequest,
    "POST /v1/key/rotate": RotateRequest,
    "POST /admin/v1/owners": NewOwnerRequest,
    "POST /admin/v1/owners/{name}": OwnerChangeRequest,
    "POST /admin/v1/keys": NewKeyRequest,
    "POST /admin/v1/keys/bulk": BulkRequest,
    "POST /admin/v1/keys/{key_id}": KeyChangeRequest,
    "POST /admin/v1/keys/{key_id}/rotate": RotateRequest,
    "POST /admin/v1/keys/{key_id}/revoke": RevokeRequest,
    "POST /admin/v1/replicas": NewReplicaRequest,
    "PATCH /admin/v1/replicas/{replica_id}": ReplicaChangeRequest,
}
DOCUMENT = json.loads(openapi.render("0"))
OPERATIONS = {
    f"{method.upper()} {path}": item[method]
    for path, item in DOCUMENT["paths"].items()
    for method in ("get", "post", "patch", "delete")
    if method in item
}


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("heading", RECORDS)
def test_every_parameter_stands_on_the_page_with_what_is_done_with_it(heading: str) -> None:
    listed = [line for line in section(heading).splitlines() if line.startswith("| `")]

    assert listed == parameters.rows(RECORDS[heading])


def test_every_endpoint_stands_on_the_page_and_no_other() -> None:
    headings = set(re.findall(r"\n## ([A-Z]+ /\S+)\n", PAGE))
    cells = set(re.findall(r"\n\| `([A-Z]+ /\S+)` \|", PAGE))

    assert headings == set(RECORDS)
    assert headings | cells == set(OPERATIONS)
    assert not headings & cells


def test_every_parameter_of_a_query_or_a_form_stands_there() -> None:
    for name, operation in OPERATIONS.items():
        if name in RECORDS:
            continue
        wanted = {item["name"] for item in operation.get("parameters", []) if item["in"] == "query"}
        form = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data", {})
        schema = form.get("schema", {})
        schema = DOCUMENT["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], schema)
        wanted |= {field.partition("[")[0] for field in schema.get("properties", {})}
        told = PAGE.split(f"\n| `{name}` |", 1)[1].split("\n\n", 1)[0]
        own = re.split(r"\n\| `[A-Z]+ /", told)[0].replace("\n| |", "\n")
        listed = {word for line in own.splitlines() for word in re.findall(r"`(\w+)`", line.split("|")[0])}
        assert listed == wanted, name


def test_the_extras_and_who_understands_them_are_those_of_the_code() -> None:
    listed = {
        name: (vllm, llama)
        for name, vllm, llama in re.findall(r"\n\| `(\w+)` \| (yes|no) \| (yes|no) \|", PAGE)
    }

    assert listed == {
        name: tuple("yes" if name in extras.UNDERSTOOD[dialect] else "no" for dialect in ("vllm", "llama"))
        for name in extras.Extras.__struct_fields__
    }


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
