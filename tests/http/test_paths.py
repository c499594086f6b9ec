"""Paths, methods and headers: what every client may rely on, however its base URL was written."""

import asyncio
import re

import pytest

from rig import CHAT, SECRET, rig
from scibox.http import paths

ID = re.compile(r"req_[0-9a-f]{24}")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/chat/completions",
        "/v1/chat/completions/",
        "/chat/completions/",
        "/v1/v1/chat/completions",
        "//v1/chat/completions",
        "//chat/completions//",
        "/v1//chat/completions",
        "/v1/chat/completions?api-version=2024-10-21",
    ],
)
async def test_every_way_to_write_a_path_leads_there_without_a_redirect(path: str) -> None:
    async with rig() as r:
        url = f"http://127.0.0.1:{r.port}{path}"  # a path that begins with two slashes is a host to httpx
        answer = await r.client.post(url, json=CHAT, follow_redirects=False)

    assert answer.status_code == 200
    assert answer.json()["object"] == "chat.completion"


@pytest.mark.parametrize("path", ["/v1/models/chatty/", "/models/chatty", "/v1/v1/models/chatty"])
async def test_names_in_paths_too(path: str) -> None:
    async with rig() as r:
        answer = await r.client.get(path, follow_redirects=False)

    assert answer.json()["id"] == "chatty"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("", "/"),
        ("/v1", "/"),
        ("/v1/", "/"),
        ("/v1x/models", "/v1x/models"),
        ("/a/v1/b", "/a/v1/b"),
    ],
)
def test_the_plain_form_of_a_path(path: str, expected: str) -> None:
    assert paths.plain(path) == expected
    assert paths.plain(paths.plain(path)) == expected


async def test_a_base_url_with_the_whole_path_in_it_is_explained() -> None:
    async with rig() as r:
        answer = await r.client.post("/v1/chat/completions/chat/completions", json=CHAT)

    assert answer.status_code == 404
    assert "base URL ends in /v1" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST, OPTIONS"),
        ("HEAD", "/v1/chat/completions", "POST, OPTIONS"),
        ("DELETE", "/v1/models", "GET, HEAD, OPTIONS"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
        ("PATCH", "/", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_wrong_method_names_the_right_ones(method: str, path: str, allowed: str) -> None:
    async with rig() as r:
        answer = await r.client.request(method, path)

    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert method == "HEAD" or answer.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/models/chatty", "/", "/openapi.json"])
async def test_head_is_get_without_the_body(path: str) -> None:
    async with rig() as r:
        whole = await r.client.get(path)
        head = await r.client.head(path)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]
    assert head.headers["content-type"] == whole.headers["content-type"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/chat/completions", "POST, OPTIONS"),
        ("/models/", "GET, HEAD, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
    ],
)
async def test_options_says_what_may_be_asked_and_needs_no_key(path: str, allowed: str) -> None:
    async with rig() as r:
        answer = await r.client.options(path, headers={"authorization": ""})
        nothing = await r.client.options("/v1/nothing")

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["allow"] == allowed
    assert nothing.status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/nothing", 404),
        ("PUT", "/health", 405),
        ("OPTIONS", "/health", 204),
        ("POST", "/v1/chat/completions", 200),
        ("POST", "/v1/embeddings", 400),
    ],
)
async def test_every_answer_has_an_id_and_its_time(method: str, path: str, status: int) -> None:
    async with rig() as r:
        answer = await r.client.request(method, path, json=CHAT)

    assert answer.status_code == status
    assert ID.fullmatch(answer.headers["x-request-id"])
    assert 0 <= int(answer.headers["openai-processing-ms"]) < 15_000


async def test_a_stream_has_them_too() -> None:
    async with rig() as r:
        answer = await r.client.post("/v1/chat/completions", json={**CHAT, "stream": True})

    assert ID.fullmatch(answer.headers["x-request-id"])
    assert answer.headers["openai-processing-ms"].isdigit()


@pytest.mark.parametrize("name", ["x-request-id", "x-client-request-id"])
async def test_a_clients_own_id_comes_back_beside_ours(name: str) -> None:
    async with rig() as r:
        answer = await r.client.get("/health", headers={name: "trace-1/span:7"})

    assert answer.headers["x-client-request-id"] == "trace-1/span:7"
    assert ID.fullmatch(answer.headers["x-request-id"])


@pytest.mark.parametrize("own", ["a b", "x" * 129, "<script>", "\u00e9".encode("latin-1")])
async def test_an_own_id_that_is_none_stays_away(own: str | bytes) -> None:
    async with rig() as r:
        answer = await r.client.get("/health", headers={"x-client-request-id": own})  # type: ignore[dict-item]

    assert answer.status_code == 200
    assert "x-client-request-id" not in answer.headers


@pytest.mark.parametrize(
    "name", ["a%0d%0aset-cookie:%20x=1", "%0d%0a%0d%0aHTTP/1.1%20200", "%00", "\u00e9%ff"]
)
async def test_names_from_clients_never_become_headers(name: str) -> None:
    async with rig() as r:
        one = await r.client.get(f"/v1/models/{name}")
        other = await r.client.get(f"/v1/{name}/x", headers={"origin": "https://a.example"})

    for answer in (one, other):
        assert answer.status_code == 404
        assert "set-cookie" not in answer.headers
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"]
)
async def test_json_is_json_whatever_its_content_type_says(kind: str) -> None:
    """`curl -d` says form data, and some clients say nothing."""
    async with rig() as r:
        headers = {"content-type": kind} if kind else {}
        content = b'{"model":"chatty","messages":[{"role":"user","content":"hi"}]}'
        answer = await r.client.post("/v1/chat/completions", content=content, headers=headers)

    assert answer.status_code == 200


async def test_a_byte_order_mark_is_no_part_of_it() -> None:
    async with rig() as r:
        content = b'\xef\xbb\xbf{"model":"chatty","messages":[{"role":"user","content":"hi"}]}'
        answer = await r.client.post("/v1/chat/completions", content=content)

    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/tokenize"])
async def test_a_body_that_is_no_json_is_told_why(path: str) -> None:
    async with rig() as r:
        form = await r.client.post(path, data={"model": "chatty"})
        parts = await r.client.post(path, files={"file": b"x"})

    for answer, kind in ((form, "application/x-www-form-urlencoded"), (parts, "multipart/form-data")):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "invalid_json")
        assert error["message"].endswith(f"Send JSON with 'Content-Type: application/json', not '{kind}'.")


async def test_other_charsets_are_refused_where_they_matter() -> None:
    async with rig() as r:
        content = '{"model":"chatty","messages":[{"role":"user","content":"привет"}]}'.encode("cp1251")
        headers = {"content-type": "application/json; charset=windows-1251"}
        answer = await r.client.post("/v1/chat/completions", content=content, headers=headers)

    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert "windows-1251" in answer.json()["error"]["message"]


async def test_a_packed_body_is_refused_before_it_is_read() -> None:
    """A zip bomb needs somebody who unpacks."""
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\n"
        "content-encoding: gzip\r\ncontent-length: 1000000\r\n\r\n"
    )
    async with rig() as r:
        reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
        writer.write(head.encode())
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()

    assert b" 415 " in answer
    assert not r.engine.requests
