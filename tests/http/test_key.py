"""`/v1/key` for whoever holds a secret: revoked by presenting it, renewed where the operator allows it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest

from rig import COLLEAGUE, EXPIRED, OPERATOR, REVOKED, SECRET, rig
from scibox.core import secret as secrets
from scibox.core.events import Notice
from scibox.http import app


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def test_whoever_has_a_secret_revokes_it_by_presenting_it() -> None:
    async with rig() as r:
        done = await r.client.delete("/v1/key")
        again = await r.client.delete("/v1/key")
        refused = await r.client.get("/v1/models")
        other = await r.client.get("/v1/models", headers=bearer(COLLEAGUE))
        told = [event.message for event in r.events if isinstance(event, Notice)]

    assert done.json() == again.json() == {"id": "key_full", "revoked": True, "object": "key"}
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "key_revoked")
    assert other.status_code == 200
    assert "key_full" in told[0]
    assert SECRET not in str(told)


@pytest.mark.parametrize("secret", [REVOKED, EXPIRED, OPERATOR])
async def test_every_key_can_be_given_up(secret: str) -> None:
    """One that opens nothing now might open again; and nothing protects an operator's key that has leaked."""
    async with rig() as r:
        done = await r.client.delete("/v1/key", headers=bearer(secret))
        refused = await r.client.get("/v1/models", headers=bearer(secret))

    assert (done.status_code, done.json()["revoked"]) == (200, True)
    assert refused.json()["error"]["code"] == "key_revoked"


async def test_a_secret_that_was_replaced_does_not_end_the_key() -> None:
    async with rig() as r:
        made = await r.client.post("/admin/v1/keys/key_full/rotate", headers=bearer(OPERATOR))
        old = await r.client.delete("/v1/key")
        new = await r.client.get("/v1/key", headers=bearer(made.json()["secret"]))

    assert (old.status_code, new.status_code) == (401, 200)


@pytest.mark.parametrize(
    ("secret", "code"),
    [
        ("", "missing_api_key"),
        ("sk-other", "invalid_api_key"),
        (SECRET[:-1] + "z", "invalid_api_key"),
        (secrets.compose([3] * secrets.RANDOM_CHARS), "invalid_api_key"),
    ],
)
async def test_who_has_no_secret_of_ours_revokes_nothing(secret: str, code: str) -> None:
    async with rig() as r:
        answer = await r.client.delete("/v1/key", headers={"authorization": f"Bearer {secret}".strip()})

    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)


async def test_holders_rotate_only_where_the_operator_allows_it() -> None:
    async with rig() as r:
        refused = await r.client.post("/v1/key/rotate", json={"overlap_s": 60})
        transport = httpx.ASGITransport(app.build(replace(r.door, may_rotate=True)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            made = await client.post("/v1/key/rotate", json={"overlap_s": 60}, headers=bearer(SECRET))
            now = await client.post("/v1/key/rotate", headers=bearer(made.json()["secret"]))
            wrong = await client.post(
                "/v1/key/rotate", json={"overlap": 60}, headers=bearer(now.json()["secret"])
            )
        old = await r.client.get("/v1/key")
        new = await r.client.get("/v1/key", headers=bearer(now.json()["secret"]))

    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    assert "gate.holders_rotate" in refused.json()["error"]["message"]
    assert (made.json()["id"], made.json()["object"]) == ("key_full", "key")
    assert made.json()["old_secret_until"].endswith("Z")
    assert "'overlap_s'" in wrong.json()["error"]["message"]
    assert (old.status_code, new.status_code) == (401, 200)


async def test_revoking_needs_no_database() -> None:
    async with rig() as r:
        await asyncio.to_thread(r.store.close)
        for file in r.folder.glob("keys.db*"):
            file.unlink()
        (r.folder / "keys.db").mkdir()  # no database can be opened there
        by_holder = await r.client.delete("/v1/key")
        by_operator = await r.client.post("/admin/v1/keys/key_stranger/revoke", headers=bearer(OPERATOR))
        last = await r.client.post("/admin/v1/keys/key_operator/revoke", headers=bearer(OPERATOR))
        refused = [(await r.client.get("/v1/key")).json()["error"]["code"]]
        listed = await r.client.get("/admin/v1/keys", headers=bearer(OPERATOR))
        kept = (r.folder / "revoked").read_text()

    assert (by_holder.status_code, by_operator.status_code) == (200, 200)
    assert by_operator.json()["state"] == "revoked"
    assert (last.status_code, last.json()["error"]["code"]) == (409, "last_operator")
    assert refused == ["key_revoked"]
    assert (listed.status_code, listed.json()["error"]["code"]) == (503, "storage_unavailable")
    assert listed.headers["retry-after"]
    assert {line.split()[0] for line in kept.splitlines()} == {"key_full", "key_stranger"}
