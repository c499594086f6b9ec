"""The whole service as a process, on the default models: start, serve, kill, end."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import trustme

from live import Serve, free_port, scibox

pytestmark = pytest.mark.real

CHAT: dict[str, Any] = {
    "model": "smollm2-135m-instruct",
    "messages": [{"role": "user", "content": "Name three colours."}],
    "max_tokens": 16,
}
LONG = {**CHAT, "max_tokens": 400, "ignore_eos": True}


def is_alive(pid: int) -> bool:
    """Whether a process runs (one that has ended and is not collected yet does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until_gone(pids: list[int], within_s: float) -> None:
    end = time.monotonic() + within_s
    while any(map(is_alive, pids)):
        assert time.monotonic() < end, "processes are left over"
        time.sleep(0.02)


def test_first_start_second_start_and_end(data_with_models: Path) -> None:
    with Serve(data_with_models) as serve:
        serve.until_said("Ready")
        secret = serve.operator_secret()
        pasted = next(line for line in serve.said().splitlines() if line.startswith("curl "))
        answer = subprocess.run(
            ["bash", "-c", pasted], capture_output=True, text=True, check=True, timeout=60
        )
        assert json.loads(answer.stdout)["choices"][0]["message"]["content"]
        status, body = serve.post(
            "/v1/embeddings", {"model": "multilingual-e5-small", "input": ["осень", "autumn"]}, secret
        )
        assert status == 200
        assert [len(item["embedding"]) for item in body["data"]] == [384, 384]
        children = serve.children()
        assert len(children) == 2
        assert serve.stop(signal.SIGINT) == 0
        until_gone(children, 1)
        assert serve.said().rstrip().endswith("Stopped.")

    with Serve(data_with_models) as serve:
        serve.until_said("Ready")
        assert not re.search(r"sk-scibox-\w+", serve.said())  # shown once
        assert serve.get("/v1/key", secret)[1]["role"] == "operator"


def test_the_real_context_is_known(data_with_models: Path) -> None:
    with Serve(data_with_models) as serve:
        serve.until_ready()
        secret = serve.operator_secret()
        cards = {card["id"]: card for card in serve.get("/v1/models", secret)[1]["data"]}
        context = cards["smollm2-135m-instruct"]["max_model_len"]
        # A short word is one LLM token or two.
        for words, expected in ((context // 8, 200), (context * 4, 400)):
            body = {
                **CHAT,
                "messages": [{"role": "user", "content": "dog cat " * (words // 2)}],
                "max_tokens": 1,
            }
            status, answer = serve.post("/v1/chat/completions", body, secret)
            assert status == expected, answer
        assert answer["error"]["code"] == "context_length_exceeded"
        status, answer = serve.post(
            "/v1/embeddings", {"model": "multilingual-e5-small", "input": ["short", "слово " * 2000]}, secret
        )
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        assert answer["error"]["param"] == "input[1]"


def stream(serve: Serve, secret: str, into: list[bytes], model: str = CHAT["model"]) -> None:
    request = urllib.request.Request(
        serve.base_url + "/v1/chat/completions",
        json.dumps({**LONG, "model": model, "stream": True}).encode(),
        {"authorization": f"Bearer {secret}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        into.append(answer.read())


def test_a_killed_engine_is_back_and_its_streams_go_on(data_with_models: Path) -> None:
    with Serve(data_with_models) as serve:
        serve.until_ready()
        secret = serve.operator_secret()
        answers: list[bytes] = []
        calls = [threading.Thread(target=stream, args=(serve, secret, answers)) for _ in range(4)]
        for call in calls:
            call.start()
        time.sleep(1.5)
        chat = next(pid for pid in serve.children() if engine_of(pid) == "llama")
        os.kill(chat, signal.SIGKILL)
        for call in calls:
            call.join(120)
        assert len(answers) == 4
        for answer in answers:
            assert answer.endswith(b"data: [DONE]\n\n")
            assert answer.count(b": resumed on the same replica\n\n") == 1
            assert b'"error"' not in answer
        # The very next call waits for the engine's return, and is answered.
        assert serve.post("/v1/chat/completions", CHAT, secret)[0] == 200
        assert chat not in serve.children()
        serve.until_said("is back")


def engine_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-2].decode().rpartition(".")[2]


def test_a_killed_service_leaves_no_orphans(data_with_models: Path) -> None:
    with Serve(data_with_models) as serve:
        serve.until_ready()
        children = serve.children()
        assert len(children) == 2
        serve.process.kill()
        serve.process.wait()
        until_gone(children, 2)


def test_running_streams_finish_when_the_service_is_told_to_stop(data_with_models: Path) -> None:
    with Serve(data_with_models) as serve:
        serve.until_ready()
        secret = serve.operator_secret()
        answers: list[bytes] = []
        calls = [threading.Thread(target=stream, args=(serve, secret, answers)) for _ in range(4)]
        for call in calls:
            call.start()
        time.sleep(1.0)
        serve.process.send_signal(signal.SIGTERM)
        serve.until_said("Finishing 4 running calls")
        assert serve.post("/v1/chat/completions", CHAT, secret)[1]["error"]["code"] == "draining"
        for call in calls:
            call.join(30)
        assert serve.process.wait(10) == 0
        assert [answer.endswith(b"data: [DONE]\n\n") for answer in answers] == [True] * 4
        assert serve.said().count("finished ") == 4


def test_stop_while_the_engines_load(data_with_models: Path) -> None:
    with Serve(data_with_models) as serve:
        serve.until_said("Loading")
        serve.until(lambda: len(serve.children()) == 2)
        children = serve.children()
        assert serve.stop(signal.SIGTERM) == 0
        until_gone(children, 1)


def test_keys_by_command_are_known_and_revoked_within_a_second(data_with_models: Path) -> None:
    with Serve(data_with_models) as serve:
        serve.until_ready()
        made = scibox(serve.data, "keys", "create", "team-7", "--days", "1")
        secret = made.stdout.strip()
        serve.until(lambda: serve.get("/v1/key", secret)[0] == 200, within_s=2)
        listed = scibox(serve.data, "keys", "list").stdout
        [key_id] = [line.split()[0] for line in listed.splitlines() if "team-7" in line]
        assert secret not in listed
        assert serve.get("/v1/key", secret)[1]["id"] == key_id

        assert scibox(serve.data, "keys", "revoke", key_id).returncode == 0
        serve.until(lambda: serve.get("/v1/key", secret)[0] == 401, within_s=2)
        assert serve.get("/v1/key", secret)[1]["error"]["code"] == "key_revoked"
        assert secret not in serve.said()


def test_a_client_that_leaves_frees_the_real_slots(data_with_models: Path) -> None:
    """More abandoned calls than slots, streamed or not: the next call is answered at once."""
    with Serve(data_with_models) as serve:
        serve.until_ready()
        secret = serve.operator_secret()
        serve.post("/v1/chat/completions", CHAT, secret)
        for index in range(16):
            body = json.dumps({**LONG, "max_tokens": 4000, "stream": index % 2 == 0}).encode()
            with socket.create_connection(("127.0.0.1", serve.port)) as sock:
                head = (
                    f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\n"
                    f"content-length: {len(body)}\r\n\r\n"
                )
                sock.sendall(head.encode() + body)
                time.sleep(0.1)
        serve.until(lambda: serve.said().count("client_gone") == 16, within_s=5)
        status, alone = serve.post("/v1/chat/completions", {**CHAT, "max_tokens": 1}, secret)
        assert status == 200
        # 16 calls of 4,000 LLM tokens would hold all slots for minutes.
        began = time.monotonic()
        serve.post("/v1/chat/completions", {**CHAT, "max_tokens": 1}, secret)
        assert time.monotonic() - began < 10, alone


def test_a_busy_port_is_one_sentence(data_with_models: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = scibox(data_with_models, "serve", "--port", str(port))

    assert ended.returncode == 1
    assert ended.stderr == (
        f"scibox: Port {port} is in use on 127.0.0.1: stop the program that listens there, "
        f"or choose another with --port {port + 1}.\n"
    )


def test_missing_weights_are_one_sentence(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "own.toml"
    config.write_text(
        '[models.own]\nkind = "chat"\n[[models.own.deployments]]\nengine = "llama"\nweights = "/nowhere/m.gguf"\n'
    )
    ended = scibox(data, "serve", "--config", str(config), "--port", str(free_port()))

    assert ended.returncode == 1
    assert "/nowhere/m.gguf" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_a_wrong_name_in_the_configuration_is_one_sentence(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "own.toml"
    config.write_text("[server]\nprot = 4000\n")
    for command in ("serve", "check"):
        ended = scibox(data, command, "--config", str(config))

        assert ended.returncode == 1
        assert f"{config}:2" in ended.stderr
        assert "'port'" in ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1


def test_weights_that_are_no_weights_are_named(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    config = tmp_path / "own.toml"
    config.write_text(
        f'[models.own]\nkind = "chat"\n[[models.own.deployments]]\nengine = "llama"\nweights = "{broken}"\n'
    )
    ended = scibox(data, "serve", "--config", str(config), "--port", str(free_port()))

    assert ended.returncode == 1
    assert "broken.gguf" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_tls_by_certificate_files(data: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("localhost")
    made.private_key_pem.write_to_path(tmp_path / "key.pem")
    made.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    config = tmp_path / "tls.toml"
    config.write_text(
        '[server]\ntls_certificate = "cert.pem"\ntls_key = "key.pem"\n[models.far]\nkind = "chat"\n'
        '[[models.far.deployments]]\nurl = "http://127.0.0.1:9/v1"\n'
    )
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with Serve(data, "--config", str(config)) as serve:
        serve.until_said("Ready")
        assert f"https://127.0.0.1:{serve.port}" in serve.said()
        url = f"https://localhost:{serve.port}/health"
        with urllib.request.urlopen(url, context=context, timeout=5) as answer:
            health: Any = json.load(answer)
        assert health["status"] == "ok"


def test_an_upstream_that_is_not_there_is_503(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "far.toml"
    config.write_text(
        '[models.far]\nkind = "chat"\n[[models.far.deployments]]\nurl = "http://127.0.0.1:9/v1"\n'
    )
    with Serve(data, "--config", str(config)) as serve:
        serve.until_said("Ready")
        status, body = serve.post("/v1/chat/completions", {**CHAT, "model": "far"}, serve.operator_secret())

    assert (status, body["error"]["code"]) == (503, "upstream_unavailable")


def test_a_remote_upstream_with_its_key_and_its_own_name(data: Path, tmp_path: Path) -> None:
    """SciBox in front of another SciBox: the key comes from a file, the context from the upstream."""
    behind = tmp_path / "behind.toml"
    behind.write_text('[models.inner]\nkind = "chat"\n[[models.inner.deployments]]\nengine = "fake"\n')
    with Serve(tmp_path / "behind", "--config", str(behind)) as upstream:
        upstream.until_said("Ready")
        key = tmp_path / "key"
        key.write_text(upstream.operator_secret() + "\n")
        front = tmp_path / "front.toml"
        front.write_text(
            '[models.outer]\nkind = "chat"\n[[models.outer.deployments]]\n'
            f'url = "{upstream.base_url}/v1"\nupstream_model = "inner"\nupstream_key_file = "{key}"\n'
        )
        with Serve(data, "--config", str(front)) as serve:
            serve.until_said("Ready")
            secret = serve.operator_secret()
            status, body = serve.post("/v1/chat/completions", {**CHAT, "model": "outer"}, secret)
            assert (status, body["model"]) == (200, "inner")
            answers: list[bytes] = []
            stream(serve, secret, answers, model="outer")
            assert answers[0].endswith(b"data: [DONE]\n\n")
            serve.until(lambda: serve.get("/v1/models/outer", secret)[1]["max_model_len"] == 8192, within_s=5)

            upstream.stop()
            status, body = serve.post("/v1/chat/completions", {**CHAT, "model": "outer"}, secret)
            assert (status, body["error"]["code"]) == (503, "upstream_unavailable")
            assert serve.get("/v1/key", secret)[0] == 200


def test_the_pasted_line_is_one_command(data: Path, tmp_path: Path) -> None:
    from scibox.banner import ready
    from scibox.config import Model

    said = ready("http://127.0.0.1:4000", "sk-x", [Model("it's", "chat")], 1.0, "scibox")
    [line] = [line for line in said.splitlines() if line.startswith("curl ")]
    words = shlex.split(line)

    assert json.loads(words[-1])["model"] == "it's"
