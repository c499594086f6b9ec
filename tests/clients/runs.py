"""Runs a program as a person would and notes when each piece of its output came.

Times are seconds of `time.monotonic()`, so that they compare with those of `relay.Relay`.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONUNBUFFERED")


@dataclass(frozen=True, slots=True)
class Piece:
    """What one read of the program's standard output gave, and when."""

    at: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Run:
    """A program that has ended by itself."""

    status: int
    pieces: tuple[Piece, ...]
    errors: str

    @property
    def output(self) -> str:
        """Its whole standard output."""
        return b"".join(piece.data for piece in self.pieces).decode()


def environment(bin_folder: Path, **own: str) -> dict[str, str]:
    """The machine's environment, `bin_folder` first on the path, without what would redirect the program."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in _FOREIGN and not name.startswith(("OPENAI_", "SCIBOX_"))
    }
    path = f"{bin_folder}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    local = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    return {**inherited, **local, "PATH": path, **own}


def run(argv: Sequence[str], env: Mapping[str, str], cwd: Path, timeout_s: float = 120) -> Run:
    """Run to the end; after `timeout_s` its whole group is killed, with `TimeoutError`."""
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        try:
            pieces, errors = _drain(process, time.monotonic() + timeout_s)
            status = process.wait(timeout=10)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Run(status, tuple(pieces), errors.decode(errors="replace"))


def _drain(process: subprocess.Popen[bytes], deadline: float) -> tuple[list[Piece], bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    pieces: list[Piece] = []
    errors = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                shown = b"".join(piece.data for piece in pieces)[-2000:]
                raise TimeoutError(f"{process.args!r} did not end in time; it printed {shown!r}, {errors!r}")
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    pieces.append(Piece(time.monotonic(), data))
                else:
                    errors += data
    return pieces, errors
