"""Web pages of other origins: what a browser needs to be told, and never more."""

import pytest

from rig import CHAT, rig

PAGE = "https://app.example"
# What the official client and the ai sdk send from a browser.
ASKED = (
    "authorization,content-type,openai-organization,x-stainless-arch,x-stainless-lang,x-stainless-os,"
    "x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,x-stainless-timeout"
)
PREFLIGHT = {
    "origin": PAGE,
    "authorization": "",
    "access-control-request-method": "POST",
    "access-control-request-headers": ASKED,
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/embeddings", "/v1/v1/chat/completions/"])
async def test_a_preflight_allows_what_the_clients_send(path: str) -> None:
    async with rig() as r:
        answer = await r.client.options(path, headers=PREFLIGHT)

    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == ASKED
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/chat/completions", 200),
        ("POST", "/v1/embeddings", 400),
        ("GET", "/v1/models/none", 404),
        ("GET", "/v1/nowhere", 404),
        ("PUT", "/v1/models", 405),
    ],
)
async def test_answers_and_errors_may_be_read_with_all_their_headers(
    method: str, path: str, status: int
) -> None:
    async with rig() as r:
        answer = await r.client.request(method, path, json=CHAT, headers={"origin": PAGE})

    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-expose-headers"] == "*"


async def test_without_a_key_the_refusal_may_be_read_too() -> None:
    async with rig() as r:
        answer = await r.client.get("/v1/models", headers={"origin": PAGE, "authorization": ""})

    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_a_stream_may_be_read() -> None:
    async with rig() as r:
        body = {**CHAT, "stream": True}
        answer = await r.client.post("/v1/chat/completions", json=body, headers={"origin": PAGE})

    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_listed_origins_only() -> None:
    async with rig(cors_origins=(PAGE, "http://localhost:3000")) as r:
        mine = await r.client.options("/v1/embeddings", headers=PREFLIGHT)
        other = await r.client.options(
            "/v1/embeddings", headers={**PREFLIGHT, "origin": "https://evil.example"}
        )
        read = await r.client.get("/health", headers={"origin": "https://evil.example"})

    assert mine.headers["access-control-allow-origin"] == PAGE
    assert mine.headers["vary"] == "origin"
    assert other.status_code == 204
    for answer in (other, read):
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "origin"


async def test_no_origins_no_headers() -> None:
    async with rig(cors_origins=()) as r:
        answer = await r.client.options("/v1/embeddings", headers=PREFLIGHT)

    assert answer.status_code == 204
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("asked", ["", "x\u00e9", "a" * 5000, "x: y"])
async def test_asked_headers_that_are_none_do_not_come_back(asked: str) -> None:
    async with rig() as r:
        headers = {**PREFLIGHT, "access-control-request-headers": asked.encode("latin-1")}
        answer = await r.client.options("/v1/embeddings", headers=headers)  # type: ignore[arg-type]

    assert answer.headers["access-control-allow-headers"] == "authorization, content-type, x-api-key"
