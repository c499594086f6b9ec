"""One tenant never sees another (PROMISES K4): every object, asked for in every way, by every role."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from jobs import jsonl, line, start, until_over, upload
from starlette.routing import Route

from rig import CHAT, COLLEAGUE, OPERATOR, SECRET, STRANGER, Rig, rig
from scibox.engines.fake_script import Script
from scibox.http import paths

# Who asks, and whether an object of SECRET's owner is there for them. An operator is bound too: what callers
# store is nobody's business but theirs.
ROLES = {
    "own": (SECRET, True),
    "same owner": (COLLEAGUE, True),
    "other": (STRANGER, False),
    "operator": (OPERATOR, False),
}
FILE, BATCH = "/v1/files/{file_id}", "/v1/batches/{batch_id}"
# Every way to ask for one object; what destroys comes last.
WAYS = [
    ("GET", FILE),
    ("GET", f"{FILE}/content"),
    ("GET", BATCH),
    ("POST", f"{BATCH}/cancel"),
    ("DELETE", FILE),
]
# Paths with a name in them that lead to no tenant's object.
OTHERS = {"/v1/models/{name}", "/v1/responses/{id}"}


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def objects(r: Rig) -> dict[str, Any]:
    """A file and a batch of SECRET's owner; the batch is over."""
    batch = await start(r.client, jsonl([line("a")]))
    await until_over(r.client, batch["id"])
    file = (await upload(r.client, jsonl([line("b")]))).json()
    return {"file_id": file["id"], "batch_id": batch["id"]}


async def test_every_path_to_an_object_is_tried_here() -> None:
    """Whoever adds a path with a name in it adds it to `WAYS`, or says in `OTHERS` whose it is not."""
    async with rig() as r:
        found = {
            (method, paths.shown(route))
            for route in r.front.routes
            if isinstance(route, Route) and "{" in route.path and not route.path.startswith("/admin")
            for method in (route.methods or set()) - {"HEAD"}
        }

    assert {way for way in found if way[1] not in OTHERS} == set(WAYS)


@pytest.mark.parametrize("role", ROLES)
async def test_an_object_is_there_for_its_owner_alone(role: str) -> None:
    secret, is_theirs = ROLES[role]
    async with rig() as r:
        ids = await objects(r)
        for method, path in WAYS:
            answer = await r.client.request(method, path.format(**ids), headers=bearer(secret))
            never = await r.client.request(
                method, path.format(file_id="file-none", batch_id="batch_none"), headers=bearer(secret)
            )

            assert (answer.status_code != 404) == is_theirs, (method, path)
            if not is_theirs:
                assert blurred(answer, ids) == blurred(never, {"a": "file-none", "b": "batch_none"})


def blurred(answer: httpx.Response, ids: dict[str, str]) -> str:
    """An answer without the id that was asked for: nothing else tells what is there from what never was."""
    text = answer.text
    for one in ids.values():
        text = text.replace(one, "ID")
    return text


@pytest.mark.parametrize("role", ROLES)
async def test_lists_and_references_have_nothing_of_others(role: str) -> None:
    secret, is_theirs = ROLES[role]
    async with rig() as r:
        ids = await objects(r)
        files = (await r.client.get("/v1/files", headers=bearer(secret))).json()["data"]
        batches = (await r.client.get("/v1/batches", headers=bearer(secret))).json()["data"]
        after = await r.client.get(f"/v1/files?after={ids['file_id']}", headers=bearer(secret))
        body = {
            "input_file_id": ids["file_id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        started = await r.client.post("/v1/batches", json=body, headers=bearer(secret))

    assert (ids["file_id"] in {file["id"] for file in files}) == is_theirs
    assert [batch["id"] for batch in batches] == ([ids["batch_id"]] if is_theirs else [])
    assert (after.status_code == 200) == is_theirs
    assert (started.status_code == 200) == is_theirs


@pytest.mark.parametrize("role", ROLES)
async def test_a_key_sees_itself_and_only_operators_see_all(role: str) -> None:
    secret, _ = ROLES[role]
    async with rig() as r:
        mine = (await r.client.get("/v1/key", headers=bearer(secret))).json()
        known = (await r.client.get("/admin/v1/keys", headers=bearer(OPERATOR))).json()["data"]
        others = [key for key in known if key["id"] != mine["id"]]
        listed = await r.client.get("/admin/v1/keys", headers=bearer(secret))
        single = await r.client.get(f"/admin/v1/keys/{others[0]['id']}", headers=bearer(secret))
        owner = await r.client.get(f"/admin/v1/owners/{others[0]['owner']}", headers=bearer(secret))

    assert mine["last_four"]
    assert not any(key["id"] in str(mine) for key in others)
    expected = 200 if role == "operator" else 403
    assert [answer.status_code for answer in (listed, single, owner)] == [expected] * 3
    assert (role == "operator") == (others[0]["id"] in listed.text + single.text)


@pytest.mark.parametrize("role", ROLES)
async def test_usage_and_the_queue_are_the_owners(role: str) -> None:
    secret, is_theirs = ROLES[role]
    async with rig() as r:
        failed = await r.client.post("/v1/chat/completions", json={**CHAT, "model": "vectors"})
        assert failed.status_code == 400
        too_long = {"model": "chatty", "messages": [{"role": "user", "content": "word " * 20_000}]}
        await r.client.post("/v1/chat/completions", json=too_long)
        r.engine.script = Script(first_chunk_delay_s=30)
        running = asyncio.create_task(r.client.post("/v1/chat/completions", json=CHAT))
        async with asyncio.timeout(10):
            while not r.engine.in_flight:
                await asyncio.sleep(0.01)
        told = {
            path: await r.client.get(path, headers=bearer(secret))
            for path in ("/v1/usage", "/v1/usage/errors", "/v1/queue")
        }
        for query in ("owners=team", "owner=team"):  # no parameter widens what is shown
            wider = await r.client.get(f"/v1/usage?{query}", headers=bearer(secret))
            assert is_theirs or wider.status_code == 400 or "key_full" not in wider.text
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert {answer.status_code for answer in told.values()} == {200}
    counts = [
        result["num_model_requests"]
        for bucket in told["/v1/usage"].json()["data"]
        for result in bucket["results"]
    ]
    assert bool(counts) == is_theirs
    assert bool(told["/v1/usage/errors"].json()["data"]) == is_theirs
    assert [call["status"] for call in told["/v1/queue"].json()["data"]] == ["running"] * is_theirs
