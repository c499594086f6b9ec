"""`/admin/v1`: who is let in, and what operators do with owners and keys."""

from __future__ import annotations

import re

import pytest
from starlette.routing import Route

from rig import KEYS, OPERATOR, SECRET, rig
from scibox.http import paths
from scibox.http.front import Front

AS_OPERATOR = {"authorization": f"Bearer {OPERATOR}"}


def admin_table(front: Front) -> list[tuple[str, str]]:
    """Method and path of everything under /admin."""
    return sorted(
        (method, re.sub(r"\{\w+\}", "x", paths.shown(route)))
        for route in front.routes
        if isinstance(route, Route) and route.path.startswith("/admin")
        for method in route.methods or ()
    )


@pytest.mark.parametrize(
    ("secret", "status", "code"), [(SECRET, 403, "forbidden"), ("", 401, "missing_api_key")]
)
async def test_nobody_but_operators_is_let_in(secret: str, status: int, code: str) -> None:
    async with rig() as r:
        found = admin_table(r.front)
        for method, path in found:
            headers = {"authorization": f"Bearer {secret}".strip()}
            answer = await r.client.request(method, path, headers=headers, content=b"not read")
            assert answer.status_code == status, (method, path)
            assert method == "HEAD" or answer.json()["error"]["code"] == code

    assert ("GET", "/admin/v1/keys") in found


async def test_the_keys_are_listed_in_pages_without_their_secrets() -> None:
    async with rig() as r:
        first = (await r.client.get("/admin/v1/keys?limit=4", headers=AS_OPERATOR)).json()
        rest = (await r.client.get(f"/admin/v1/keys?after={first['last_id']}", headers=AS_OPERATOR)).json()

    assert (first["object"], first["has_more"], rest["has_more"]) == ("list", True, False)
    listed = first["data"] + rest["data"]
    assert sorted(key["id"] for key in listed) == sorted(key.key_id for key in KEYS.values())
    assert {key["object"] for key in listed} == {"admin.key"}


async def test_keys_are_listed_by_owner_and_state() -> None:
    async with rig() as r:
        others = (await r.client.get("/admin/v1/keys?owner=others", headers=AS_OPERATOR)).json()
        revoked = (await r.client.get("/admin/v1/keys?state=revoked", headers=AS_OPERATOR)).json()
        wrong = await r.client.get("/admin/v1/keys?state=gone", headers=AS_OPERATOR)

    assert [key["id"] for key in others["data"]] == ["key_stranger"]
    assert [(key["id"], key["state"]) for key in revoked["data"]] == [("key_revoked", "revoked")]
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "state")
