"""The OpenAPI document: valid, honest in its examples, and nothing made from it brings the service down."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobs import jsonl, line, start, until_over, upload
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from rig import COLLEAGUE, OPERATOR, SECRET, Rig, rig
from scibox.wire.document import admin as openapi_admin
from scibox.wire.document import openapi
from scibox.wire.document import stored as openapi_stored
from scibox.wire.faces import FACES

DOCUMENT = json.loads(openapi.render("1.2.3"))


def properties(name: str) -> dict[str, Any]:
    """The fields of a record."""
    fields: dict[str, Any] = DOCUMENT["components"]["schemas"][name]["properties"]
    return fields


def schema(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}


def test_the_document_is_valid_openapi_3_1() -> None:
    validate(DOCUMENT, cls=OpenAPIV31SpecValidator)
    assert DOCUMENT["openapi"].startswith("3.1")
    assert DOCUMENT["info"]["version"] == "1.2.3"


def test_every_endpoint_but_health_and_ready_asks_for_a_key() -> None:
    assert DOCUMENT["security"] == [{"key": []}]
    assert DOCUMENT["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    free = [
        path
        for path, item in DOCUMENT["paths"].items()
        for method in ("get", "post", "delete")
        if item.get(method, {}).get("security") == []
    ]
    assert free == ["/health", "/ready"]


@pytest.mark.parametrize(
    ("example", "name"),
    [
        (openapi.CHAT_EXAMPLE, "ChatRequest"),
        (openapi.EMBEDDING_EXAMPLE, "EmbeddingRequest"),
        (openapi.TOKENIZE_EXAMPLE, "TokenizeRequest"),
        (openapi.DETOKENIZE_EXAMPLE, "DetokenizeRequest"),
        (openapi_stored.BATCH_EXAMPLE, "BatchRequest"),
        (openapi.RERANK_EXAMPLE, "RerankRequest"),
        (openapi.SCORE_EXAMPLE, "ScoreRequest"),
        (openapi_admin.OWNER_EXAMPLE, "NewOwnerRequest"),
        (openapi_admin.OWNER_CHANGE_EXAMPLE, "OwnerChangeRequest"),
        (openapi_admin.KEY_EXAMPLE, "NewKeyRequest"),
        (openapi_admin.KEY_CHANGE_EXAMPLE, "KeyChangeRequest"),
        (openapi_admin.BULK_EXAMPLE, "BulkRequest"),
        (openapi_admin.ROTATE_EXAMPLE, "RotateRequest"),
    ],
)
def test_the_examples_fit_their_schemas(example: dict[str, Any], name: str) -> None:
    jsonschema.validate(example, schema(name))


async def admin_answers(client: httpx.AsyncClient) -> dict[str, httpx.Response]:
    """What an operator gets, made of the examples."""
    headers, base = {"authorization": f"Bearer {OPERATOR}"}, "/admin/v1"

    async def post(path: str, example: object) -> httpx.Response:
        return await client.post(f"{base}{path}", json=example, headers=headers)

    await post("/owners", {"name": "passing"})
    rotated = await post("/keys/key_colleague/rotate", openapi_admin.ROTATE_EXAMPLE)
    jsonschema.validate(rotated.json(), schema("AdminKey"))
    return {
        "AdminOwner": await post("/owners", openapi_admin.OWNER_EXAMPLE),
        "AdminKey": await post("/keys", openapi_admin.KEY_EXAMPLE),
        "BulkMade": await post("/keys/bulk", openapi_admin.BULK_EXAMPLE),
        "AdminOwnerList": await client.get(f"{base}/owners", headers=headers),
        "AdminKeyList": await client.get(f"{base}/keys", headers=headers),
        "AdminOwnerDeleted": await client.delete(f"{base}/owners/passing", headers=headers),
    }


async def test_what_is_answered_fits_the_document() -> None:
    async with rig() as r:
        file = await upload(r.client, jsonl([line("a"), line("b", n=0)]))
        batch = await start(r.client, jsonl([line("a"), line("b", n=0)]))
        await until_over(r.client, batch["id"])
        answers = {
            "FileObject": file,
            "FileList": await r.client.get("/v1/files"),
            "FileDeleted": await r.client.delete(f"/v1/files/{file.json()['id']}"),
            "BatchObject": await r.client.get(f"/v1/batches/{batch['id']}"),
            "BatchList": await r.client.get("/v1/batches"),
            "ModelList": await r.client.get("/v1/models"),
            "Model": await r.client.get("/v1/models/chatty"),
            "KeyInfo": await r.client.get("/v1/key"),
            "Health": await r.client.get("/health"),
            "ChatCompletion": await r.client.post(
                "/v1/chat/completions", json={**openapi.CHAT_EXAMPLE, "model": "chatty"}
            ),
            "EmbeddingList": await r.client.post(
                "/v1/embeddings", json={**openapi.EMBEDDING_EXAMPLE, "model": "vectors"}
            ),
            "Tokens": await r.client.post("/tokenize", json={**openapi.TOKENIZE_EXAMPLE, "model": "chatty"}),
            "Text": await r.client.post(
                "/detokenize", json={**openapi.DETOKENIZE_EXAMPLE, "model": "chatty"}
            ),
            "Rerank": await r.client.post("/v1/rerank", json={**openapi.RERANK_EXAMPLE, "model": "vectors"}),
            "Scores": await r.client.post("/v1/score", json={**openapi.SCORE_EXAMPLE, "model": "vectors"}),
            "Error": await r.client.get("/v1/models/none"),
            **await admin_answers(r.client),
            "KeyRevoked": await r.client.delete("/v1/key"),
        }

    for name, answer in answers.items():
        jsonschema.validate(answer.json(), schema(name))


async def test_every_documented_path_leads_somewhere_and_only_health_and_ready_without_a_key() -> None:
    async with rig() as r:
        batch = await start(r.client, jsonl([line("a")]))
        await until_over(r.client, batch["id"])
        file_id = batch["input_file_id"]
        for method in ("get", "post", "patch", "delete"):
            for path, item in DOCUMENT["paths"].items():
                if method in item:
                    is_admin = path.startswith("/admin")
                    url = path.format(
                        name="team" if is_admin else "chatty",
                        file_id=file_id,
                        batch_id=batch["id"],
                        id="resp_1",
                        key_id="key_stranger",
                        replica_id="rep_rig",
                    )
                    body = b"{}" if method in {"post", "patch"} else None
                    secret = OPERATOR if is_admin else SECRET
                    if (method, path) == ("delete", "/v1/key"):
                        secret = COLLEAGUE  # it opens nothing from here on
                    headers = {"authorization": f"Bearer {secret}"}
                    with_key = await r.client.request(method, url, content=body, headers=headers)
                    without = await r.client.request(method, url, content=body, headers={"authorization": ""})

                    missing = {404} if "200" in item[method]["responses"] else set()
                    assert with_key.status_code not in {401, 405, 500} | missing, url
                    assert (without.status_code == 200) == (path in {"/health", "/ready"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(sorted(DOCUMENT["components"]["schemas"]["ChatRequest"]["properties"]))
chat_bodies = st.builds(
    lambda more: {"model": "chatty", "messages": [{"role": "user", "content": "x"}], **more},
    st.dictionaries(names, json_values, max_size=4),
)
embedding_bodies = st.builds(
    lambda value, more: {"model": "vectors", "input": value, **more},
    json_values,
    st.dictionaries(
        st.sampled_from(sorted(DOCUMENT["components"]["schemas"]["EmbeddingRequest"]["properties"])),
        json_values | st.integers(-2, 40),
        max_size=2,
    ),
)
texts = json_values | st.text(max_size=9) | st.lists(st.text(max_size=9), max_size=3)
rank_bodies = st.builds(
    lambda left, right, more: {"model": "vectors", "query": left, "documents": right, **more},
    st.text(max_size=9) | json_values,
    texts,
    st.dictionaries(
        st.sampled_from(["top_n", "return_documents", "truncate_prompt_tokens"]),
        json_values | st.integers(-2, 9),
        max_size=2,
    ),
)
score_bodies = st.builds(
    lambda left, right: {"model": "vectors", "text_1": left, "text_2": right}, texts, texts
)
raw_bodies = st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode())


class Fuzz:
    """One gateway for all examples of a property: a loop of its own, driven from outside."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.context = rig()
        self.rig: Rig = self.loop.run_until_complete(self.context.__aenter__())

    def post(
        self, path: str, body: bytes, kind: str = "application/json", secret: str = SECRET
    ) -> tuple[int, Any]:
        async def ask() -> tuple[int, Any]:
            headers = {"content-type": kind, "authorization": f"Bearer {secret}"}
            answer = await self.rig.client.post(path, content=body, headers=headers)
            is_json = answer.headers["content-type"].startswith("application/json")
            return answer.status_code, answer.json() if is_json else None

        return self.loop.run_until_complete(ask())

    def close(self) -> None:
        self.loop.run_until_complete(self.context.__aexit__(None, None, None))
        self.loop.close()


@pytest.fixture(scope="module")
def fuzz() -> Any:
    made = Fuzz()
    yield made
    made.close()


quick = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def check(fuzz: Fuzz, path: str, body: bytes, kind: str = "application/json") -> None:
    status, answer = fuzz.post(path, body, kind)

    assert status in {200, 400, 404, 413}, (status, answer, body)
    if status != 200:
        is_anthropic = path.startswith("/v1/messages")
        assert set(answer["error"]) == {"message", "type"} | (set() if is_anthropic else {"param", "code"})
        assert answer["error"]["message"]
        assert SECRET not in str(answer)
    assert fuzz.rig.gate.in_flight == 0


@quick
@given(chat_bodies)
def test_no_chat_body_brings_a_5xx(fuzz: Fuzz, body: dict[str, Any]) -> None:
    check(fuzz, "/v1/chat/completions", json.dumps(body).encode())


@quick
@given(embedding_bodies)
def test_no_embedding_body_brings_a_5xx(fuzz: Fuzz, body: dict[str, Any]) -> None:
    check(fuzz, "/v1/embeddings", json.dumps(body).encode())


@quick
@given(rank_bodies, score_bodies)
def test_no_body_to_rank_or_score_brings_a_5xx(
    fuzz: Fuzz, ranked: dict[str, Any], scored: dict[str, Any]
) -> None:
    check(fuzz, "/v1/rerank", json.dumps(ranked).encode())
    check(fuzz, "/v1/score", json.dumps(scored).encode())


@quick
@given(
    st.sampled_from([f"/v1{name}" for name in (*FACES, "/batches", "/files")]),
    raw_bodies,
)
def test_no_bytes_bring_a_5xx(fuzz: Fuzz, path: str, body: bytes) -> None:
    check(fuzz, path, body)


@quick
@given(chat_bodies, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_no_mutation_brings_a_5xx(fuzz: Fuzz, body: dict[str, Any], changes: list[tuple[int, int]]) -> None:
    raw = bytearray(json.dumps(body).encode())
    for at, byte in changes:
        raw[at % len(raw)] = byte
    check(fuzz, "/v1/chat/completions", bytes(raw))


batch_bodies = st.builds(
    lambda more: {**openapi_stored.BATCH_EXAMPLE, **more},
    st.dictionaries(
        st.sampled_from(sorted(DOCUMENT["components"]["schemas"]["BatchRequest"]["properties"])),
        json_values,
        max_size=3,
    ),
)
FORM = (
    b'--xYz\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--xYz\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{}\r\n--xYz--\r\n'
)


@quick
@given(batch_bodies)
def test_no_batch_body_brings_a_5xx(fuzz: Fuzz, body: dict[str, Any]) -> None:
    check(fuzz, "/v1/batches", json.dumps(body).encode())


@quick
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4), st.integers(0, 400))
def test_no_form_brings_a_5xx(fuzz: Fuzz, changes: list[tuple[int, int]], cut: int) -> None:
    raw = bytearray(FORM)
    for at, byte in changes:
        raw[at % len(raw)] = byte
    check(fuzz, "/v1/files", bytes(raw[:cut]), "multipart/form-data; boundary=xYz")


ADMIN_PATHS = (
    "/owners",
    "/owners/team",
    "/keys",
    "/keys/key_limited",
    "/keys/key_limited/rotate",
    "/keys/bulk",
)
admin_fields = st.sampled_from(
    sorted(
        {"keys", "again", "enabled", "force", "overlap_s"}
        | {name for kind in ("NewOwnerRequest", "TableKeyRequest") for name in properties(kind)}
    )
)
admin_bodies = st.dictionaries(admin_fields, json_values, max_size=3).map(
    lambda body: json.dumps({"owner": "fuzz", **body}).encode()
)


@quick
@given(
    st.sampled_from(ADMIN_PATHS), admin_bodies | raw_bodies, st.sampled_from(["application/json", "text/csv"])
)
def test_no_body_of_an_operator_brings_a_5xx(fuzz: Fuzz, path: str, body: bytes, kind: str) -> None:
    status, answer = fuzz.post(f"/admin/v1{path}", body, kind, OPERATOR)

    assert status in {200, 400, 409}, (status, answer, body)
    assert status == 200 or answer["error"]["message"]
