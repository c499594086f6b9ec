"""A worker process: the door and the way of every call; limits, slots and the queue are the main process's.

    python -m scibox.worker        settings on stdin, as every child

It has the connections that the main process hands it (`http/handing.py`), its own replicas, keyring and
journal, and asks the desk over the intercom. Batches, engines and the ledger's feeder are the main process's.
SIGTERM drains it: new calls are refused. SIGUSR1 lets it go when its clients have: what comes on the
connections it has is answered, and they are told to close.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec
import uvloop
from msgspec import Struct

from scibox.config import Config
from scibox.engines.child import begin, fail
from scibox.router.replica import Route


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker is told. `lane` and `log` are descriptors that it inherits."""

    config: Config
    routes: tuple[Route, ...]
    intercom: str  # the socket's path
    private: str = ""  # the path of the socket that it answers its supervisor on
    lane: int = -1
    log: int = 2


def encode(settings: Settings) -> bytes:
    """One line for a worker's stdin."""
    return msgspec.json.encode(settings, enc_hook=_plain)


def decode_hook(kind: type, value: object) -> object:
    """What JSON has no form of."""
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError
