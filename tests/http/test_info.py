import asyncio
import json
from dataclasses import replace
from typing import NoReturn

import httpx
import pytest

from rig import CHAT, EXPIRED, LIMITED, REVOKED, SECRET, Models, rig
from scibox.http import app
from scibox.service.status import Status


def with_secret(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_models_and_their_aliases(prefix: str) -> None:
    async with rig() as r:
        listed = (await r.client.get(f"{prefix}/models")).json()
        one = (await r.client.get(f"{prefix}/models/gpt-test")).json()

    assert listed["object"] == "list"
    assert [(m["id"], m["root"]) for m in listed["data"]] == [
        ("chatty", "chatty"),
        ("vectors", "vectors"),
        ("gpt-test", "chatty"),
    ]
    assert one["object"] == "model"
    assert (one["id"], one["max_model_len"], one["kind"]) == ("gpt-test", 8192, "chat")


async def test_a_key_sees_its_models_only() -> None:
    async with rig() as r:
        headers = with_secret(LIMITED)
        listed = (await r.client.get("/v1/models", headers=headers)).json()
        refused = await r.client.post("/v1/chat/completions", json=CHAT, headers=headers)
        info = (await r.client.get("/v1/key", headers=headers)).json()

    assert [m["id"] for m in listed["data"]] == ["vectors"]
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "model_not_found"
    assert "Its models: vectors." in refused.json()["error"]["message"]
    assert info["models"] == ["vectors"]


async def test_who_am_i() -> None:
    async with rig() as r:
        info = (await r.client.get("/v1/key")).json()

    assert (info["id"], info["owner"], info["expires_at"]) == ("key_full", "team", None)
    assert info["created_at"] == "2023-11-14T22:13:20Z"
    assert SECRET not in json.dumps(info)


async def test_an_unknown_model_names_the_nearest() -> None:
    async with rig() as r:
        answer = await r.client.post("/v1/chat/completions", json={**CHAT, "model": "Chaty"})
        missing = await r.client.get("/v1/models/none/such")

    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (404, "model")
    assert "Did you mean 'chatty'?" in error["message"]
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


async def test_the_wrong_endpoint_for_a_model_is_named() -> None:
    async with rig() as r:
        answer = await r.client.post("/v1/chat/completions", json={**CHAT, "model": "vectors"})

    assert answer.status_code == 400
    assert "/v1/embeddings" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("", "missing_api_key"),
        ("Basic abc", "missing_api_key"),
        ("Bearer", "missing_api_key"),
        ("Bearer sk-other", "invalid_api_key"),
        (f"Bearer {SECRET[:-1]}x", "invalid_api_key"),
        (f"Bearer {REVOKED}", "key_revoked"),
        (f"Bearer {EXPIRED}", "key_expired"),
        ("Bearer \xff\xfe", "invalid_api_key"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/key", "/v1/chat/completions", "/v1/embeddings"])
async def test_without_a_good_key_nothing_is_told(path: str, header: str, code: str) -> None:
    async with rig() as r:
        method = "GET" if path in {"/v1/models", "/v1/key"} else "POST"
        headers = {"authorization": header.encode("latin-1")}
        answer = await r.client.request(method, path, headers=headers, content=b"not json")

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == code
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not r.engine.requests


async def test_the_scheme_is_read_in_any_case() -> None:
    async with rig() as r:
        answer = await r.client.get("/v1/key", headers={"authorization": f"bearer  {SECRET}"})

    assert answer.status_code == 200


async def test_health_needs_no_key() -> None:
    async with rig() as r:
        for path in ("/health", "/v1/health"):
            answer = await r.client.get(path, headers={"authorization": ""})
            assert (answer.status_code, answer.json()["status"]) == (200, "ok")


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v1/chat/completion", 404, "/v1/chat/completions"),
        ("POST", "/v1/embedings", 404, "/v1/embeddings"),
        ("GET", "/nothing", 404, "/nothing"),
        ("GET", "/v1/chat/completions", 405, "GET"),
        ("DELETE", "/v1/models", 405, "DELETE"),
        ("GET", "/static/swagger/../app.py", 404, ""),
    ],
)
async def test_wrong_paths_and_methods_have_the_same_shape(
    method: str, path: str, status: int, words: str
) -> None:
    async with rig() as r:
        answer = await r.client.request(method, path)

    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert words in answer.json()["error"]["message"]
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /key HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    ],
)
async def test_malformed_http_is_refused_in_the_same_shape(raw: bytes) -> None:
    async with rig() as r:
        reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
        writer.write(raw)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        healthy = await r.client.get("/health")

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-request-id: req_" in head
    assert b"openai-processing-ms: 0" in head
    assert json.loads(body)["error"]["code"] == "malformed_http"
    assert healthy.status_code == 200


async def test_swagger_needs_nothing_from_elsewhere() -> None:
    async with rig() as r:
        page = await r.client.get("/")
        script = await r.client.get("/static/swagger/swagger-ui-bundle.js")
        document = (await r.client.get("/openapi.json")).json()

    assert "text/html" in page.headers["content-type"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "://" not in page.text
    assert script.status_code == 200
    assert document["openapi"].startswith("3.1")


async def test_a_crash_tells_the_client_that_the_connection_ends() -> None:
    class Broken(Status):
        @property
        def state(self) -> NoReturn:
            raise RuntimeError

    async with rig() as r:
        front = app.build(replace(r.door, status=Broken(r.gate, Models([]), "0")))
        transport = httpx.ASGITransport(front, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.get("/health")

    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert answer.headers["connection"] == "close"
