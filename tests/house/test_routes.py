"""The live route table against the document, and against a caller without a key."""

from __future__ import annotations

import re

import pytest
from starlette.routing import Mount, Route

from rig import rig
from scibox.http import paths
from scibox.http.front import Front
from scibox.wire.document import openapi

# Whoever adds to this list says why: everything else needs a key (PROMISES K3).
PUBLIC = {
    ("GET", "/health"),  # load balancers have none
    ("GET", "/ready"),
    ("GET", "/"),  # the description of the API, and what draws it
    ("GET", "/openapi.json"),
    ("GET", "/static/swagger"),
}
# Two show it; one is where Cohere's clients look for /v1/rerank.
NOT_IN_THE_DOCUMENT = {"/", "/openapi.json", "/v2/rerank"}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def table(front: Front) -> set[tuple[str, str]]:
    """Method and path, as the document writes it, of every route that is served."""
    found = set()
    for route in front.routes:
        if isinstance(route, Mount):
            found.add(("GET", route.path))
            continue
        assert isinstance(route, Route), f"{route} is of a kind that this test does not know"
        assert route.methods, f"{route.path} takes any method"
        found |= {(method, paths.shown(route)) for method in route.methods if method != "HEAD"}
    return found


async def test_the_document_has_every_route_and_no_other() -> None:
    documented = {
        (method.upper(), path)
        for path, item in openapi.document("0")["paths"].items()
        for method in item
        if method.upper() in METHODS
    }
    async with rig() as r:
        served = {
            (method, path)
            for method, path in table(r.front)
            if path not in NOT_IN_THE_DOCUMENT and not path.startswith("/static")
        }

    assert served - documented == set(), "routes that the document does not have"
    assert documented - served == set(), "documented, but nobody serves them"


@pytest.mark.parametrize("authorization", ["", "Bearer sk-scibox-" + "0" * 36, "Basic YTpi"])
async def test_without_a_key_only_the_public_list_answers(authorization: str) -> None:
    """Every route with every method and in every form of its path; bodies are not even read."""
    async with rig() as r:
        served = table(r.front)
        for method, path in sorted(served):
            whole = re.sub(r"\{\w+\}", "chatty", path)
            for url in (whole, whole.removeprefix("/v1"), f"/v1{whole}", f"{whole}/"):
                answer = await r.client.request(
                    method,
                    f"http://127.0.0.1:{r.port}{url}",
                    headers={"authorization": authorization},
                    content=None if method == "GET" else b"not read",
                )
                if (method, path) in PUBLIC:
                    assert answer.status_code in {200, 404}, (method, url)  # 404: a folder of files
                else:
                    assert answer.status_code == 401, (method, url)
                    assert answer.headers["www-authenticate"] == "Bearer"
        touched = list(r.engine.requests)

    assert served >= PUBLIC, "the public list has what is not served"
    assert not touched


async def test_other_methods_lead_nowhere() -> None:
    """405 with `Allow`, or 404: no route is open for a method that nobody thought of."""
    async with rig() as r:
        for path in sorted({path for _, path in table(r.front)}):
            whole = re.sub(r"\{\w+\}", "chatty", path)
            allowed = {method for method, other in table(r.front) if other == path}
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"):
                if method in allowed or path.startswith("/static"):
                    continue
                answer = await r.client.request(method, whole)
                # Paths with names in them overlap: another route may take this method, with its key.
                assert answer.status_code in {400, 403, 404, 405}, (method, path)
                if answer.status_code == 405:
                    assert set(answer.headers["allow"].split(", ")) >= allowed
