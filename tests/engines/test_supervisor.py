from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from plain_client import ask, chat

from scibox.engines.restarts import MAX_DELAY_S, Restarts
from scibox.engines.supervisor import Command, EngineEvent, EngineFailed, Supervisor


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> float:
    began = time.monotonic()
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)
    return time.monotonic() - began


Make = Callable[..., Supervisor]


@pytest.fixture
def seen() -> list[EngineEvent]:
    return []


@pytest.fixture
async def make(tmp_path: Path, seen: list[EngineEvent]) -> AsyncIterator[Make]:
    made: list[Supervisor] = []

    def build(module: str = "scibox.engines.fake", **settings: object) -> Supervisor:
        socket = tmp_path / "run" / "e.sock"
        line = json.dumps({"socket": str(socket), **settings}).encode()
        env = {"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}{os.pathsep}{tmp_path}"}
        command = Command(module, line, env)
        supervisor = Supervisor("small", command, socket, report=seen.append, ready_timeout_s=10.0)
        made.append(supervisor)
        return supervisor

    yield build
    for supervisor in made:
        await supervisor.stop()


async def test_is_ready_when_health_answers(make: Make, seen: list[EngineEvent]) -> None:
    supervisor = make(load_s=0.3)
    await supervisor.start()
    assert supervisor.state == "starting"

    await supervisor.wait_ready()

    assert supervisor.state == "ready"
    assert (await ask(f"unix:{supervisor.socket}", "/v1/chat/completions", chat()))[0] == 200
    assert supervisor.socket.parent.stat().st_mode & 0o777 == 0o700
    assert [event.state for event in seen] == ["starting", "ready"]


async def test_a_killed_child_is_back_at_once(make: Make, seen: list[EngineEvent]) -> None:
    supervisor = make()
    await supervisor.start()
    await supervisor.wait_ready()
    first = supervisor.pid
    assert first is not None

    os.kill(first, signal.SIGKILL)
    await until(lambda: supervisor.state == "restarting")
    await supervisor.wait_ready()

    assert supervisor.pid not in (first, None)
    assert supervisor.restarts == 1
    assert "SIGKILL" in seen[2].detail
    assert (await ask(f"unix:{supervisor.socket}", "/health"))[0] == 200


async def test_stop_leaves_no_process_and_no_way_to_wait(make: Make) -> None:
    supervisor = make()
    await supervisor.start()
    await supervisor.wait_ready()
    pid = supervisor.pid
    assert pid is not None

    await supervisor.stop()

    assert not is_alive(pid)
    assert (supervisor.state, supervisor.pid) == ("stopped", None)
    with pytest.raises(EngineFailed, match="was stopped"):
        await supervisor.wait_ready()


async def test_can_start_again_after_a_stop(make: Make) -> None:
    supervisor = make()
    for _ in range(2):
        await supervisor.start()
        await supervisor.wait_ready()
        assert supervisor.state == "ready"
        assert is_alive(supervisor.pid or 0)
        await supervisor.stop()
        assert supervisor.state == "stopped"


async def test_a_failure_that_no_restart_cures_is_one_sentence(make: Make, seen: list[EngineEvent]) -> None:
    supervisor = make(unknown_setting=1)
    await supervisor.start()

    with pytest.raises(
        EngineFailed, match="small cannot start: The engine's settings cannot be read"
    ) as raised:
        await supervisor.wait_ready()

    assert "\n" not in raised.value.message
    assert supervisor.state == "failed"
    assert [event.state for event in seen] == ["starting", "failed"]


async def test_a_child_that_cannot_start_shows_its_last_lines(make: Make) -> None:
    supervisor = make(module="scibox.engines.nowhere")
    await supervisor.start()

    with pytest.raises(EngineFailed, match=r"exit code 1.*\n.*No module named scibox.engines.nowhere"):
        await supervisor.wait_ready()


async def test_children_of_the_child_end_too(make: Make, tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(
        textwrap.dedent("""
        import asyncio, pathlib, signal, subprocess, sys
        from scibox.engines import child, fake
        settings = child.begin(fake.Settings)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
        pathlib.Path(settings.socket).with_name("pid").write_text(str(grandchild.pid))
        asyncio.run(fake.serve(settings))
        """)
    )
    supervisor = make(module="stubborn")
    await supervisor.start()
    await supervisor.wait_ready()
    child, grandchild = supervisor.pid, int(supervisor.socket.with_name("pid").read_text())
    assert child is not None
    assert is_alive(grandchild)

    began = time.monotonic()
    await supervisor.stop(grace_s=0.3)

    assert time.monotonic() - began < 2.0
    await until(lambda: not is_alive(child) and not is_alive(grandchild), 1.0)


PARENT = """
import asyncio, json, pathlib, sys
from scibox.engines.supervisor import Command, Supervisor

async def main():
    socket = pathlib.Path(sys.argv[1])
    command = Command("scibox.engines.fake", json.dumps({"socket": str(socket)}).encode())
    supervisor = Supervisor("small", command, socket, report=lambda event: None)
    await supervisor.start()
    await supervisor.wait_ready()
    print(supervisor.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("kill_with", [signal.SIGKILL, signal.SIGTERM])
def test_no_orphan_is_left_when_the_parent_is_killed(tmp_path: Path, kill_with: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "e.sock")], stdout=subprocess.PIPE
    ) as parent:
        try:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            assert is_alive(child)
        finally:
            parent.send_signal(kill_with)
        parent.wait()
        began = time.monotonic()
        while is_alive(child) and time.monotonic() - began < 1.0:
            time.sleep(0.01)
        survived = is_alive(child)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        assert not survived


async def test_a_socket_path_that_the_system_refuses_is_told_before_the_start(tmp_path: Path) -> None:
    supervisor = Supervisor("long", Command("x", b"{}"), tmp_path / ("x" * 120), report=lambda event: None)

    with pytest.raises(EngineFailed, match="shorter data folder"):
        await supervisor.start()


def test_restarts_back_off_and_forget_after_a_minute_of_health() -> None:
    policy = Restarts().ready(0.0)
    delays = []
    for _ in range(9):
        policy = policy.ended(1.0)
        delays.append(policy.delay_s)
    assert delays == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]

    assert policy.ready(10.0).ended(69.0).delay_s == 30.0
    assert policy.ready(10.0).ended(70.0).delay_s == 0.0


def test_gives_up_only_on_an_engine_that_never_answered() -> None:
    assert Restarts().ended(0.0).is_hopeless(65)
    assert not Restarts().ended(0.0).is_hopeless(-11)
    assert Restarts().ended(0.0).ended(1.0).ended(2.0).is_hopeless(-11)
    assert not Restarts().ready(0.0).ended(1.0).is_hopeless(65)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1000)), max_size=50))
def test_delays_are_bounded_whatever_happens(lives: list[tuple[bool, float]]) -> None:
    policy, now = Restarts(), 0.0
    for answered, lasted_s in lives:
        if answered:
            policy = policy.ready(now)
        now += lasted_s
        policy = policy.ended(now)
        assert 0.0 <= policy.delay_s <= MAX_DELAY_S


def test_a_child_that_is_killed_at_its_birth_is_started_again(tmp_path: Path) -> None:
    """On uvloop, as the service runs: there its pipe may be closed before its settings are written."""
    kills = 12
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    others = set(children.read_text().split())  # of the whole run: a database for other tests

    def kill() -> None:
        seen: set[str] = set()
        end = time.monotonic() + 30.0
        while len(seen) < kills and time.monotonic() < end:
            for pid in set(children.read_text().split()) - seen - others:
                seen.add(pid)
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.0002)

    async def live() -> None:
        socket = tmp_path / "e.sock"
        line = json.dumps({"socket": str(socket)}).encode()
        supervisor = Supervisor("small", Command("scibox.engines.fake", line), socket, report=lambda _: None)
        await supervisor.start()
        await supervisor.wait_ready()
        killing = asyncio.create_task(asyncio.to_thread(kill))
        while not killing.done():
            supervisor._policy = Restarts(was_ready=True)  # the next start comes at once
            await asyncio.sleep(0.01)
        await until(lambda: supervisor.state == "ready", 30.0)
        await supervisor.stop()

    uvloop.run(live())
