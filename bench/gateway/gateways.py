"""What is compared: each gateway started on the core of the gateways, in a folder of its own, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from model_server import MODEL

from scibox import __version__ as scibox_version

CORE, OTHER_CORE = (sorted(os.sched_getaffinity(0)) * 2)[
    :2
]  # of the gateways; of the mock upstream and the load
SKIPPED_S = 900.0


class Missing(Exception):
    """It cannot be had here; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running one. `secret` where it wants one."""

    name: str
    version: str
    port: int
    pid: int
    secret: str = "none"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def process(
    command: list[str], core: int, log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one core; ended with the `with`."""
    with log.open("wb") as stream:
        running = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *command],
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        yield running
    finally:
        running.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, 9)
        running.wait()


def until(
    holds: Callable[[], bool], running: subprocess.Popen[bytes], log: Path, within_s: float = 120
) -> None:
    end = time.monotonic() + within_s
    while not holds():
        if running.poll() is not None or time.monotonic() > end:
            raise Missing(f"it does not start: {log.read_text('utf-8', 'replace')[-600:]}")
        time.sleep(0.05)


def answers(port: int, secret: str = "none") -> bool:
    """Whether a chat call is answered with 200."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {secret}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextlib.contextmanager
def upstream(folder: Path, pace_s: float = 0.01) -> Iterator[int]:
    """The mock's port."""
    port, log = free_port(), folder / "mock.log"
    command = [sys.executable, str(Path(__file__).with_name("model_server.py")), str(port), str(pace_s)]
    with process(command, OTHER_CORE, log) as running:
        until(lambda: answers(port), running, log)
        yield port


_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_rlimit_nofile 65000;
events {{ worker_connections 30000; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000; keepalive_timeout 600s; client_max_body_size 16m; client_body_buffer_size 64k;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering on; proxy_read_timeout 600s;
    }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, upstream_port: int) -> Iterator[Gateway]:
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        raise Missing("install it: apt-get install nginx-light")
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, upstream=upstream_port))
    version = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    log = folder / "nginx.log"
    with process([program, "-p", str(folder), "-c", str(config)], CORE, log) as running:
        until(lambda: answers(port), running, log)
        yield Gateway("nginx", version.rpartition("/")[2].strip(), port, running.pid)


@contextlib.contextmanager
def relay(folder: Path, upstream_port: int) -> Iterator[Gateway]:
    """The least that a gateway in Python does."""
    port, log = free_port(), folder / "relay.log"
    program = str(Path(__file__).with_name("relay.py"))
    with process([sys.executable, program, str(port), str(upstream_port)], CORE, log) as running:
        until(lambda: answers(port), running, log)
        yield Gateway("bare relay", f"Python {platform.python_version()}", port, running.pid)


_SCIBOX = """
[models."{model}"]
kind = "chat"
limits = {{ calls_per_minute = 1_000_000_000 }}
owner_limits = {{ calls_in_flight = 1_000_000 }}
price = {{ prompt = 0.2, completion = 0.8 }}
[[models."{model}".deployments]]
url = "http://127.0.0.1:{upstream}/v1"
slots = {slots}

[models."{model}-vectors"]
kind = "embedding"
owner_limits = {{ texts_per_minute = 1_000_000_000 }}
[[models."{model}-vectors".deployments]]
url = "http://127.0.0.1:{upstream}/v1"
upstream_model = "{model}"
slots = {slots}
"""
_LIMITS = {
    "calls_per_minute": 1_000_000_000,
    "tokens_per_minute": 1_000_000_000_000,
    "calls_in_flight": 1_000_000,
}


@contextlib.contextmanager
def scibox(folder: Path, upstream_port: int, slots: int = 1_000) -> Iterator[Gateway]:
    """As an operator runs it: a member's key with limits of its own, of its owner's and of the model's."""
    config, log, port = folder / "scibox.toml", folder / "scibox.log", free_port()
    config.write_text(_SCIBOX.format(model=MODEL, upstream=upstream_port, slots=slots))
    environ = {"SCIBOX_DATA": str(folder / "data"), "XDG_RUNTIME_DIR": str(folder)}
    run = [sys.executable, "-m", "scibox.cli"]
    make = [*run, "keys", "create", "bench", "--operator"]
    made = subprocess.run(make, env={**os.environ, **environ}, capture_output=True, text=True, check=True)
    [operator] = re.findall(r"^sk-\S+$", made.stdout, re.MULTILINE)
    serve = [*run, "serve", "--port", str(port), "--config", str(config)]
    with process(serve, CORE, log, environ) as running:
        until(lambda: answers(port, operator), running, log)
        _ask(port, operator, "/admin/v1/owners", {"name": "team", "limits": _LIMITS})
        key = _ask(port, operator, "/admin/v1/keys", {"owner": "team", "name": "load", "limits": _LIMITS})
        yield Gateway("SciBox", scibox_version, port, running.pid, str(key["secret"]))


def _ask(port: int, secret: str, path: str, body: object) -> dict[str, object]:
    headers = {"content-type": "application/json", "authorization": f"Bearer {secret}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        raise Missing(f"{path}: {error.read().decode()}") from None


@contextlib.contextmanager
def vllm_router(folder: Path, upstream_port: int, cache: Path) -> Iterator[Gateway]:
    """vLLM's router, in Rust; it asks for no key here."""
    bin_ = environment(cache, "vllm-router", ["vllm-router"])
    port, log = free_port(), folder / "vllm-router.log"
    command = [str(bin_ / "vllm-router"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--worker-urls", f"http://127.0.0.1:{upstream_port}", "--policy", "round_robin"]
    command += ["--prometheus-port", str(free_port()), "--log-level", "error"]
    with process(command, CORE, log) as running:
        until(lambda: answers(port), running, log)
        yield Gateway("vLLM router", version_of(bin_, "vllm-router"), port, running.pid)


_LITELLM = """
model_list:
  - model_name: {model}
    litellm_params: {{ model: openai/{model}, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none }}
  - model_name: {model}-vectors
    litellm_params: {{ model: openai/{model}, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none }}
general_settings: {{ master_key: sk-bench-0123456789 }}
"""


@contextlib.contextmanager
def litellm(folder: Path, upstream_port: int, cache: Path) -> Iterator[Gateway]:
    """LiteLLM's proxy with a master key: no data base, so no keys of users, no limits, no accounting."""
    bin_ = environment(cache, "litellm", ["litellm[proxy]"])
    port, log, secret = free_port(), folder / "litellm.log", "sk-bench-0123456789"
    config = folder / "litellm.yaml"
    config.write_text(_LITELLM.format(model=MODEL, upstream=upstream_port))
    command = [str(bin_ / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "HOME": str(folder)}
    with process([*command, "--telemetry", "False"], CORE, log, environ) as running:
        until(lambda: answers(port, secret), running, log, 180)
        yield Gateway("LiteLLM", version_of(bin_, "litellm"), port, running.pid, secret)


def environment(cache: Path, name: str, packages: list[str]) -> Path:
    """The programs of an environment of its own, made once; `Missing` where it cannot be."""
    folder = cache / name
    if not (folder / "made").exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"installing {name} into {folder}", flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
            pip = [str(folder / "bin" / "pip"), "install", "--quiet", *packages]
            subprocess.run(pip, check=True, capture_output=True, timeout=SKIPPED_S)
        except (subprocess.SubprocessError, OSError) as error:
            said = getattr(error, "stderr", None) or b""
            raise Missing(f"pip install {' '.join(packages)}: {said.decode()[-300:] or error}") from None
        (folder / "made").touch()
    return folder / "bin"


def version_of(bin_: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    made = subprocess.run([str(bin_ / "python"), "-c", code], capture_output=True, text=True, check=True)
    return made.stdout.strip()
