"""A model server of its own process, for tests that end the service: it writes down how each call ended.

`python scripted.py LOG PORT` listens there (0: at a free port), says which on its first line of output, and from then on reads
scripts from stdin, one line of JSON each: the fields of `fake_script.Script`, for all calls from then on.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from scibox.engines.fake import FakeEngine
from scibox.engines.fake_script import Answered, Left, Script


@dataclass(frozen=True)
class Outcome:
    """How a call ended there. `at`: Unix seconds; `is_whole`: answered to the last byte."""

    request_id: str
    is_whole: bool
    prompt_tokens: int
    completion_tokens: int
    at: float


class Upstream:
    """The process, seen from the test."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdout
        self.process = process
        self.url = process.stdout.readline().strip()
        self._log = log

    def play(self, **script: Any) -> None:
        """What it does with all calls that come from now on."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(script) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout
        assert self.process.stdout.readline() == "ok\n"

    def outcomes(self) -> list[Outcome]:
        """All calls that have ended so far."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [Outcome(**json.loads(line)) for line in lines]


@contextmanager
def upstream(log: Path, port: int = 0, **script: Any) -> Iterator[Upstream]:
    """A scripted model server; ends with the `with`."""
    command = [sys.executable, __file__, str(log), str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        running = Upstream(process, log)
        running.play(**script)
        yield running
    finally:
        process.kill()
        process.communicate()


async def _main(log: Path, port: int) -> None:
    def report(end: Answered | Left) -> None:
        whole = isinstance(end, Answered)
        usage = end.usage if isinstance(end, Answered) else None
        line = {
            "request_id": end.request_id,
            "is_whole": whole,
            "prompt_tokens": usage.prompt_tokens if usage else 0,
            "completion_tokens": usage.completion_tokens if usage else getattr(end, "completion_tokens", 0),
            "at": time.time(),
        }
        stream.write(json.dumps(line) + "\n")

    with log.open("a", buffering=1) as stream:
        async with FakeEngine(
            f"http://127.0.0.1:{port}", name="fake-model", owned_by="vllm", report=report
        ) as engine:
            sys.stdout.write(f"{engine.address}/v1\n")
            sys.stdout.flush()
            commands = asyncio.StreamReader()
            loop = asyncio.get_running_loop()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
            while line := await commands.readline():
                engine.script = msgspec.json.decode(line, type=Script)
                engine.requests.clear()
                sys.stdout.write("ok\n")
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), int(sys.argv[2])))
