"""What the parent says on the first line of standard input, and the lifeline that the rest of it is."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from pathlib import Path

import msgspec

PR_SET_PDEATHSIG = 1  # prctl(2)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to listen, what to load, under which name, and how much of the machine to use."""

    socket: str
    weights: str
    name: str
    threads: int = 2
    # Padded length times texts of one run of the model. A run of this size takes about 0.2 s on two cores:
    # that is how long a short question waits behind a bulk call (docs/embeddings.md).
    batch_tokens: int = 512

    @property
    def folder(self) -> Path:
        """The folder of the weights."""
        return Path(self.weights)


def settings_from_stdin() -> Settings:
    """Reads the settings and ties this process to its parent's life; ValueError when the line is wrong."""
    line = sys.stdin.buffer.readline()
    settings = msgspec.json.decode(line, type=Settings)
    if settings.threads < 1 or settings.batch_tokens < 1:
        raise ValueError("threads and batch_tokens are at least 1")
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_exit_at_eof, name="lifeline", daemon=True).start()
    return settings


def _exit_at_eof() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)
