"""vLLM as an engine child: `python -m scibox.engines.vllm`, one line of settings on stdin.

This process stays between the supervisor and `vllm serve`: it tells in words how far vLLM is, waits while it
ends after SIGTERM, and takes its whole group with it when the service goes. vLLM listens on a Unix socket
only (`--uds`). Its key is in its environment: arguments can be read by everybody on the machine.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import NoReturn

import msgspec

from scibox.engines.child import PROGRESS, begin, die_with_parent, fail
from scibox.engines.supervisor import Command

Value = str | int | float | bool
Options = tuple[tuple[str, Value], ...]

GRACE_S = 15.0  # for running calls and for workers on several GPUs to let go of their memory
# Lines of vLLM's log, from 0.6 to 0.32, that begin a part of its start, and what an operator is told then.
STAGES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        (r"downloading|fetching \d+ files", "downloads its weights"),
        (
            r"starting to load model|loading (safetensors|pt) checkpoint|loading model weights",
            "loads its weights",
        ),
        (r"torch\.compile|compiling a graph", "compiles the model"),
        (r"memory profiling|gpu kv cache size|available kv cache", "measures the memory for its cache"),
        (r"captur\w+ (cuda )?graph", "captures graphs"),
        (r"starting vllm api server|application startup complete", "opens its door"),
    )
)
LAST_WORDS_S = 1.0
PERCENT = re.compile(r"(\d{1,3})%")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one vLLM serves one model; `name` is the `model` of every answer, None is vLLM's own choice."""

    socket: str
    weights: str  # a name of the model hub, or a folder
    name: str
    secret: str
    command: tuple[str, ...] = ("vllm",)
    tensor_parallel: int | None = None
    gpu_memory: float | None = None
    context: int | None = None
    slots: int | None = None
    quantization: str | None = None
    options: Options = ()
    environment: tuple[tuple[str, str], ...] = ()


def command(settings: Settings) -> Command:
    """How to run it."""
    return Command("scibox.engines.vllm", msgspec.json.encode(settings))


def arguments(settings: Settings) -> list[str]:
    """The command line of `vllm serve`."""
    named = {
        "--tensor-parallel-size": settings.tensor_parallel,
        "--gpu-memory-utilization": settings.gpu_memory,
        "--max-model-len": settings.context,
        "--max-num-seqs": settings.slots,
        "--quantization": settings.quantization,
    }
    found = [*settings.command, "serve", settings.weights, "--served-model-name", settings.name]
    found += ["--uds", settings.socket]
    for flag, value in named.items():
        if value is not None:
            found += [flag, str(value)]
    for name, value in settings.options:
        found += _flag(name.replace("_", "-"), value)
    return found


def environment(settings: Settings, own: Mapping[str, str]) -> dict[str, str]:
    """Its environment: ours, what the configuration says, and its key."""
    return {**own, **dict(settings.environment), "VLLM_API_KEY": settings.secret}


def stages(lines: Iterable[str]) -> Iterator[str]:
    """What vLLM is doing, in words, each time that changes; with the hundredth where it tells one."""
    last: tuple[str, int] | None = None
    for line in lines:
        for pattern, words in STAGES:
            if pattern.search(line):
                percent = PERCENT.search(line)
                now = (words, int(percent[1]) // 10 * 10 if percent else -1)
                if now != last:
                    last = now
                    yield f"{words} ({now[1]} %)" if now[1] >= 0 else words
                break


def _flag(name: str, value: Value) -> list[str]:
    if value is True:
        return [f"--{name}"]
    return [f"--no-{name}"] if value is False else [f"--{name}", str(value)]


def main() -> int:
    """Run vLLM until it ends."""
    if sys.argv[1:2] == ["run"]:
        _become(int(sys.argv[2]), sys.argv[3:])
    settings = begin(Settings, orphaned=_end_group)
    signal.signal(
        signal.SIGTERM, lambda *_: None
    )  # the group gets it: vLLM ends by itself, and is waited for
    program = settings.command[0]
    own = environment(settings, os.environ)
    if shutil.which(program, path=own.get("PATH")) is None:
        fail(
            f"There is no program '{program}': install vLLM (pip install vllm), or say where it is with "
            'command = ["/path/of/its/venv/bin/vllm"] in the deployment.'
        )
    start = [sys.executable, "-P", "-m", "scibox.engines.vllm", "run", str(os.getpid()), *arguments(settings)]
    process = subprocess.Popen(  # noqa: S603 - the operator's own command
        start,
        env=own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=(os.dup(1),),  # until its end the supervisor waits: for vLLM, not for us alone
    )
    assert process.stdout is not None
    telling = threading.Thread(target=_tell, args=(process.stdout,), daemon=True)
    telling.start()
    code = process.wait()  # not the end of what it prints: a part of it that lives on has that open too
    telling.join(LAST_WORDS_S)
    return code if code >= 0 else 128 - code


def _tell(lines: Iterable[str]) -> None:
    for words in stages(_passed_on(lines)):
        _say(f"{PROGRESS}{words}")


def _passed_on(lines: Iterable[str]) -> Iterator[str]:
    """The same lines; the supervisor keeps the last of them."""
    for line in lines:
        _say(line.rstrip("\n"))
        yield line


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _end_group() -> None:
    """The service is gone, and nobody else would end what vLLM has started."""
    os.killpg(0, signal.SIGKILL)


def _become(parent: int, program: list[str]) -> NoReturn:
    """vLLM in the place of this process; it ends when `parent` does, however that goes."""
    die_with_parent()
    if os.getppid() != parent:
        os._exit(0)
    os.execvp(program[0], program)  # noqa: S606 - the operator's own command


if __name__ == "__main__":
    sys.exit(main())
