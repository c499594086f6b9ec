"""`/v1/usage` and `/admin/v1/usage`: whose calls are shown, in which shape, and what is refused."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rig import CHAT, OPERATOR, SECRET, STRANGER, Rig, rig
from scibox.core.sums import Scope
from scibox.ledger.reports import Reports
from scibox.service.usage import Usage
from scibox.store.entries import LEDGER, EntryStore
from scibox.store.sql import Sql
from scibox.wire import usage as wire

TOO_LONG = {"model": "chatty", "messages": [{"role": "user", "content": "word " * 20_000}]}
EMBED = {"model": "vectors", "input": ["one", "two"]}


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def get(r: Rig, url: str, secret: str = SECRET) -> dict[str, Any]:
    answer = await r.client.get(url, headers=bearer(secret))
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def some_calls(r: Rig) -> None:
    for body, path in (
        (CHAT, "/v1/chat/completions"),
        (CHAT, "/v1/chat/completions"),
        (EMBED, "/v1/embeddings"),
    ):
        assert (await r.client.post(path, json=body)).status_code == 200
    other = await r.client.post("/v1/chat/completions", json=CHAT, headers=bearer(STRANGER))
    assert other.status_code == 200
    assert (await r.client.post("/v1/chat/completions", json=TOO_LONG)).status_code == 400
    await r.until_idle()


def whole(page: dict[str, Any]) -> dict[str, int]:
    """The numbers of all results together."""
    found: dict[str, int] = {}
    for bucket in page["data"]:
        for result in bucket["results"]:
            for name, value in result.items():
                if isinstance(value, int):
                    found[name] = found.get(name, 0) + value
    return found


async def test_a_call_is_in_the_usage_of_its_owner_at_once_and_only_there() -> None:
    async with rig() as r:
        await some_calls(r)
        mine, theirs = await get(r, "/v1/usage"), await get(r, "/v1/usage", STRANGER)
        every = await get(r, "/admin/v1/usage?group_by=owner&bucket_width=all", OPERATOR)
        operators_own = await get(r, "/v1/usage?bucket_width=all", OPERATOR)

    entries = [one for one in r.journal.entries if one.owner == "team"]
    assert whole(mine)["num_model_requests"] == len(entries) >= 3
    assert whole(mine)["input_tokens"] == sum(one.usage.prompt_tokens for one in entries) > 0
    assert whole(mine)["output_tokens"] == sum(one.usage.completion_tokens for one in entries) > 0
    assert whole(mine)["texts"] == 2
    assert whole(theirs)["num_model_requests"] == 1
    assert {result["owner"]: result["num_model_requests"] for result in every["data"][0]["results"]} == {
        "team": len(entries),
        "others": 1,
    }
    assert operators_own["data"][0]["results"] == []
    assert mine["is_complete"] is True


async def test_the_shape_is_that_of_openais_usage_pages() -> None:
    async with rig() as r:
        await some_calls(r)
        page = await get(r, "/v1/usage?group_by[]=model&group_by[]=api_key_id&models=chatty,vectors")

    assert page["object"] == "page"
    assert (page["has_more"], page["next_page"]) == (False, None)
    assert [bucket["object"] for bucket in page["data"]] == ["bucket"] * len(page["data"])
    last = page["data"][-1]
    assert last["end_time"] - last["start_time"] == 86400
    assert last["start_time"] <= time.time() < last["end_time"]
    assert [(result["model"], result["api_key_id"]) for result in last["results"]] == [
        ("chatty", "key_full"),
        ("vectors", "key_full"),
    ]
    assert last["results"][0]["owner"] is None


async def test_pages_of_buckets_lead_over_the_whole_range() -> None:
    async with rig() as r:
        await some_calls(r)
        now = int(time.time())
        url: str | None = f"/v1/usage?bucket_width=1h&limit=7&start_time={now - 36_000}&end_time={now + 1}"
        starts, calls, first = [], 0, url
        while url:
            page = await get(r, url)
            starts += [bucket["start_time"] for bucket in page["data"]]
            calls += whole(page).get("num_model_requests", 0)
            assert len(page["data"]) <= 7
            assert page["has_more"] is (page["next_page"] is not None)
            url = f"{first}&page={page['next_page']}" if page["has_more"] else None

    begin = (now - 36_000) // 3600 * 3600
    assert starts == list(range(begin, now + 1, 3600))
    assert calls == sum(one.owner == "team" for one in r.journal.entries)


async def test_failed_calls_are_shown_to_their_owner_with_what_support_needs() -> None:
    async with rig() as r:
        bad = await r.client.post("/v1/chat/completions", json=TOO_LONG)
        assert bad.status_code == 400
        good = await r.client.post("/v1/chat/completions", json=CHAT)
        assert good.status_code == 200
        await r.until_idle()
        mine, theirs = await get(r, "/v1/usage/errors"), await get(r, "/v1/usage/errors", STRANGER)
        every = await get(r, "/admin/v1/usage/errors?owner=team&limit=1", OPERATOR)
        nobody = await get(r, "/admin/v1/usage/errors?owner=others", OPERATOR)

    [failed] = mine["data"]
    assert failed["id"] == bad.headers["x-request-id"]
    assert (failed["model"], failed["outcome"]) == ("chatty", "refused")
    assert failed["code"] == bad.json()["error"]["code"]
    assert abs(failed["created_at"] - time.time()) < 60
    assert theirs["data"] == nobody["data"] == []
    assert every["data"] == mine["data"]


@pytest.mark.parametrize("path", ["/admin/v1/usage", "/admin/v1/usage/errors"])
async def test_operators_only(path: str) -> None:
    async with rig() as r:
        answer = await r.client.get(path)

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("start_time=x", "start_time"),
        ("start_time=-1", "start_time"),
        ("start_time=99999999999999999999", "start_time"),
        ("start_time=253370764801", "start_time"),
        ("start_time=5&end_time=5", "end_time"),
        ("bucket_width=1m", "bucket_width"),
        ("group_by=secret", "group_by"),
        ("limit=0", "limit"),
        ("limit=367", "limit"),
        ("bucket_width=1h&limit=169", "limit"),
        ("page=x", "page"),
        ("page=page_5", None),
        ("page=page_99999999999", "page"),
        ("owners=others", "owners"),
        ("limit=1&limit=2", "limit"),
        ("models=" + ",".join(["m"] * 101), "models"),
    ],
)
async def test_a_wrong_query_is_told_which_parameter_it_is(query: str, param: str | None) -> None:
    async with rig() as r:
        answer = await r.client.get(f"/v1/usage?{query}")

    if param is None:
        assert answer.status_code == 200
        return
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_a_very_long_range_is_a_few_pages_and_no_flood() -> None:
    async with rig() as r:
        page = await get(r, "/v1/usage?start_time=0&end_time=253370764800&limit=366")
        one = await get(r, "/v1/usage?start_time=0&end_time=253370764800&bucket_width=all")

    assert len(page["data"]) == 366
    assert page["has_more"]
    assert len(one["data"]) == 1


def test_an_owner_is_found_however_its_name_was_typed() -> None:
    """A stored name is in NFC; a Mac's keyboard, or a file, may give NFD."""
    composed, typed = "caf\u00e9", "cafe\u0301"
    now = int(time.time())
    for pairs in ([("owners", typed)], [("owners[]", f"x,{typed}")]):
        assert composed in wire.parse(pairs, now, None).scope.owners
    assert wire.parse_failed([("owner", typed)], None)[0] == composed


async def test_a_page_is_made_off_the_event_loop(tmp_path: Path) -> None:
    """A report may have tens of thousands of results: nothing of that may hold up calls."""
    with closing(Sql(f"sqlite://{tmp_path}/ledger.db", LEDGER)) as sql:
        usage = Usage(Reports(tmp_path / "journal", EntryStore(sql)), time.time)
        name = await usage.sums(Scope(0, 3600), (), lambda report: threading.current_thread().name)
        usage.close()

    assert name.startswith("scibox-usage")
