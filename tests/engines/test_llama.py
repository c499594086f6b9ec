from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import xllamacpp
from plain_client import ask

from scibox.engines import llama
from scibox.engines.llama import Settings, configure
from scibox.engines.supervisor import EngineFailed, Supervisor


def settings(**more: object) -> Settings:
    return Settings(**{"socket": "/s/e.sock", "weights": "/w.gguf", "name": "small", **more})  # type: ignore[arg-type]


def configured(cores: int = 2, **more: object) -> xllamacpp.CommonParams:
    return configure(xllamacpp.CommonParams(), settings(**more), cores)


def test_context_is_meant_for_each_slot() -> None:
    params = configured(slots=3, context=1000)

    assert (params.n_parallel, params.n_ctx) == (3, 3000)


def test_listens_on_the_socket_alone_and_shows_nothing_else() -> None:
    params = configured()

    assert params.hostnames == ["/s/e.sock"]
    assert params.cors_origins == ""
    shown = (
        params.ui,
        params.ui_mcp_proxy,
        params.endpoint_slots,
        params.endpoint_props,
        params.endpoint_metrics,
    )
    assert not any(shown)
    assert params.slot_save_path == ""


def test_threads_are_the_cores_unless_they_are_set() -> None:
    assert configured(cores=6).cpuparams.n_threads == 6
    params = configured(cores=6, threads=1)
    assert (params.cpuparams.n_threads, params.cpuparams_batch.n_threads) == (1, 1)


def test_an_embedded_text_fits_into_one_batch() -> None:
    assert configured(batch=64, context=512).n_ubatch == 64
    params = configured(batch=64, context=512, embedding=True, pooling="mean")
    assert params.n_batch == params.n_ubatch == 512
    assert int(params.pooling_type) == llama.POOLING["mean"]


def test_the_environment_of_the_operator_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert llama.command(settings()).env == {"GOMP_SPINCOUNT": "500"}

    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    assert llama.command(settings()).env == {}


async def started(tmp_path: Path, **more: object) -> AsyncIterator[Supervisor]:
    socket = tmp_path / "e.sock"
    command = llama.command(settings(socket=str(socket), **more))
    supervisor = Supervisor("small", command, socket, report=lambda event: None)
    await supervisor.start()
    yield supervisor
    await supervisor.stop()


async def test_missing_weights_are_one_sentence(tmp_path: Path) -> None:
    async for supervisor in started(tmp_path, weights=str(tmp_path / "none.gguf")):
        with pytest.raises(
            EngineFailed, match=r"The weights of small are missing: there is no file .*none\.gguf$"
        ):
            await supervisor.wait_ready()


async def test_weights_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF, or is it?" * 100)
    async for supervisor in started(tmp_path, weights=str(tmp_path / "bad.gguf")):
        with pytest.raises(EngineFailed, match=r"llama\.cpp cannot serve .*bad\.gguf"):
            await supervisor.wait_ready()


async def test_an_unknown_pooling_names_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "w.gguf").touch()
    async for supervisor in started(tmp_path, weights=str(tmp_path / "w.gguf"), pooling="best"):
        with pytest.raises(EngineFailed, match="none, mean, cls, last, rank"):
            await supervisor.wait_ready()


@pytest.mark.real
async def test_opens_no_port_and_answers_no_other_route(tmp_path: Path) -> None:
    folder = os.environ.get("SCIBOX_TEST_MODELS")
    found = sorted(Path(folder).glob("smollm2-135m-instruct/*.gguf")) if folder else []
    if not found:
        pytest.skip("SCIBOX_TEST_MODELS names no folder with smollm2-135m-instruct/*.gguf")
    async for supervisor in started(tmp_path, weights=str(found[0]), slots=1, context=256):
        await supervisor.wait_ready()

        assert open_ports(supervisor.pid) == []
        address = f"unix:{supervisor.socket}"
        for path in ("/slots", "/metrics", "/tools", "/cors-proxy"):
            assert (await ask(address, path))[0] >= 400, path


def open_ports(pid: int | None) -> list[str]:
    """Local addresses that the process listens on: its sockets' inodes, looked up in the system's tables."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed while we look
            links.append(str(link.readlink()))
    inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    assert inodes
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()
    ]
    return [row[1] for row in rows if row[9] in inodes]
