from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from embedder_process import Running, UnixConnection
from embedder_tiny import WIDTH, build

from scibox.engines.child import EXIT_BAD_SETTINGS, EXIT_CANNOT_LOAD
from scibox.engines.embedder.server import App


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("tiny")
    weights = build(folder / "weights")
    (weights / "embedder.json").write_text('{"max_tokens": 8}')
    running = Running(folder, weights).wait()
    yield running
    running.stop()


def test_vectors_of_a_list_come_in_order_with_exact_usage(tiny: Running) -> None:
    status, body = tiny.post("/v1/embeddings", {"model": "any", "input": ["one", "two three", "one"]})

    assert status == 200
    assert body["model"] == "tiny"
    assert [item["index"] for item in body["data"]] == [0, 1, 2]
    assert body["usage"] == {"prompt_tokens": 3 + 4 + 3, "total_tokens": 10}
    vectors = np.array([item["embedding"] for item in body["data"]], np.float32)
    assert vectors.shape == (3, WIDTH)
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.allclose(vectors[0], vectors[1], atol=0.01)


def test_base64_and_float_are_the_same_numbers(tiny: Running) -> None:
    _, floats = tiny.post("/v1/embeddings", {"input": "one two"})
    _, packed = tiny.post("/v1/embeddings", {"input": "one two", "encoding_format": "base64"})

    unpacked = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4")
    assert np.array_equal(np.array(floats["data"][0]["embedding"], np.float32), unpacked)


def test_what_is_too_long_is_refused_before_anything_runs(tiny: Running) -> None:
    status, body = tiny.post("/v1/embeddings", {"input": ["one", "one " * 9]})

    assert status == 400
    assert body["error"]["code"] == "context_length_exceeded"
    assert body["error"]["param"] == "input[1]"
    assert "input[1] has 11 LLM tokens" in body["error"]["message"]
    assert "at most 8" in body["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": "one", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "one", "dimensions": 3}, "dimensions"),
        (b"{", None),
        (b'{"input": "\\ud800"}', None),
    ],
)
def test_wrong_calls_are_answered_in_openai_s_shape(tiny: Running, body: object, param: str | None) -> None:
    status, answer = tiny.post("/v1/embeddings", body)

    assert status == 400
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["param"] == param


def test_models_says_what_the_gateway_must_know(tiny: Running) -> None:
    status, body = tiny.get("/v1/models")

    assert status == 200
    (entry,) = body["data"]
    assert (entry["id"], entry["max_model_len"], entry["dimensions"]) == ("tiny", 8, WIDTH)


def test_tokenize_speaks_as_llama_cpp_does(tiny: Running) -> None:
    assert tiny.post("/tokenize", {"content": "one two"}) == (200, {"tokens": [4, 5]})
    assert tiny.post("/tokenize", {"content": "one", "add_special": True}) == (200, {"tokens": [2, 4, 3]})


def test_unknown_paths_and_methods_are_named(tiny: Running) -> None:
    assert tiny.get("/v2/none")[0] == 404
    assert tiny.get("/v1/embeddings")[0] == 405


def test_it_ends_when_its_parent_goes(tmp_path: Path) -> None:
    running = Running(tmp_path, build(tmp_path / "weights")).wait()
    began = time.monotonic()

    assert running.stop() == 0
    assert time.monotonic() - began < 2


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's parent death signal")
def test_it_ends_when_its_parent_is_killed_and_its_input_stays_open(tmp_path: Path) -> None:
    weights = build(tmp_path / "weights")
    told = {"socket": str(tmp_path / "e.sock"), "weights": str(weights), "name": "tiny"}
    # The parent hands on a pipe whose writing end we keep, so only the death signal can end the child.
    parent = textwrap.dedent("""
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-m", "scibox.engines.embedder"], stdin=0)
        print(child.pid, flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(told).encode() + b"\n")
        process.stdin.flush()
        child = int(process.stdout.readline())
        until = time.monotonic() + 30
        while not (tmp_path / "e.sock").exists() and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        while _is_running(child) and time.monotonic() < until:
            time.sleep(0.02)
        assert not _is_running(child)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("line", [b"{}\n", b"no json\n", b""])
def test_wrong_settings_end_in_one_sentence(line: bytes) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "scibox.engines.embedder"],
        input=line,
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == EXIT_BAD_SETTINGS
    assert ended.stderr.startswith(b"scibox: The engine's settings cannot be read")
    assert b"Traceback" not in ended.stderr


def test_missing_weights_end_in_one_sentence(tmp_path: Path) -> None:
    running = Running(tmp_path, tmp_path / "none")
    assert running.process.stderr
    said = running.process.stderr.read()

    assert running.stop() == EXIT_CANNOT_LOAD
    assert b"there is no model.onnx in" in said
    assert b"Traceback" not in said


async def test_while_loading_health_and_calls_say_so() -> None:
    app = App("tiny")

    async def ask(method: str, path: str) -> tuple[int, dict[str, object]]:
        sent: list[dict[str, object]] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b'{"input":"one"}'}

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        await app({"type": "http", "method": method, "path": path}, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])

    assert await ask("GET", "/health") == (503, {"status": "loading"})
    status, body = await ask("POST", "/v1/embeddings")
    assert (status, body["error"]["code"]) == (503, "loading")


def test_a_call_whose_client_leaves_stops_at_once(tmp_path: Path) -> None:
    running = Running(tmp_path, build(tmp_path / "weights"), batch_tokens=1).wait()
    try:
        _, small = running.post("/v1/embeddings", {"input": ["one"] * 100})
        assert len(small["data"]) == 100
        leaver = UnixConnection(running.socket)
        # About a minute of work, one text per run.
        leaver.request("POST", "/v1/embeddings", json.dumps({"input": ["one"] * 300_000}).encode())
        time.sleep(2)
        before = _cpu_s(running.process.pid)
        time.sleep(1)
        assert _cpu_s(running.process.pid) - before > 0.05  # it was at work
        leaver.close()
        time.sleep(1)
        busy = _cpu_s(running.process.pid)
        time.sleep(1)
        assert _cpu_s(running.process.pid) - busy < 0.2
    finally:
        running.stop()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
