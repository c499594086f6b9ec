"""vLLM as a child of ours: its command line, its progress in words, its life and its end.

With SCIBOX_TEST_VLLM=1 also the real one: `vllm` must be on the PATH (or SCIBOX_TEST_VLLM_COMMAND names it), and
SCIBOX_TEST_VLLM_WEIGHTS are weights that it can read.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from world import World, world

from live import scibox
from scibox.engines import vllm
from scibox.engines.supervisor import EngineEvent, EngineFailed, Supervisor
from scibox.engines.vllm import Settings, arguments, environment, stages

STAND_IN = Path(__file__).parents[1] / "support" / "stand_in_vllm.py"
SECRET = "canary-of-the-childs-key"


def settings(**more: Any) -> Settings:
    return Settings(**{"socket": "/run/e.sock", "weights": "org/m", "name": "m", "secret": SECRET, **more})


def test_the_command_line_has_what_is_configured_and_no_secret() -> None:
    line = arguments(
        settings(
            tensor_parallel=2,
            gpu_memory=0.85,
            context=8192,
            slots=64,
            quantization="awq",
            options=(("enable_prefix_caching", True), ("async-scheduling", False), ("dtype", "bfloat16")),
            command=("/opt/vllm/bin/vllm",),
        )
    )
    assert " ".join(line) == (
        "/opt/vllm/bin/vllm serve org/m --served-model-name m --uds /run/e.sock --tensor-parallel-size 2 "
        "--gpu-memory-utilization 0.85 --max-model-len 8192 --max-num-seqs 64 --quantization awq "
        "--enable-prefix-caching --no-async-scheduling --dtype bfloat16"
    )
    assert SECRET not in " ".join(line)
    own = environment(settings(environment=(("A", "1"),)), {"A": "0", "B": "2", "VLLM_API_KEY": "old"})
    assert own == {"A": "1", "B": "2", "VLLM_API_KEY": SECRET}


def test_what_is_not_said_is_vllms_own_choice() -> None:
    assert arguments(settings()) == [
        *("vllm", "serve", "org/m", "--served-model-name", "m", "--uds", "/run/e.sock")
    ]


def test_each_part_of_its_start_is_told_once() -> None:
    lines = [
        "INFO something else",
        "Starting to load model org/m...",
        "Starting to load model org/m...",
        "Loading safetensors checkpoint shards:  51% Completed",
        "Loading safetensors checkpoint shards:  58% Completed",
        "Capturing CUDA graph shapes: 100%|####| 35/35",
    ]
    assert list(stages(lines)) == ["loads its weights", "loads its weights (50 %)", "captures graphs (100 %)"]


Make = Callable[..., Supervisor]


@pytest.fixture
async def events() -> list[EngineEvent]:
    return []


@pytest.fixture
async def make(tmp_path: Path, events: list[EngineEvent]) -> AsyncIterator[Make]:
    made: list[Supervisor] = []

    def build(mood: str = "", go: Path | None = None, **more: Any) -> Supervisor:
        socket = tmp_path / "e.sock"
        own = settings(
            socket=str(socket),
            context=512,
            command=(sys.executable, str(STAND_IN)),
            environment=(
                ("STAND_IN_SEEN", str(tmp_path / "seen")),
                ("STAND_IN_MOOD", mood),
                ("STAND_IN_OWN", "yes"),
                *(() if go is None else (("STAND_IN_GO", str(go)),)),
            ),
            **more,
        )
        supervisor = Supervisor(
            "m", vllm.command(own), socket, report=events.append, ready_timeout_s=120.0, grace_s=20.0
        )
        made.append(supervisor)
        return supervisor

    yield build
    for one in made:
        await one.stop(0.1)


def seen(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "seen").read_text()))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(holds: Callable[[], bool], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.02)


async def test_it_starts_tells_its_progress_and_ends_itself_when_told(
    make: Make, tmp_path: Path, events: list[EngineEvent]
) -> None:
    child = make(go=tmp_path / "go")
    await child.start()
    await until(lambda: "opens its door" in child.words)
    (tmp_path / "go").touch()
    await child.wait_ready()
    told = [event.detail for event in events if event.state == "starting" and event.detail]
    assert [words.removeprefix("The engine m ").partition(";")[0] for words in told] == [
        "downloads its weights (10 %)",
        "loads its weights",
        "loads its weights (50 %)",
        "loads its weights (100 %)",
        "measures the memory for its cache",
        "captures graphs (40 %)",
        "opens its door",
    ]
    own = seen(tmp_path)
    assert (own["key"], own["own"]) == (SECRET, "yes")
    for pid in [*own["pids"], child.pid]:
        assert SECRET not in Path(f"/proc/{pid}/cmdline").read_text()
    await child.stop()
    assert seen(tmp_path)["ended"]  # by itself, within its grace
    assert not is_alive(own["pids"][0])
    await until(lambda: not any(is_alive(pid) for pid in own["pids"]))


async def test_one_that_does_not_listen_is_killed_with_all_that_it_started(
    make: Make, tmp_path: Path
) -> None:
    child = make("stubborn")
    await child.start()
    await child.wait_ready()
    await child.stop(0.2)
    await until(lambda: not any(is_alive(pid) for pid in seen(tmp_path)["pids"]))


async def test_one_that_dies_is_started_again_without_what_it_left(make: Make, tmp_path: Path) -> None:
    child = make()
    await child.start()
    await child.wait_ready()
    before = seen(tmp_path)["pids"]
    os.kill(before[0], signal.SIGKILL)
    await until(lambda: child.state == "ready" and child.restarts == 1)
    assert not any(is_alive(pid) for pid in before)


async def test_one_whose_keeper_dies_does_not_stay(make: Make, tmp_path: Path) -> None:
    child = make("stubborn")
    await child.start()
    await child.wait_ready()
    before = seen(tmp_path)["pids"]
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    await until(lambda: child.state == "ready" and child.restarts == 1)
    assert not any(is_alive(pid) for pid in before)


async def test_one_that_never_starts_says_what_it_printed(make: Make) -> None:
    child = make("dies")
    await child.start()
    with pytest.raises(EngineFailed, match="CUDA out of memory"):
        await child.wait_ready()


async def test_without_the_program_it_says_what_to_install(tmp_path: Path) -> None:
    own = settings(socket=str(tmp_path / "e.sock"), command=("/nowhere/vllm",))
    child = Supervisor("m", vllm.command(own), tmp_path / "e.sock", report=lambda event: None)
    await child.start()
    with pytest.raises(EngineFailed, match="pip install vllm"):
        await child.wait_ready()


def configuration(folder: Path, command: list[str], **more: str) -> str:
    lines = "\n".join(f"{name} = {value}" for name, value in more.items())
    return (
        '[models.m]\nkind = "chat"\n[[models.m.deployments]]\nengine = "vllm"\n'
        f"command = {json.dumps(command)}\n{lines}\n"
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_the_service_answers_with_it_and_leaves_nothing_behind(tmp_path: Path, workers: int) -> None:
    more = {
        "weights": '"org/m"',
        "context": "777",
        "slots": "5",
        "environment": f'{{ STAND_IN_SEEN = "{tmp_path}/seen", STAND_IN_GO = "{tmp_path}/go" }}',
    }
    with world(tmp_path) as place:
        place.config.write_text(
            f"[server]\nworkers = {workers}\n[routing]\nhealth_every_s = 0.2\n"
            + configuration(tmp_path, [sys.executable, str(STAND_IN)], **more)
        )
        hearing = threading.Thread(target=go_when_heard, args=(place, tmp_path / "go"), daemon=True)
        hearing.start()
        with place.service() as serve:
            place.spend(3)
            [replica] = serve.get("/admin/v1/replicas")[1]["data"]
            assert (replica["engine"], replica["kind"], replica["slots"]) == ("vllm", "vllm", 5)
            [card] = serve.get("/v1/models")[1]["data"]
            assert card["max_model_len"] == 777
            key = seen(tmp_path)["key"]
            assert serve.stop() == 0
        own = seen(tmp_path)
        assert own["knocked"] == [f"Bearer {key}"]
        assert key not in place.said
        serve_until_gone(own["pids"])
        with place.service() as serve:  # and the second one is killed
            own = seen(tmp_path)
            assert own["key"] != key  # another for each life
            serve.process.kill()
            serve.process.wait(30)
            serve_until_gone(own["pids"])


def go_when_heard(place: World, go: Path) -> None:
    """Let it listen when the service's log has told how far it is."""
    while "The engine m captures graphs (40 %)" not in (
        place.serve.said() if hasattr(place, "serve") else ""
    ):
        time.sleep(0.02)
    go.touch()


def serve_until_gone(pids: list[int]) -> None:
    asyncio.run(until(lambda: not any(is_alive(pid) for pid in pids)))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('engine = "vllm"', "needs weights"),
        ('engine = "vllm"\nweights = "/nowhere/m"', "there is nothing at /nowhere/m"),
        ('engine = "vllm"\nweights = "--config=x"', "is no name of the model hub"),
        ('engine = "vllm"\nweights = "org/m"\noptions = { port = 1 }', "'port' is set by SciBox itself"),
        ('engine = "vllm"\nweights = "org/m"\noptions = { max_model_len = 1 }', "is set by SciBox itself"),
        ('engine = "vllm"\nweights = "org/m"\noptions = { "--x" = 1 }', "leave the '--' away"),
        ('engine = "vllm"\nweights = "org/m"\noptions = 3', "options must be a table"),
        ('engine = "vllm"\nweights = "org/m"\nenvironment = { A = 1 }', "must be a table of texts"),
        ('engine = "vllm"\nweights = "org/m"\nenvironment = { VLLM_API_KEY = "x" }', "is made by SciBox"),
        ('engine = "vllm"\nweights = "org/m"\ngpu_memory = 2', "gpu_memory must be a number from 0.01 to 1"),
        (
            'engine = "llama"\nweights = "smollm2-135m"\ntensor_parallel = 2',
            "'tensor_parallel' means nothing",
        ),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(tmp_path: Path, lines: str, words: str) -> None:
    path = tmp_path / "scibox.toml"
    path.write_text(f'[models.m]\nkind = "chat"\n[[models.m.deployments]]\n{lines}\n')
    said = scibox(tmp_path / "data", "check", "--config", str(path))
    assert said.returncode == 1
    assert words in said.stderr


@pytest.mark.timeout(1800)
@pytest.mark.skipif(os.environ.get("SCIBOX_TEST_VLLM") != "1", reason="needs a vLLM, and minutes")
def test_the_real_one(tmp_path: Path) -> None:
    program = os.environ.get("SCIBOX_TEST_VLLM_COMMAND", "vllm")
    weights = os.environ.get("SCIBOX_TEST_VLLM_WEIGHTS", "HuggingFaceTB/SmolLM2-135M-Instruct")
    with world(tmp_path) as place:
        more = {"weights": json.dumps(weights), "context": "1024", "options": "{ enforce-eager = true }"}
        place.config.write_text(configuration(tmp_path, [program], **more))
        with place.service() as serve:
            place.spend(2)
            [card] = serve.get("/v1/models")[1]["data"]
            assert card["max_model_len"] == 1024
            assert serve.stop() == 0
    left = subprocess.run(["pgrep", "-f", f"{program} serve"], capture_output=True, text=True, check=False)
    assert left.stdout == ""
