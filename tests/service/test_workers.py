"""Several processes answer on one port: what one of them meets, the others and their clients do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import sqlite3
import ssl
import time
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import trustme
from jobs import jsonl, line, start, until_over
from world import Load, Told, World, world

from live import Serve, scibox

TWO = "[server]\nworkers = 2\n"
LOADED = re.compile(rb"numpy|onnx|xllamacpp|tokenizers|llguidance")


def workers(serve: Serve) -> list[int]:
    """The processes of the service that answer."""
    return [pid for pid in serve.children() if _module(pid) == b"scibox.worker"]


def _module(pid: int) -> bytes:
    """What it runs; nothing when it has just ended, or not yet begun."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").rpartition(b"\0")[2]
    except OSError:
        return b""


def _in_flight(serve: Serve) -> int:
    status, body = serve.get("/admin/v1/status")
    return int(body["calls_in_flight"]) if status == 200 else -1


async def streams(place: World, count: int) -> list[asyncio.Task[Told]]:
    """So many calls, each with its first word: each worker has as many of them."""
    await asyncio.sleep(0.5)  # workers tell how many connections they have ten times a second
    before = _in_flight(place.serve)
    heard = [Told() for _ in range(count)]
    begun = [asyncio.create_task(place.call(told=told)) for told in heard]
    await until(lambda: all(told.words for told in heard) and _in_flight(place.serve) == before + count)
    return begun


async def until(holds: Any, within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.02)


async def test_a_worker_that_is_killed_takes_its_own_calls_with_it_and_nothing_else(tmp_path: Path) -> None:
    with world(tmp_path, TWO, chunks=["word "] * 60, chunk_delay_s=0.1) as place, place.service() as serve:
        running = await streams(place, 8)
        async with Load(place, 4, max_tokens=1) as load:
            await asyncio.sleep(0.5)
            [dying, living] = workers(serve)
            os.kill(dying, signal.SIGKILL)
            killed_at = time.time()
            # What the dead one held is free at once, for the desk and for the next calls.
            await until(lambda: _in_flight(serve) <= 4 + 4)
            await until(lambda: len(workers(serve)) == 2)
            told = await asyncio.gather(*running)
        assert living in workers(serve)
        serve.until_said("is back after 1 restarts")
        await until(lambda: _in_flight(serve) == 0)
        # Each call has one line of the ledger, whatever became of it.
        cut = {one.request_id for one in [*told, *load.told] if one.end == "cut"}
        await until(lambda: cut <= _entries(place, "interrupted"))
        whole = {one.request_id for one in [*told, *load.told] if one.end == "whole"}
        await until(lambda: whole <= _entries(place, "finished"))
        await _both_are_used(place)

    assert sorted(one.end for one in told) == ["cut"] * 4 + ["whole"] * 4
    assert [one.words for one in told if one.end == "whole"] == [60] * 4
    lost = [one for one in load.told if one.end != "whole"]
    assert all(one.end in {"cut", "no answer"} for one in lost)
    assert len(lost) <= 4  # each client was talking to one worker
    assert all(one.began_at <= killed_at for one in lost)
    assert [one.end for one in load.told if one.began_at > killed_at].count("whole") > 10


def _entries(place: World, outcome: str) -> set[str]:
    with contextlib.closing(sqlite3.connect(place.data / "ledger.db")) as db:
        return {row[0] for row in db.execute("SELECT request_id FROM entries WHERE outcome = ?", (outcome,))}


async def _both_are_used(place: World) -> None:
    """Two calls that come one after the other run at two workers: the death of either cuts one of them."""
    told = await streams(place, 2)
    before = workers(place.serve)
    os.kill(before[0], signal.SIGKILL)
    assert sorted(one.end for one in await asyncio.gather(*told)) == ["cut", "whole"]


async def test_told_to_stop_all_workers_finish_what_runs(tmp_path: Path) -> None:
    with world(tmp_path, TWO, chunks=["word "] * 40, chunk_delay_s=0.1) as place, place.service() as serve:
        kept = [http.client.HTTPConnection("127.0.0.1", place.port, timeout=30) for _ in range(2)]
        assert [_ask(one, place)[0] for one in kept] == [200, 200]  # one at each worker
        running = await streams(place, 6)
        serve.process.send_signal(signal.SIGTERM)
        serve.until_said("Finishing 6 running calls")
        await until(lambda: serve.get("/ready")[0] == 503)
        refused = [await place.call() for _ in range(4)]
        on_kept = [await asyncio.to_thread(_ask, one, place) for one in kept]
        told = await asyncio.gather(*running)
        status = await asyncio.to_thread(serve.process.wait, 30)

    assert status == 0
    assert [(one.end, one.words) for one in told] == [("whole", 40)] * 6
    assert {(one.status, one.code) for one in refused} == {(503, "draining")}
    assert all(int(one.headers["retry-after"]) > 0 for one in refused)
    assert [(status, body["error"]["code"]) for status, body in on_kept] == [(503, "draining")] * 2
    assert place.said.rstrip().endswith("Stopped.")


async def test_what_outlives_the_grace_gets_an_error_event(tmp_path: Path) -> None:
    settings = f"{TWO}drain_s = 0.5\n"
    with (
        world(tmp_path, settings, chunks=["word "] * 1000, chunk_delay_s=0.1) as place,
        place.service() as serve,
    ):
        running = await streams(place, 4)
        serve.process.send_signal(signal.SIGTERM)
        told = await asyncio.gather(*running)
        status = await asyncio.to_thread(serve.process.wait, 30)

    assert status == 0
    assert {(one.end, one.code) for one in told} == {("error", "draining")}


async def test_a_second_signal_ends_the_calls_at_once(tmp_path: Path) -> None:
    settings = f"{TWO}drain_s = 100\n"
    with (
        world(tmp_path, settings, chunks=["word "] * 1000, chunk_delay_s=0.1) as place,
        place.service() as serve,
    ):
        running = await streams(place, 4)
        serve.process.send_signal(signal.SIGTERM)
        serve.until_said("Finishing")
        serve.process.send_signal(signal.SIGTERM)
        told = await asyncio.wait_for(asyncio.gather(*running), 50)
        status = await asyncio.to_thread(serve.process.wait, 30)

    assert status == 0
    assert {(one.end, one.code) for one in told} == {("error", "draining")}


async def test_a_reload_replaces_the_workers_and_no_call_notices(tmp_path: Path) -> None:
    with world(tmp_path, TWO, chunks=["word "] * 60, chunk_delay_s=0.1) as place, place.service() as serve:
        before = workers(serve)
        running = await streams(place, 4)
        kept = [http.client.HTTPConnection("127.0.0.1", place.port, timeout=30) for _ in range(2)]
        assert [_ask(one, place)[0] for one in kept] == [200, 200]
        async with Load(place, 4, max_tokens=1) as load:
            for alias in ("first", "second"):
                place.configure(TWO)
                place.config.write_text(
                    place.config.read_text().replace('kind = "chat"', f'kind = "chat"\naliases = ["{alias}"]')
                )
                answer = await asyncio.to_thread(serve.post, "/admin/v1/reload", {})
                assert answer[0] == 200, answer
                assert answer[1]["models_changed"] == ["m"]
                told = await place.call(model=alias, max_tokens=1)
                assert told.end == "whole"
        # Old workers answer on the connections that they have, and say that these end.
        on_kept = [await asyncio.to_thread(_ask_for_headers, one, place) for one in kept]
        told_all = await asyncio.gather(*running)
        await until(lambda: len(workers(serve)) == 2)
        assert not set(before) & set(workers(serve))

    assert [(one.end, one.words) for one in told_all] == [("whole", 60)] * 4
    assert {one.end for one in load.told} == {"whole"}
    assert len(load.told) > 10
    assert on_kept == [(200, "close")] * 2
    assert "warning" not in place.said


async def test_a_configuration_that_cannot_be_taken_over_changes_nothing(tmp_path: Path) -> None:
    with world(tmp_path, TWO) as place, place.service() as serve:
        before = workers(serve)
        place.configure("[server]\nworkers = 3\n")
        status, body = await asyncio.to_thread(serve.post, "/admin/v1/reload", {})
        told = await place.call()

        assert (status, body["error"]["code"]) == (409, "configuration_refused")
        assert "server.workers" in body["error"]["message"]
        assert workers(serve) == before
        assert told.end == "whole"


async def test_keys_and_batches_and_the_log_are_those_of_one_service(tmp_path: Path) -> None:
    with world(tmp_path, TWO) as place, place.service() as serve:
        secret = place.member("team-7")
        key_id = serve.get("/v1/key", secret)[1]["id"]
        told = await asyncio.gather(*(place.call(secret=secret) for _ in range(40)))
        assert {one.end for one in told} == {"whole"}

        headers = {"authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(base_url=serve.base_url, headers=headers) as client:
            batch = await start(client, jsonl(line(f"line {number}", model="m") for number in range(5)))
            over = await until_over(client, batch["id"])
        assert (over["status"], over["request_counts"]["completed"]) == ("completed", 5)

        assert scibox(place.data, "keys", "revoke", key_id).returncode == 0
        serve.until(lambda: {serve.get("/v1/key", secret)[0] for _ in range(8)} == {401}, within_s=10)
        ended = [line for line in serve.said().splitlines() if "request=req_" in line]

    # Every line is whole, whoever wrote it.
    assert len({line.rpartition("request=")[2] for line in ended if " finished " in line}) >= 45
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d \w+ .* request=req_[0-9a-f]{24}", line) for line in ended)


async def test_workers_are_light_and_end_with_the_main_process(tmp_path: Path) -> None:
    with world(tmp_path, TWO) as place, place.service() as serve:
        assert (await place.call()).end == "whole"
        found = workers(serve)
        maps = [Path(f"/proc/{pid}/maps").read_bytes() for pid in found]
        serve.process.kill()
        serve.process.wait()
        await until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in found), 10)

    assert len(found) == 2
    # A grammar or a schema brings llguidance, when the first one comes.
    assert [LOADED.findall(one) for one in maps] == [[], []]


def test_tls_at_every_worker(tmp_path: Path) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("localhost")
    made.private_key_pem.write_to_path(tmp_path / "key.pem")
    made.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    config = tmp_path / "scibox.toml"
    config.write_text(
        f'{TWO}tls_certificate = "cert.pem"\ntls_key = "key.pem"\n'
        '[models.m]\nkind = "chat"\n[[models.m.deployments]]\nengine = "fake"\n'
    )
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with Serve(tmp_path / "data", "--config", str(config)) as serve:
        serve.until_said("Ready")
        for _ in range(6):
            url = f"https://localhost:{serve.port}/health"
            with urllib.request.urlopen(url, context=context, timeout=10) as answer:
                assert json.load(answer)["status"] == "ok"


def _ask(connection: http.client.HTTPConnection, place: World) -> tuple[int, Any]:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1})
    connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {place.secret}"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def _ask_for_headers(connection: http.client.HTTPConnection, place: World) -> tuple[int, str | None]:
    connection.request("GET", "/v1/models", headers={"authorization": f"Bearer {place.secret}"})
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers["connection"]
