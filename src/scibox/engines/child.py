"""What every child process does first: read its settings, and tie its life to the parent's.

The parent writes one line of JSON to stdin and keeps the pipe open. End of file on stdin means that the
parent is gone, however it went (the kernel closes the pipe also after `kill -9`), so the child ends at once.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn, TypeVar

import msgspec

PR_SET_PDEATHSIG = 1  # linux/prctl.h
EXIT_ORPHANED = 0  # nobody is left to read the code
EXIT_BAD_SETTINGS = 64  # EX_USAGE of sysexits.h: the same command will fail again
EXIT_CANNOT_LOAD = 65  # EX_DATAERR: the weights are missing or unreadable; a restart will not help

PROGRESS = "scibox progress: "  # begins a line that says how far the start is
LAST_WORD = "scibox: "  # begins the line that says why; native libraries write lines of their own around it

Settings = TypeVar("Settings", bound=msgspec.Struct)


def _leave() -> None:
    os._exit(EXIT_ORPHANED)


def begin(
    settings_type: type[Settings],
    dec_hook: Callable[[type, object], object] | None = None,
    orphaned: Callable[[], None] | None = None,
) -> Settings:
    """The settings from stdin; from now on the process ends with its parent, and leaves Ctrl-C to it.

    `orphaned` ends it then, where children of its own must end with it (the kernel would leave them behind).
    Ends the process with `EXIT_BAD_SETTINGS` and a sentence on stderr when the line is not such settings.
    """
    # Ctrl-C in a terminal reaches the whole foreground group; how to end is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    if orphaned is None:
        die_with_parent()
    # Unbuffered: a buffered reader would hold a lock that the watching thread needs.
    line = _read_line(sys.stdin.fileno())
    if os.getppid() != parent:  # it went before prctl took hold
        os._exit(EXIT_ORPHANED)
    try:
        settings = msgspec.json.decode(line, type=settings_type, dec_hook=dec_hook)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        fail(f"The engine's settings cannot be read: {error}", EXIT_BAD_SETTINGS)
    threading.Thread(
        target=_wait_for_eof, args=(sys.stdin.fileno(), orphaned or _leave), name="lifeline", daemon=True
    ).start()
    return settings


def fail(message: str, code: int = EXIT_CANNOT_LOAD) -> NoReturn:
    """End the process for a reason that a restart cannot cure; the supervisor shows `message`."""
    sys.stderr.write(f"{LAST_WORD}{message}\n")
    sys.stderr.flush()
    os._exit(code)  # not sys.exit: native threads may be running, and nothing here needs unwinding


def die_with_parent() -> None:
    """Have the kernel end this process with its parent; kept through an exec, not by children."""
    if sys.platform != "linux":
        return
    # The signal comes when the *thread* that started us ends; asyncio's spawning thread is the main one.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _read_line(descriptor: int) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(descriptor, 1)  # byte by byte: nothing after the line may be taken
        if not piece:
            break
        line += piece
    return bytes(line)


def _wait_for_eof(descriptor: int, then: Callable[[], None]) -> None:
    while os.read(descriptor, 4096):
        pass
    then()
