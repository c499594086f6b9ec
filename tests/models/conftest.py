"""The badly behaved web server, running."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from shelf import Door, Shelf

from scibox.models.web import Web


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()
    door = type("ThisDoor", (Door,), {"shelf": shelf})
    server = ThreadingHTTPServer(("127.0.0.1", 0), door)
    server.daemon_threads = True
    shelf.base = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield shelf
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "data" / "models"


@pytest.fixture
def web() -> Web:
    # Only this environment: the machine's own pip settings and hub secrets have no place in these tests.
    path = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull, "HOME": "/nonexistent"}
    return Web(path, timeout_s=5.0, sleep=lambda _: None)
