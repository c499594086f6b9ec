"""Batches through the door: what comes out of them, and what happens when things go wrong on their way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jobs import CHAT, EMBEDDINGS, jsonl, line, look, results, start, until_done, until_over, upload

from rig import KEYS, SECRET, Rig, rig
from scibox.core import secret
from scibox.engines.fake_dialect import prompt_text, words_about
from scibox.engines.fake_script import Script
from scibox.service.files import Limits
from scibox.service.work import Pace
from scibox.store.keys import Known

SLOW = Script(first_chunk_delay_s=0.05)
STUCK = Script(fault="stall", after_chunks=1)
BUSY = Script(status=503)


def expected(custom_id: str) -> str:
    return "".join(words_about(prompt_text([{"role": "user", "content": f"say {custom_id}"}])))


def said(result: dict[str, Any]) -> str:
    return str(result["response"]["body"]["choices"][0]["message"]["content"])


async def test_a_thousand_lines_of_each_kind_are_answered_once_each() -> None:
    async with rig() as r:
        first = await start(r.client, jsonl(line(f"c{n}") for n in range(1000)), metadata={"for": "test"})
        second = await start(r.client, jsonl(line(f"e{n}", EMBEDDINGS) for n in range(1000)), EMBEDDINGS)
        done = [await until_over(r.client, batch["id"]) for batch in (first, second)]
        chat_results, text_results = [await results(r.client, b["output_file_id"]) for b in done]
        listed = await r.client.get("/v1/files", params={"purpose": "batch_output"})

    assert first["status"] == "validating"
    for batch in done:
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 1000, "completed": 1000, "failed": 0}
        assert batch["error_file_id"] is batch["errors"] is None
        order = ["created_at", "in_progress_at", "finalizing_at", "completed_at", "expires_at"]
        assert [batch[name] for name in order] == sorted(batch[name] for name in order)
    assert done[0]["metadata"] == {"for": "test"}
    assert set(chat_results) == {f"c{n}" for n in range(1000)}
    assert set(text_results) == {f"e{n}" for n in range(1000)}
    for custom_id, result in chat_results.items():
        assert result["error"] is None
        assert result["id"].startswith("batch_req_")
        assert result["response"]["status_code"] == 200
        assert said(result) == expected(custom_id)
    assert len(r.ended) == 2000  # each was a call like any other, in the log under the id of its result
    logged = {event.request_id for event in r.ended}
    assert {item["response"]["request_id"] for item in chat_results.values()} < logged
    assert {file["id"] for file in listed.json()["data"]} == {b["output_file_id"] for b in done}


async def test_wrong_calls_go_to_the_error_file_and_the_others_on() -> None:
    lines = [
        line("right"),
        line("model", model="nobody"),
        line("kind", model="vectors"),
        line("range", temperature=99),
        line("also right"),
    ]
    async with rig() as r:
        batch = await until_over(r.client, (await start(r.client, jsonl(lines)))["id"])
        answers = await results(r.client, batch["output_file_id"])
        errors = await results(r.client, batch["error_file_id"])

    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 5, "completed": 2, "failed": 3}
    assert set(answers) == {"right", "also right"}
    assert {name: item["response"]["status_code"] for name, item in errors.items()} == {
        "model": 404,
        "kind": 400,
        "range": 400,
    }
    assert errors["range"]["error"] is None
    assert errors["range"]["response"]["body"]["error"]["param"] == "temperature"


async def test_a_wrong_input_file_fails_the_batch_with_the_numbers_of_its_lines() -> None:
    lines = [
        json.dumps(line("one")).encode(),
        b"{not json",
        b"",
        json.dumps(line("one")).encode(),
        json.dumps(line("two", stream=True)).encode(),
        json.dumps({**line("three"), "method": "GET"}).encode(),
        json.dumps({**line("four"), "url": EMBEDDINGS}).encode(),
        json.dumps({"method": "POST", "url": CHAT, "body": {}}).encode(),
        json.dumps({**line("five"), "body": 7}).encode(),
    ]
    async with rig() as r:
        batch = await until_over(r.client, (await start(r.client, b"\r\n".join(lines)))["id"])

    assert batch["status"] == "failed"
    assert [(error["line"], error["code"]) for error in batch["errors"]["data"]] == [
        (2, "invalid_json_line"),
        (4, "duplicate_custom_id"),
        (5, "stream_not_supported"),
        (6, "invalid_method"),
        (7, "invalid_url"),
        (8, "invalid_line"),
        (9, "invalid_body"),
    ]
    assert batch["output_file_id"] is batch["error_file_id"] is None
    assert not r.engine.requests


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"\n \r\n", "empty_file"),
        (b'{"custom_id":"x"}\n' * 50_001, "too_many_lines"),
        (b"x" * (2**20 + 1), "line_too_long"),
    ],
)
async def test_an_input_file_of_the_wrong_size_fails_the_batch(content: bytes, code: str) -> None:
    async with rig(limits=Limits(2**21, 2**22, 3600.0)) as r:
        batch = await until_over(r.client, (await start(r.client, content))["id"])

    assert batch["status"] == "failed"
    assert code in {error["code"] for error in batch["errors"]["data"]}
    assert len(batch["errors"]["data"]) <= 100


async def test_a_model_that_cannot_answer_now_is_asked_again() -> None:
    async with rig(remote=True) as r:
        r.engine.next_scripts.extend([BUSY, BUSY])
        batch = await until_over(r.client, (await start(r.client, jsonl([line("a")])))["id"])

    assert batch["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    assert len([request for request in r.engine.requests if request.method == "POST"]) == 3


async def test_a_model_that_never_answers_is_asked_some_times_and_no_more() -> None:
    async with rig(remote=True) as r:
        r.engine.script = BUSY
        batch = await until_over(r.client, (await start(r.client, jsonl([line("a")])))["id"])
        errors = await results(r.client, batch["error_file_id"])

    assert batch["status"] == "completed"
    assert errors["a"]["response"]["status_code"] == 503
    assert len([request for request in r.engine.requests if request.method == "POST"]) == 4


async def test_a_cancelled_batch_keeps_what_was_done_and_frees_the_engine() -> None:
    async with rig() as r:
        r.engine.script = SLOW
        batch_id = (await start(r.client, jsonl(line(f"c{n}") for n in range(300))))["id"]
        await until_done(r.client, batch_id, 20)
        r.engine.script = STUCK
        asked = await r.client.post(f"/v1/batches/{batch_id}/cancel")
        batch = await until_over(r.client, batch_id, 5)
        await r.until_idle()
        answers = await results(r.client, batch["output_file_id"])
        again = await r.client.post(f"/v1/batches/{batch_id}/cancel")

    assert asked.json()["status"] == "cancelling"
    assert batch["status"] == "cancelled"
    assert batch["cancelled_at"] >= batch["cancelling_at"]
    assert 20 <= len(answers) == batch["request_counts"]["completed"] < 300
    assert all(said(result) == expected(custom_id) for custom_id, result in answers.items())
    assert again.status_code == 400
    assert again.json()["error"]["message"] == "Cannot cancel a batch with status 'cancelled'."


async def test_a_batch_whose_key_is_revoked_stops() -> None:
    async with rig() as r:
        r.engine.script = SLOW
        batch_id = (await start(r.client, jsonl(line(f"c{n}") for n in range(300))))["id"]
        await until_done(r.client, batch_id, 4)
        digest, other = secret.digest(SECRET), secret.compose([3] * secret.RANDOM_CHARS)
        revoked = {
            digest: replace(KEYS[digest], revoked_at=1.0),
            secret.digest(other): replace(KEYS[digest], key_id="key_other"),
        }
        r.ring.replace(Known({**KEYS, **revoked}))
        r.client.headers["authorization"] = f"Bearer {other}"  # of the same owner
        batch = await until_over(r.client, batch_id, 5)
        answers = await results(r.client, batch["output_file_id"])

    assert batch["status"] == "failed"
    assert [error["code"] for error in batch["errors"]["data"]] == ["key_revoked"]
    assert 4 <= len(answers) == batch["request_counts"]["completed"] < 300


async def test_a_batch_over_its_window_expires_with_what_was_done() -> None:
    ahead_s = 0.0
    async with rig(now=lambda: time.time() + ahead_s) as r:
        r.engine.script = SLOW
        batch_id = (await start(r.client, jsonl(line(f"c{n}") for n in range(300))))["id"]
        await until_done(r.client, batch_id, 4)
        ahead_s = 86_401.0
        batch = await until_over(r.client, batch_id, 5)

    assert batch["status"] == "expired"
    assert batch["request_counts"]["completed"] + batch["request_counts"]["failed"] == 300
    assert batch["request_counts"]["completed"] >= 4


async def test_lines_that_never_ran_are_named_in_the_error_file() -> None:
    ahead_s = 0.0
    limits = Limits(2**20, 2**22, 10 * 86_400.0)
    async with rig(now=lambda: time.time() + ahead_s, slots=1, limits=limits) as r:
        async with interactive(r):
            batch_id = (await start(r.client, jsonl(line(f"c{n}") for n in range(5))))["id"]
            await asyncio.sleep(0.1)
            ahead_s = 86_401.0
        batch = await until_over(r.client, batch_id, 5)
        errors = await results(r.client, batch["error_file_id"])

    assert batch["status"] == "expired"
    unanswered = [item for item in errors.values() if item["response"] is None]
    assert {item["error"]["code"] for item in unanswered} == {"batch_expired"}
    assert set(errors) | {"c0"} >= {f"c{n}" for n in range(4)}


async def test_an_owner_whose_storage_is_full_has_its_batch_stopped() -> None:
    content = jsonl(line(f"c{n}") for n in range(500))
    async with rig(limits=Limits(2**20, len(content) + 20_000, 3600.0)) as r:
        batch = await until_over(r.client, (await start(r.client, content))["id"])
        refused = await upload(r.client, b"x" * 20_000)
        answers = await results(r.client, batch["output_file_id"])

    assert batch["status"] == "failed"
    assert [error["code"] for error in batch["errors"]["data"]] == ["storage_limit_reached"]
    assert 0 < len(answers) < 500
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "storage_limit_reached"


@contextlib.asynccontextmanager
async def interactive(r: Rig, calls: int = 1) -> AsyncIterator[None]:
    """Calls of somebody who waits, in flight while this is open."""
    r.engine.next_scripts.extend([STUCK] * calls)
    body = {"model": "chatty", "messages": [{"role": "user", "content": "wait"}]}
    waiting = [asyncio.create_task(r.client.post("/v1/chat/completions", json=body)) for _ in range(calls)]
    try:
        async with asyncio.timeout(5):
            while r.engine.in_flight < calls:
                await asyncio.sleep(0.005)
        yield
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_no_line_starts_while_others_need_the_models_and_all_do_afterwards() -> None:
    async with rig(pace=Pace(concurrency=4), slots=4) as r:
        async with interactive(r, 3):  # the last slot is for the next of them
            batch_id = (await start(r.client, jsonl(line(f"c{n}") for n in range(20))))["id"]
            await asyncio.sleep(0.3)
            held = await look(r.client, batch_id)
            assert r.engine.in_flight == 3
        batch = await until_over(r.client, batch_id, 5)

    assert held["status"] == "in_progress"
    assert held["request_counts"] == {"total": 20, "completed": 0, "failed": 0}
    assert batch["request_counts"]["completed"] == 20


async def test_a_batch_never_takes_more_than_its_lanes_and_others_are_answered_beside_it() -> None:
    async with rig(pace=Pace(concurrency=2)) as r:
        r.engine.script = SLOW
        batch_id = (await start(r.client, jsonl(line(f"c{n}") for n in range(40))))["id"]
        most = 0
        while (await look(r.client, batch_id))["status"] not in {"completed", "failed"}:
            most = max(most, r.engine.in_flight)
            body = {"model": "chatty", "messages": [{"role": "user", "content": "quick"}]}
            assert (await r.client.post("/v1/chat/completions", json=body)).status_code == 200

    assert most == 2


async def test_batches_take_turns() -> None:
    async with rig(pace=Pace(concurrency=1)) as r:
        r.engine.script = SLOW
        first, second = [
            (await start(r.client, jsonl(line(f"{name}{n}") for n in range(20))))["id"] for name in "ab"
        ]
        await until_done(r.client, second, 5)
        count = (await look(r.client, first))["request_counts"]["completed"]

    assert 3 <= count <= 10


async def test_a_batch_goes_on_after_a_restart_and_answers_every_line_once(tmp_path: Path) -> None:
    asked: list[str] = []
    async with rig(data=tmp_path) as r:
        r.engine.script = SLOW
        batch_id = (await start(r.client, jsonl(line(f"c{n}") for n in range(60))))["id"]
        await until_done(r.client, batch_id, 8)
        await r.runner.stop(2.0)
        before = await look(r.client, batch_id)
        asked += [answer.id for answer in r.engine.answers]
    async with rig(data=tmp_path) as r:
        batch = await until_over(r.client, batch_id)
        answers = await results(r.client, batch["output_file_id"])

    assert before["status"] == "in_progress"
    assert batch["request_counts"] == {"total": 60, "completed": 60, "failed": 0}
    assert {name: said(item) for name, item in answers.items()} == {
        f"c{n}": expected(f"c{n}") for n in range(60)
    }
    assert len(r.engine.answers) == 60 - before["request_counts"]["completed"]


async def test_a_torn_end_of_the_results_is_cut_off_and_its_line_runs_again(tmp_path: Path) -> None:
    async with rig(data=tmp_path) as r:
        r.engine.script = SLOW
        batch_id = (await start(r.client, jsonl(line(f"c{n}") for n in range(60))))["id"]
        await until_done(r.client, batch_id, 8)
        await r.runner.stop(2.0)
        [stored] = r.shelf.under_way()
    path = tmp_path / "files" / stored.reserved_output_id
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    async with rig(data=tmp_path) as r:
        batch = await until_over(r.client, batch_id)
        answers = await results(r.client, batch["output_file_id"])

    assert batch["request_counts"] == {"total": 60, "completed": 60, "failed": 0}
    assert set(answers) == {f"c{n}" for n in range(60)}
    assert len(r.engine.answers) == 60 - (whole.count(b"\n") - 1)


async def test_running_lines_finish_in_a_drain_and_no_others_start(tmp_path: Path) -> None:
    async with rig(data=tmp_path) as r:
        r.engine.script = Script(first_chunk_delay_s=0.3)
        batch_id = (await start(r.client, jsonl(line(f"c{n}") for n in range(20))))["id"]
        async with asyncio.timeout(5):
            while r.engine.in_flight < 4:
                await asyncio.sleep(0.005)
        r.gate.drain()
        r.runner.drain()
        await asyncio.wait_for(r.gate.idle.wait(), 5)
        await r.runner.stop(2.0)
        batch = await look(r.client, batch_id)

    assert batch["status"] == "in_progress"
    assert batch["request_counts"]["completed"] == 4 == len(r.engine.answers)


async def test_a_database_that_is_away_stops_batches_and_no_calls(tmp_path: Path) -> None:
    database, aside = tmp_path / "batches.db", tmp_path / "aside"
    async with rig(data=tmp_path) as r:
        r.engine.script = SLOW
        batch_id = (await start(r.client, jsonl(line(f"c{n}") for n in range(30))))["id"]
        await until_done(r.client, batch_id, 4)
        r.shelf.close()
        for path in tmp_path.glob("batches.db*"):
            path.rename(tmp_path / path.name.replace("batches.db", "aside"))
        database.mkdir()
        away = await r.client.get(f"/v1/batches/{batch_id}")
        file = await upload(r.client, b"x")
        body = {"model": "chatty", "messages": [{"role": "user", "content": "still here?"}]}
        call = await r.client.post("/v1/chat/completions", json=body)
        database.rmdir()
        for path in tmp_path.glob("aside*"):
            path.rename(tmp_path / path.name.replace(aside.name, "batches.db"))
        batch = await until_over(r.client, batch_id)

    assert away.status_code == file.status_code == 503
    assert away.json()["error"]["code"] == "storage_unavailable"
    assert away.headers["retry-after"] == "30"
    assert call.status_code == 200
    assert batch["request_counts"] == {"total": 30, "completed": 30, "failed": 0}


async def test_results_wait_in_memory_while_the_disk_takes_none(tmp_path: Path) -> None:
    async with rig(data=tmp_path, slots=1) as r:
        async with interactive(r):
            batch_id = (await start(r.client, jsonl(line(f"c{n}") for n in range(200))))["id"]
            async with asyncio.timeout(5):
                while (await look(r.client, batch_id))["status"] != "in_progress":
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)  # its results have been looked for and not been there
            [stored] = r.shelf.under_way()
            blocked = tmp_path / "files" / stored.reserved_output_id
            blocked.mkdir()
        await asyncio.sleep(0.5)
        answered = len(r.engine.answers)
        blocked.rmdir()
        batch = await until_over(r.client, batch_id)
        answers = await results(r.client, batch["output_file_id"])

    assert 0 < answered < 100  # and no more lines started
    assert len(answers) == 200
    assert [event for event in r.events if "waits for its storage" in str(event)]


async def test_of_two_services_on_one_folder_one_runs_the_batches_and_the_other_follows(
    tmp_path: Path,
) -> None:
    async with rig(data=tmp_path) as first, rig(data=tmp_path) as second:
        batch_id = (await start(second.client, jsonl(line(f"c{n}") for n in range(10))))["id"]
        await until_over(second.client, batch_id, 30)

        assert len(first.engine.answers) + len(second.engine.answers) == 10
        assert {len(first.engine.answers), len(second.engine.answers)} == {0, 10}


async def test_results_are_private_and_expire(tmp_path: Path) -> None:
    ahead_s = 0.0
    async with rig(data=tmp_path, now=lambda: time.time() + ahead_s) as r:
        more = {"output_expires_after": {"anchor": "created_at", "seconds": 7200}}
        batch = await until_over(r.client, (await start(r.client, jsonl([line("a")]), **more))["id"])
        output = (await r.client.get(f"/v1/files/{batch['output_file_id']}")).json()
        modes = {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "files").iterdir()}
        ahead_s = 7300.0
        gone = await r.client.get(f"/v1/files/{output['id']}")
        expired = r.shelf.sweep(time.time() + ahead_s)
        left = list((tmp_path / "files").iterdir())

    assert output["expires_at"] - output["created_at"] == 7200
    assert output["filename"] == f"{batch['id']}_output.jsonl"
    assert modes == {"0o600"}
    assert gone.status_code == 404
    assert expired == 2  # the input too, after the hour that the rig keeps files
    assert left == []
