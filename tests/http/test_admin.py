"""`/admin/v1`: who is let in, and what operators do with owners and keys."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.routing import Route

from rig import KEYS, OPERATOR, SECRET, Rig, rig
from scibox.core.events import Notice
from scibox.http import paths
from scibox.http.front import Front


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


AS_OPERATOR = bearer(OPERATOR)


async def ask(r: Rig, method: str, path: str, **body: Any) -> dict[str, Any]:
    """What an operator is answered."""
    answer = await r.client.request(method, f"/admin/v1{path}", json=body or None, headers=AS_OPERATOR)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def refused(r: Rig, method: str, path: str, **body: Any) -> tuple[int, str, str | None]:
    """Status, code and field of an operator's error."""
    answer = await r.client.request(method, f"/admin/v1{path}", json=body or None, headers=AS_OPERATOR)
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


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
        first = await ask(r, "GET", "/keys?limit=4")
        rest = await ask(r, "GET", f"/keys?after={first['last_id']}")
        backwards = await ask(r, "GET", "/keys?order=asc")
        nowhere = await refused(r, "GET", "/keys?after=key_none")

    assert (first["object"], first["has_more"], rest["has_more"]) == ("list", True, False)
    listed = [*first["data"], *rest["data"]]
    assert sorted(key["id"] for key in listed) == sorted(key.key_id for key in KEYS.values())
    assert listed == backwards["data"][::-1]
    assert {key["object"] for key in listed} == {"admin.key"}
    assert nowhere == (404, "not_found", "after")


async def test_keys_are_listed_by_owner_and_state() -> None:
    async with rig() as r:
        others = await ask(r, "GET", "/keys?owner=others")
        revoked = await ask(r, "GET", "/keys?state=revoked")
        wrong = await refused(r, "GET", "/keys?state=gone")
        unknown = await refused(r, "GET", "/keys?stat=gone")

    assert [key["id"] for key in others["data"]] == ["key_stranger"]
    assert [(key["id"], key["state"]) for key in revoked["data"]] == [("key_revoked", "revoked")]
    assert wrong == (400, "invalid_value", "state")
    assert unknown == (400, "unknown_parameter", "stat")


async def test_a_new_key_works_before_its_answer_is_read() -> None:
    async with rig() as r:
        made = await ask(r, "POST", "/keys", owner="new team", days=1, models=["chatty"])
        mine = (await r.client.get("/v1/key", headers=bearer(made["secret"]))).json()
        owner = await ask(r, "GET", "/owners/new%20team")
        shown = await ask(r, "GET", f"/keys/{made['id']}")

    assert (mine["id"], mine["owner"], mine["models"]) == (made["id"], "new team", ["chatty", "gpt-test"])
    assert made["expires_at"] - made["created_at"] == 86_400
    assert (owner["weight"], owner["keys"]) == (1.0, 1)
    assert "secret" not in shown
    assert shown["last_four"] == made["secret"][-4:]
    assert shown | {"secret": made["secret"], "last_used_at": None} == made | {"last_used_at": None}


async def test_a_model_that_is_not_served_is_refused_with_the_nearest() -> None:
    async with rig() as r:
        answer = await r.client.post(
            "/admin/v1/keys", json={"owner": "a", "models": ["chaty"]}, headers=AS_OPERATOR
        )
        changed = await refused(r, "POST", "/keys/key_full", models=["chaty"])
        listed = await ask(r, "GET", "/keys?owner=a")

    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "models")
    assert "Did you mean 'chatty'?" in error["message"]
    assert changed == (400, "invalid_value", "models")
    assert listed["data"] == []


async def test_a_change_holds_at_once() -> None:
    async with rig() as r:
        disabled = await ask(r, "POST", "/keys/key_full", enabled=False)
        refusal = await r.client.get("/v1/key")
        await ask(r, "POST", "/keys/key_full", enabled=True, models=["vectors"])
        models = (await r.client.get("/v1/models")).json()["data"]
        await ask(r, "POST", "/keys/key_full", models=None, name="renamed", limits={"calls_in_flight": 3})
        again = await ask(r, "POST", "/keys/key_full", limits={"tokens_per_day": 9})

    assert (disabled["state"], disabled["enabled"]) == ("disabled", False)
    assert (refusal.status_code, refusal.json()["error"]["code"]) == (401, "key_disabled")
    assert [model["id"] for model in models] == ["vectors"]
    assert (again["name"], again["models"]) == ("renamed", None)
    assert (again["limits"]["calls_in_flight"], again["limits"]["tokens_per_day"]) == (3, 9)


async def test_a_rotated_key_keeps_its_id_and_its_old_secret_for_the_overlap() -> None:
    async with rig() as r:
        made = await ask(r, "POST", "/keys/key_full/rotate", overlap_s=3_600)
        both = [await r.client.get("/v1/key", headers=bearer(secret)) for secret in (SECRET, made["secret"])]
        last = await ask(r, "POST", "/keys/key_full/rotate")
        three = [
            (await r.client.get("/v1/key", headers=bearer(secret))).status_code
            for secret in (SECRET, made["secret"], last["secret"])
        ]

    assert [answer.json()["id"] for answer in both] == ["key_full", "key_full"]
    assert made["old_secret_until"] > made["created_at"]
    assert three == [401, 401, 200]


async def test_a_revoked_key_is_refused_at_once_and_for_ever() -> None:
    async with rig() as r:
        revoked = await ask(r, "POST", "/keys/key_full/revoke")
        refusal = await r.client.get("/v1/key")
        again = await ask(r, "POST", "/keys/key_full/revoke")
        enabled = await refused(r, "POST", "/keys/key_full", enabled=True)
        rotated = await refused(r, "POST", "/keys/key_full/rotate")
        unknown = await refused(r, "POST", "/keys/key_none/revoke")

    assert revoked["state"] == "revoked"
    assert (refusal.status_code, refusal.json()["error"]["code"]) == (401, "key_revoked")
    assert again["revoked_at"] == revoked["revoked_at"]
    assert enabled == rotated == (409, "conflict", None)
    assert unknown == (404, "not_found", None)


@pytest.mark.parametrize(
    ("way", "body"), [("", {"enabled": False}), ("", {"role": "member"}), ("/revoke", {})]
)
async def test_the_last_operator_is_not_locked_out(way: str, body: dict[str, Any]) -> None:
    async with rig() as r:
        kept = await refused(r, "POST", f"/keys/key_operator{way}", **body)
        still = await ask(r, "GET", "/keys/key_operator")
        second = await ask(r, "POST", "/keys", owner="operator", role="operator")
        await ask(r, "POST", f"/keys/key_operator{way}", **body)
        answer = await r.client.get("/admin/v1/keys", headers=AS_OPERATOR)
        forced = await r.client.post(
            f"/admin/v1/keys/{second['id']}{way}",
            json={**body, "force": True},
            headers=bearer(second["secret"]),
        )

    assert kept == (409, "last_operator", None)
    assert still["state"] == "active"
    assert answer.status_code in {401, 403}
    assert forced.status_code == 200


async def test_an_owner_from_beginning_to_end() -> None:
    async with rig() as r:
        made = await ask(r, "POST", "/owners", name="org/physics", weight=2, note="room 5")
        twice = await refused(r, "POST", "/owners", name="org/physics")
        changed = await ask(r, "POST", "/owners/org/physics", limits={"tokens_per_day": 9})
        key = await ask(r, "POST", "/keys", owner="org/physics")
        listed = await ask(r, "GET", "/owners?limit=1")
        held = await refused(r, "DELETE", "/owners/org/physics")
        await ask(r, "POST", f"/keys/{key['id']}/revoke")
        gone = await ask(r, "DELETE", "/owners/org/physics")
        missing = await refused(r, "GET", "/owners/org/physics")
        nobody = await refused(r, "POST", "/owners/org/physics", weight=1)

    assert (made["object"], made["id"], made["weight"], made["keys"]) == (
        "admin.owner",
        "org/physics",
        2.0,
        0,
    )
    assert twice == (409, "conflict", "name")
    assert (changed["weight"], changed["note"], changed["limits"]["tokens_per_day"]) == (2.0, "room 5", 9)
    assert [(one["id"], one["keys"]) for one in listed["data"]] == [("org/physics", 1)]
    assert listed["has_more"]
    assert held == (409, "conflict", None)
    assert gone == {"id": "org/physics", "deleted": True, "object": "admin.owner"}
    assert missing == nobody == (404, "not_found", None)


async def test_many_keys_are_made_together_and_only_once() -> None:
    keys = [{"owner": f"team-{i % 50}", "name": f"n{i}", "weight": 2} for i in range(200)]
    async with rig() as r:
        made = await ask(r, "POST", "/keys/bulk", keys=keys)
        works = [await r.client.get("/v1/key", headers=bearer(made["data"][i]["secret"])) for i in (0, 199)]
        again = await ask(r, "POST", "/keys/bulk", keys=[*keys, {"owner": "late"}])
        more = await ask(r, "POST", "/keys/bulk", keys=keys[:1], again=True)
        owner = await ask(r, "GET", "/owners/team-7")

    assert [(one["owner"], one["name"]) for one in made["data"]] == [(k["owner"], k["name"]) for k in keys]
    assert len({one["secret"] for one in made["data"]}) == 200
    assert [answer.json()["name"] for answer in works] == ["n0", "n199"]
    assert [one["owner"] for one in again["data"]] == ["late"]
    assert again["skipped"] == [f"keys[{i}]" for i in range(200)]
    assert (len(more["data"]), more["skipped"]) == (1, [])
    assert (owner["weight"], owner["keys"]) == (2.0, 4)


async def test_one_wrong_line_and_nothing_is_made() -> None:
    async with rig() as r:
        lines = [{"owner": "a"}, {"owner": "b", "models": ["chaty"]}, {"owner": "a"}]
        wrong = await r.client.post("/admin/v1/keys/bulk", json={"keys": lines}, headers=AS_OPERATOR)
        torn = [{"owner": "a", "name": "1", "weight": 1}, {"owner": "a", "name": "2", "weight": 3}]
        against = await refused(r, "POST", "/keys/bulk", keys=torn)
        listed = await ask(r, "GET", "/keys?owner=a")
        owner = await refused(r, "GET", "/owners/a")

    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "keys[1].models")
    assert against == (400, "invalid_value", "keys[1].weight")
    assert listed["data"] == []
    assert owner[0] == 404


async def test_twins_in_one_table_are_a_slip() -> None:
    async with rig() as r:
        twins = [{"owner": "a", "name": "x"}, {"owner": "b", "name": "x"}, {"owner": "a", "name": "x"}]
        refusal = await refused(r, "POST", "/keys/bulk", keys=twins)
        made = await ask(r, "POST", "/keys/bulk", keys=twins, again=True)

    assert refusal == (400, "invalid_value", "keys[2].name")
    assert len(made["data"]) == 3


async def test_a_table_may_be_sent_as_it_is() -> None:
    text = "Владелец;Дней\r\nфизфак;90\r\nхимфак;\r\n".encode("cp1251")
    headers = {**AS_OPERATOR, "content-type": "text/csv"}
    async with rig() as r:
        made = (await r.client.post("/admin/v1/keys/bulk", content=text, headers=headers)).json()
        again = (await r.client.post("/admin/v1/keys/bulk", content=text, headers=headers)).json()
        more = (await r.client.post("/admin/v1/keys/bulk?again=true", content=text, headers=headers)).json()
        wrong = await r.client.post("/admin/v1/keys/bulk", content=b"owner\n=a\n", headers=headers)

    assert [one["owner"] for one in made["data"]] == ["физфак", "химфак"]
    assert again["skipped"] == ["line 2", "line 3"]
    assert len(more["data"]) == 2
    assert wrong.json()["error"]["param"] == "line 2.owner"


async def test_what_operators_change_is_in_the_log_with_who_did_it_and_without_secrets() -> None:
    async with rig() as r:
        made = await ask(r, "POST", "/keys", owner="new")
        await ask(r, "POST", f"/keys/{made['id']}/revoke")
        told = [event.message for event in r.events if isinstance(event, Notice)]

    assert [line.partition(" of ")[0] for line in told] == ["key_operator", "key_operator"]
    assert "made a key of new" in told[0]
    assert f"revoked the key {made['id']}" in told[1]
    assert made["secret"] not in str(told)
