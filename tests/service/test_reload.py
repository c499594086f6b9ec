"""A changed configuration is taken over while calls run, whole or not at all."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import ssl
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from world import World, world

from live import SERVE, Serve, environment, free_port
from rig import CHAT, KEYS, SECRET, rig
from scibox.core import secret
from scibox.engines.fake_script import Script

Change = Callable[[World], Any]


def model(name: str, *lines: str, deployment: str = 'engine = "fake"') -> str:
    told = "\n".join(lines)
    return f'[models.{name}]\nkind = "chat"\n{told}\n[[models.{name}.deployments]]\n{deployment}\n'


def by_signal(place: World) -> None:
    """SIGHUP, and the line in the log that says how it ended."""
    before = place.serve.said().count("the configuration: ")
    place.serve.process.send_signal(signal.SIGHUP)
    place.serve.until(lambda: place.serve.said().count("the configuration: ") > before)


def by_call(place: World) -> tuple[int, Any]:
    return place.serve.post("/admin/v1/reload", {})


def names(serve: Serve) -> list[str]:
    return [card["id"] for card in serve.get("/v1/models")[1]["data"]]


async def begun(place: World, count: int) -> None:
    """Until so many calls are in flight."""
    async with asyncio.timeout(30):
        while place.serve.get("/admin/v1/status")[1]["calls_in_flight"] < count:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("reload", [by_signal, by_call])
async def test_models_come_and_go_while_calls_run(tmp_path: Path, reload: Change) -> None:
    script: dict[str, Any] = {"chunks": ["word "] * 30, "chunk_delay_s": 0.1}
    with world(tmp_path, model("stays") + model("goes"), **script) as place, place.service() as serve:
        before = serve.children()
        running = [asyncio.create_task(place.call()) for _ in range(5)]
        await begun(place, 5)
        place.config.write_text(model("stays", 'aliases = ["again"]') + model("comes"))
        await asyncio.to_thread(reload, place)

        assert names(serve) == ["stays", "comes", "again"]
        assert (await place.call(model="comes")).end == "whole"
        assert (await place.call(model="again")).end == "whole"
        gone = await place.call(model="m")
        assert (gone.status, gone.code) == (404, "model_not_found")
        told = await asyncio.gather(*running)
        serve.until(lambda: len(serve.children()) == 2, within_s=10)
        after = serve.children()
        assert len(set(before) & set(after)) == 1
        assert "models added: comes; models changed: stays; models removed: goes, m" in serve.said()

    assert [(one.end, one.words) for one in told] == [("whole", 30)] * 5


async def test_a_call_uses_its_route_until_it_has_ended() -> None:
    """What `Deployed` waits for before it stops an engine (tests/test_deployed.py)."""
    async with rig() as r:
        route = r.door.pipeline.directory.splitting_route(KEYS[secret.digest(SECRET)], "chatty")
        r.engine.script = Script(first_chunk_delay_s=60)
        for stream in (True, False):
            call = asyncio.create_task(r.client.post("/v1/chat/completions", json={**CHAT, "stream": stream}))
            async with asyncio.timeout(10):
                while not route.users:
                    await asyncio.sleep(0.01)
            call.cancel()
            async with asyncio.timeout(10):
                while route.users:
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server]\nprot = 1\n", ["'port'", "scibox.toml:2"]),
        ("[[[", ["scibox.toml:1"]),
        (
            "[server]\nworkers = 3\n[embeddings]\ncache_disk_bytes = 0\n",
            ["server.workers cannot change", "embeddings.cache_disk_bytes cannot change"],
        ),
        (model("bad", deployment='engine = "llama"\nweights = "/nowhere/m.gguf"'), ["/nowhere/m.gguf"]),
    ],
)
def test_a_wrong_one_is_refused_whole(tmp_path: Path, text: str, words: list[str]) -> None:
    with world(tmp_path) as place, place.service() as serve:
        place.configure(text + model("new"))
        status, body = by_call(place)
        assert (status, body["error"]["code"]) == (409, "configuration_refused")
        assert all(word in body["error"]["message"] for word in words), body
        by_signal(place)
        assert all(word in serve.said() for word in words)
        assert names(serve) == ["m"]
        assert serve.children() == []


def test_a_new_engine_that_cannot_start_leaves_everything_as_it_was(tmp_path: Path) -> None:
    weights = tmp_path / "m.gguf"
    with world(tmp_path, model("stays")) as place, place.service() as serve:
        before = serve.children()
        # A header that can be read, and nothing behind it.
        weights.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
        place.config.write_text(
            model("stays") + model("bad", deployment=f'engine = "llama"\nweights = "{weights}"')
        )
        status, body = by_call(place)
        assert (status, body["error"]["code"]) == (409, "configuration_refused")
        assert "bad" in body["error"]["message"]
        assert names(serve) == ["stays", "m"]
        serve.until(lambda: serve.children() == before, within_s=10)


def test_the_settings_of_the_door_change_too(tmp_path: Path) -> None:
    with world(tmp_path) as place, place.service() as serve:
        place.configure("[server]\nmax_body_bytes = 2000\n")
        status, body = by_call(place)
        assert (status, body["settings"]) == (200, ["server.max_body_bytes"])
        large = {"model": "m", "messages": [{"role": "user", "content": "x" * 3000}]}
        assert serve.post("/v1/chat/completions", large)[0] == 413


def test_only_operators_reload(tmp_path: Path) -> None:
    with world(tmp_path) as place, place.service() as serve:
        member = place.member("team")
        assert serve.ask("POST", "/admin/v1/reload", {}, member)[0] == 403
        assert serve.ask("GET", "/admin/v1/status", None, member)[0] == 403


def test_a_renewed_certificate_is_shown_to_new_connections(tmp_path: Path) -> None:
    first, second = trustme.CA(), trustme.CA()
    paths = tmp_path / "key.pem", tmp_path / "cert.pem"

    def write(authority: trustme.CA) -> None:
        made = authority.issue_cert("localhost")
        made.private_key_pem.write_to_path(paths[0])
        made.cert_chain_pems[0].write_to_path(paths[1])

    def is_trusted(authority: trustme.CA) -> bool:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        try:
            urllib.request.urlopen(f"https://localhost:{place.port}/health", context=context, timeout=5)
        except OSError:
            return False
        return True

    write(first)
    tls = '[server]\ntls_certificate = "cert.pem"\ntls_key = "key.pem"\n'
    with world(tmp_path, tls) as place, place.service() as serve:
        assert is_trusted(first)
        write(second)
        paths[0].write_text("no key")
        by_signal(place)
        assert "cannot be used" in serve.said()
        assert is_trusted(first)
        write(second)
        by_signal(place)
        assert is_trusted(second)
        assert not is_trusted(first)


def test_a_terminal_that_is_closed_ends_the_service(tmp_path: Path) -> None:
    """SIGHUP means two things; with a terminal of its own that is gone it is the older one."""
    with world(tmp_path) as place:
        main, other = pty.openpty()
        command = [
            "setsid",
            "--ctty",
            *SERVE,
            "serve",
            "--config",
            str(place.config),
            "--port",
            str(free_port()),
        ]
        process = subprocess.Popen(
            command,
            env=environment(place.data),
            stdin=other,
            stdout=other,
            stderr=other,
        )
        os.close(other)
        said = b""
        while b"Ready" not in said:
            said += os.read(main, 65536)
        process.send_signal(signal.SIGHUP)
        while b"the configuration: " not in said:
            said += os.read(main, 65536)
        os.close(main)
        assert process.wait(30) == 0
