"""What operators do with replicas while the service runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted import Upstream, upstream
from world import World, world

from live import Serve, scibox
from scibox.store.replicas import Kept, ReplicaStore

REPLICAS = "/admin/v1/replicas"


@contextmanager
def two(folder: Path, settings: str = "", **script: Any) -> Iterator[tuple[World, Upstream]]:
    """A world, and a second model server that its configuration does not know."""
    script = {"chunks": ["word "] * 3, **script}
    with world(folder, settings, **script) as place, upstream(folder / "second.log", **script) as second:
        yield place, second


def listed(serve: Serve) -> list[dict[str, Any]]:
    status, body = serve.get(REPLICAS)
    assert status == 200
    return list(body["data"])


def add(serve: Serve, second: Upstream, **more: Any) -> dict[str, Any]:
    body = {"model": "m", "url": second.url, "upstream_model": "fake-model", **more}
    status, answer = serve.post(REPLICAS, body)
    assert status == 200, answer
    return dict(answer)


def refused(serve: Serve, method: str, path: str, body: object = None) -> tuple[int, str, str | None]:
    status, answer = serve.ask(method, REPLICAS + path, body)
    return status, answer["error"]["code"], answer["error"]["param"]


def test_what_operators_changed_survives_a_restart(tmp_path: Path) -> None:
    with two(tmp_path) as (place, second):
        with place.service() as serve:
            [first] = listed(serve)
            new = add(serve, second, slots=7)
            serve.ask("PATCH", f"{REPLICAS}/{first['id']}", {"draining": True})
            before = {(one["id"], one["state"], one["added"], one["slots"]) for one in listed(serve)}
            assert serve.stop() == 0
        with place.service() as serve:
            after = {(one["id"], one["state"], one["added"], one["slots"]) for one in listed(serve)}
            place.spend(3)
            assert serve.stop() == 0
        served = len(second.outcomes()), len(place.upstream.outcomes())

    assert before == after
    assert {(name, state, added) for name, state, added, _ in after} == {
        (first["id"], "draining", False),
        (new["id"], "ready", True),
    }
    assert served == (3, 0)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"model": "other"}, (404, "model_not_found", "model")),
        ({"model": "m", "deployment": 3, "url": "http://a/v1"}, (400, "invalid_value", "deployment")),
        ({"model": "m"}, (400, "invalid_value", "body")),
        ({"model": "m", "url": "ftp://a/v1"}, (400, "invalid_value", "url")),
        ({"model": "m", "url": "http://u:p@a/v1"}, (400, "invalid_value", "url")),
        ({"model": "m", "url": "http://a/v1/models"}, (400, "invalid_value", "url")),
        ({"model": "m", "ulr": "http://a/v1"}, (400, "unknown_parameter", "ulr")),
        ({"model": "m", "url": "http://a/v1", "weights": "x"}, (400, "invalid_value", "weights")),
        # A variable that the configuration does not name is nobody's to send anywhere.
        (
            {"model": "m", "url": "http://a/v1", "upstream_key_env": "PATH"},
            (400, "invalid_value", "upstream_key_env"),
        ),
        (
            {"model": "m", "url": "http://a/v1", "upstream_key_file": "/etc/hostname"},
            (400, "invalid_value", "upstream_key_file"),
        ),
        ({"model": "m", "engine": "llama", "weights": "/etc/hostname"}, (400, "invalid_value", "weights")),
    ],
)
def test_what_cannot_be_is_refused_and_names_its_field(
    serving: Serve, body: dict[str, Any], told: tuple[int, str, str]
) -> None:
    assert refused(serving, "POST", "", body) == told
    assert len(listed(serving)) == 1


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with world(tmp_path_factory.mktemp("fleet")) as place, place.service() as serve:
        yield serve


def test_only_operators_see_and_change_replicas(tmp_path: Path) -> None:
    with world(tmp_path) as place, place.service() as serve:
        member = place.member("team")
        [own] = listed(serve)
        for method, path in (
            ("GET", ""),
            ("POST", ""),
            ("PATCH", f"/{own['id']}"),
            ("DELETE", f"/{own['id']}"),
        ):
            assert serve.ask(method, REPLICAS + path, {}, member)[0] == 403


def test_a_model_keeps_a_replica_that_takes_calls(tmp_path: Path) -> None:
    with two(tmp_path) as (place, second), place.service() as serve:
        [own] = listed(serve)
        one = f"/{own['id']}"
        assert refused(serve, "PATCH", one, {"draining": True})[:2] == (409, "last_replica")
        assert refused(serve, "DELETE", one)[:2] == (409, "replica_is_configured")
        assert refused(serve, "POST", "", {"model": "m", "url": own["url"]})[:2] == (409, "replica_exists")
        assert refused(serve, "PATCH", "/rep_none", {"draining": True})[:2] == (404, "not_found")
        assert serve.ask("PATCH", REPLICAS + one, {"draining": True, "force": True})[0] == 200
        status, answer = serve.post(
            "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        )
        assert status == 503, answer
        new = add(serve, second)  # and calls are answered again
        place.spend(1)
        assert refused(serve, "DELETE", f"/{new['id']}")[:2] == (409, "last_replica")


@pytest.mark.parametrize("workers", [1, 2])
async def test_now_cuts_what_would_else_be_waited_for(tmp_path: Path, workers: int) -> None:
    script: dict[str, Any] = {"chunks": ["word "] * 600, "chunk_delay_s": 0.1}
    settings = f"[server]\nworkers = {workers}\n"
    with two(tmp_path, settings, **script) as (place, second), place.service() as serve:
        [first] = listed(serve)
        new = add(serve, second)["id"]
        serve.ask("PATCH", f"{REPLICAS}/{first['id']}", {"draining": True})
        running = [asyncio.create_task(place.call()) for _ in range(4)]
        await until(lambda: in_flight(serve, new) == 4)
        serve.ask("PATCH", f"{REPLICAS}/{first['id']}", {"draining": False})
        status, left = await asyncio.to_thread(serve.ask, "DELETE", f"{REPLICAS}/{new}", None)
        assert (status, left["in_flight"]) == (200, 4)
        assert [one["state"] for one in listed(serve)] == ["ready", "leaving"]
        assert not any(task.done() for task in running)
        await asyncio.to_thread(serve.ask, "DELETE", f"{REPLICAS}/{new}?now=true", None)
        await until(lambda: len(listed(serve)) == 1)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)  # or the service waits for them as it ends


def in_flight(serve: Serve, name: str) -> int:
    return sum(one["in_flight"] for one in listed(serve) if one["id"] == name)


async def until(holds: Any, within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.05)


def workers_of(serve: Serve) -> list[int]:
    return [pid for pid in serve.children() if b"scibox.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_worker_that_comes_later_knows_the_replicas_of_now(tmp_path: Path) -> None:
    with two(tmp_path, "[server]\nworkers = 2\n") as (place, second), place.service() as serve:
        [first] = listed(serve)
        add(serve, second)
        serve.ask("PATCH", f"{REPLICAS}/{first['id']}", {"draining": True})
        for pid in workers_of(serve):
            os.kill(pid, signal.SIGKILL)
        serve.until(lambda: serve.said().count("is back after 1 restarts") == 2)
        place.spend(6)
        assert len(place.upstream.outcomes()) == 0
        assert len(second.outcomes()) == 6


def test_a_reload_keeps_what_operators_have_added(tmp_path: Path) -> None:
    with two(tmp_path) as (place, second), place.service() as serve:
        new = add(serve, second)
        place.configure("[deadlines]\ntotal_s = 60\n")
        assert serve.post("/admin/v1/reload", {})[0] == 200
        assert new["id"] in {one["id"] for one in listed(serve)}
        place.config.write_text('[models.z]\nkind = "chat"\n[[models.z.deployments]]\nengine = "fake"\n')
        assert serve.post("/admin/v1/reload", {})[0] == 200
        broken = serve.get("/admin/v1/status")[1]["broken"]
        assert any(new["id"] in one["part"] and "no model 'm'" in one["message"] for one in broken)


def test_what_another_node_changes_is_followed(tmp_path: Path) -> None:
    with two(tmp_path) as (place, second), place.service() as serve:
        settings = json.dumps({"url": second.url, "upstream_model": "fake-model"})
        with closing(ReplicaStore(f"sqlite://{place.data}/keys.db")) as store:
            store.put(Kept("rep_theirs", "m", 0, settings, created_at=1.0))
            store.put(Kept("rep_unfit", "not-of-this-node", 0, settings, created_at=2.0))
        serve.until(lambda: len(listed(serve)) == 2, within_s=30)
        assert {one["id"] for one in listed(serve)} >= {"rep_theirs"}
        broken = serve.get("/admin/v1/status")[1]["broken"]
        assert [one["part"] for one in broken] == ["added replica rep_unfit"]
        with place.without("keys.db"):
            assert refused(serve, "DELETE", "/rep_theirs")[:2] == (503, "storage_unavailable")
            assert len(listed(serve)) == 2  # nothing has changed
        place.spend(2)


def test_the_key_of_an_upstream_is_told_nobody(tmp_path: Path) -> None:
    canary = "canary-of-the-upstreams-key"
    with two(tmp_path) as (place, second):
        own = place.config.read_text() + 'upstream_key_env = "KEY_THERE"\n'
        place.config.write_text(own)
        with place.service(KEY_THERE=canary) as serve:
            add(serve, second, upstream_key_env="KEY_THERE")
            place.upstream.process.kill()
            second.process.kill()
            serve.until(lambda: [one["state"] for one in listed(serve)] == ["away", "away"])
            told = [serve.get(path) for path in ("/admin/v1/status", REPLICAS, "/v1/models")]
            body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
            told.append(serve.post("/v1/chat/completions", body))
            assert told[-1][0] == 503
            assert serve.stop() == 0
        kept = b"".join(path.read_bytes() for path in place.data.rglob("*") if path.is_file())
    assert canary not in f"{told}{place.said}"
    assert canary.encode() not in kept


def test_weights_that_cannot_be_had_are_an_error_of_the_request(tmp_path: Path) -> None:
    with world(tmp_path) as place, place.service() as serve:
        told = refused(serve, "POST", "", {"model": "m", "engine": "llama", "weights": "no-such-weights"})
        assert told == (400, "invalid_value", "weights")
        assert len(listed(serve)) == 1


def test_one_more_child_of_the_service(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        place.config.write_text('[models.m]\nkind = "chat"\n[[models.m.deployments]]\nengine = "fake"\n')
        with place.service() as serve:
            status, new = serve.post(REPLICAS, {"model": "m", "engine": "fake"})
            assert (status, new["state"], len(serve.children())) == (200, "ready", 2)
            place.spend(2)
            assert serve.ask("DELETE", f"{REPLICAS}/{new['id']}", None)[0] == 200
            serve.until(lambda: len(serve.children()) == 1, within_s=30)
            place.spend(2)


def test_the_command_does_the_same(tmp_path: Path) -> None:
    with two(tmp_path) as (place, second), place.service():
        environ = {"SCIBOX_KEY": place.secret, "SCIBOX_BASE_URL": f"http://127.0.0.1:{place.port}/v1"}

        def run(*arguments: str) -> tuple[int, str]:
            done = scibox(place.data, "replicas", *arguments, environ=environ)
            return done.returncode, done.stdout + done.stderr

        assert "is not listed" not in run("list")[1]
        status, said = run("add", "m", second.url, "--upstream-model", "fake-model")
        assert (status, "serves m: ready" in said) == (0, True), said
        status, said = run("drain", place.upstream.url)
        assert (status, "draining, 0 calls in flight" in said) == (0, True), said
        place.spend(1)
        status, said = run("remove", second.url)
        assert (status, "last replica" in said) == (1, True), said
        assert run("undrain", "m")[0] == 0
        assert run("remove", second.url)[0] == 0
        until_at = time.monotonic() + 20
        while second.url in (said := run("list")[1]) and time.monotonic() < until_at:
            assert "leaving" in said  # until the next sweep
        assert (second.url in said, place.upstream.url in said) == (False, True), said
        assert run("drain", "nobody") == (
            1,
            "scibox: There is no replica 'nobody'; see: scibox replicas list\n",
        )
    assert len(second.outcomes()) == 1
