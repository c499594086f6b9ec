"""Health is true (PROMISES D3): each thing that the service needs is taken away in turn, and given back."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from scripted import upstream
from world import world

from live import Serve, scibox

FAKE = '[models.own]\nkind = "chat"\n[[models.own.deployments]]\nengine = "fake"\n'


def broken(serve: Serve) -> dict[str, str]:
    """What is broken, in words, by part."""
    _, body = serve.get("/admin/v1/status")
    return {one["part"]: one["message"] for one in body["broken"]}


def is_ready(serve: Serve) -> bool:
    return serve.get("/ready")[0] == 200


def test_a_sound_service_says_so(tmp_path: Path) -> None:
    with world(tmp_path, FAKE) as place, place.service() as serve:
        serve.until(lambda: serve.get("/admin/v1/status")[1]["status"] == "ok", within_s=10)
        status, body = serve.get("/admin/v1/status")
        assert status == 200
        assert body["broken"] == body["hurdles"] == []
        assert [(one["name"], one["can_answer"], one["running"]) for one in body["models"]] == [
            ("own", True, 0),
            ("m", True, 0),
        ]
        assert body["uptime_s"] > 0
        status, ready = serve.get("/ready", secret="none")
        assert (status, ready) == (200, {"status": "ready", "reasons": []})
        assert serve.get("/admin/v1/status", secret="none")[0] == 401


def test_an_upstream_that_is_away(tmp_path: Path) -> None:
    """Started without its upstream, it says so, and is ready by itself when that comes."""
    with world(tmp_path) as place, socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else gets that port meanwhile
        port = held.getsockname()[1]
        text = place.config.read_text()
        place.config.write_text(text.replace(place.upstream.url, f"http://127.0.0.1:{port}/v1"))
        with place.service() as serve:
            serve.until(lambda: not is_ready(serve), within_s=10)
            assert serve.get("/health")[0] == 200
            [(part, words)] = broken(serve).items()
            assert part == f"upstream http://127.0.0.1:{port}/v1 of m"
            assert "check that it runs" in words
            reasons = serve.get("/ready")[1]["reasons"]
            assert "127.0.0.1" not in str(reasons)  # anybody may read them
            held.close()
            with upstream(tmp_path / "late.log", port=port):
                serve.until(lambda: is_ready(serve), within_s=15)
                assert broken(serve) == {}


def test_an_engine_that_dies(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        place.config.write_text(FAKE)
        with place.service() as serve:
            assert is_ready(serve)
            for _ in range(3):  # the first restart comes at once, later ones after a while
                while not (engines := serve.children()):
                    time.sleep(0.02)
                os.kill(engines[0], signal.SIGKILL)
                serve.until(lambda: not is_ready(serve), within_s=10)
            assert "engine of own" in broken(serve)
            assert serve.get("/health")[0] == 200
            serve.until(lambda: is_ready(serve), within_s=30)
            assert broken(serve) == {}


async def test_a_service_that_stops(tmp_path: Path) -> None:
    with world(tmp_path, chunks=["w"] * 20, chunk_delay_s=0.2) as place, place.service() as serve:
        stream = asyncio.create_task(place.call())
        async with asyncio.timeout(10):
            while serve.get("/admin/v1/status")[1]["calls_in_flight"] < 1:
                await asyncio.sleep(0.05)
        serve.process.send_signal(signal.SIGTERM)
        serve.until(lambda: not is_ready(serve), within_s=5)
        assert serve.get("/health")[0] == 200
        assert serve.get("/admin/v1/status")[1]["status"] == "not_ready"
        assert (await stream).end == "whole"


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("batches.db", "batches"),
        ("keys.db", "database of keys"),
        ("ledger.db", "database of the ledger"),
    ],
)
def test_a_database_that_is_away(tmp_path: Path, file: str, part: str) -> None:
    """None of them is a reason not to answer calls."""
    with world(tmp_path) as place, place.service() as serve:
        serve.until(lambda: serve.get("/admin/v1/status")[1]["status"] == "ok", within_s=10)
        with place.without(file):
            place.spend(1)
            serve.until(lambda: part in broken(serve), within_s=40)
            assert is_ready(serve)
            place.spend(1)
        serve.until(lambda: broken(serve) == {}, within_s=20)


def test_the_command_says_it_in_words(tmp_path: Path) -> None:
    with world(tmp_path, FAKE) as place, place.service() as serve:
        serve.until(lambda: serve.get("/admin/v1/status")[1]["status"] == "ok", within_s=10)
        base = {"SCIBOX_BASE_URL": f"{serve.base_url}/v1", "SCIBOX_KEY": place.secret}
        well = scibox(place.data, "status", "--config", str(place.config), environ=base)
        assert (well.returncode, well.stderr) == (0, "")
        assert well.stdout.startswith("All is well.")
        assert re.search(r"^own +yes +0 of 128 +0$", well.stdout, re.MULTILINE)

        place.upstream.process.kill()
        serve.post("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "x"}]})
        serve.until(lambda: "check that it runs" in str(broken(serve)), within_s=15)
        ill = scibox(place.data, "status", "--config", str(place.config), environ=base)
        assert ill.returncode == 1
        assert "not all is well" in ill.stdout
        assert "\n      It cannot be reached: check that it runs" in ill.stdout

        member = place.member("team")
        refused = scibox(place.data, "status", "--key", member, environ={"SCIBOX_BASE_URL": serve.base_url})
        assert refused.returncode == 1
        assert "operator" in refused.stderr
    nobody = scibox(place.data, "status", environ=base)
    assert nobody.returncode == 1
    assert "is the service running?" in nobody.stderr
