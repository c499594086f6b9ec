"""A real service whose database of keys is away, at the start too (PROMISES R3, R4); on the fake engine."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import servers

from live import Serve, free_port, scibox
from scibox.core.secret import RANDOM_CHARS, compose

CONFIGURATION = """
[models.chatty]
kind = "chat"
[[models.chatty.deployments]]
engine = "fake"
"""
CHAT = {"model": "chatty", "messages": [{"role": "user", "content": "hello there"}]}
STRANGER = compose([7] * RANDOM_CHARS)
HEALED_S = 10  # PROMISES R3, when nothing else runs on the machine; the tests allow ten times that


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "scibox.toml"
    path.write_text(CONFIGURATION)
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """As another process would that lets nobody in, readers neither."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        db.execute("UPDATE changes SET number = number")
        yield
    finally:
        db.close()


def code(answer: tuple[int, dict[str, dict[str, str]]]) -> tuple[int, str]:
    return answer[0], answer[1]["error"]["code"]


def test_a_first_start_with_postgresql_away_says_what_to_do_and_heals(
    configuration: Path, tmp_path: Path
) -> None:
    port = servers.free_port()
    configuration.write_text(
        f'[shared]\ndatabase_url = "postgresql://scibox@127.0.0.1:{port}/postgres"\n{CONFIGURATION}'
    )
    with (
        servers.folder("pg") as folder,
        Serve(tmp_path / "data", "--config", str(configuration)) as serve,
    ):
        serve.until_said("No key is known yet")
        serve.until_ready()
        assert code(serve.get("/v1/key", STRANGER)) == (503, "keys_unavailable")
        assert serve.get("/v1/key", STRANGER[:-1])[0] == 401  # no database could know this one
        with servers.postgres(folder, port):
            serve.until_said("First start: this is your operator key", within_s=10 * HEALED_S)
            secret = serve.operator_secret()
            assert serve.get("/v1/key", secret)[0] == 200
            made = made_key(serve, configuration, "one")
            assert serve.post("/v1/chat/completions", CHAT, made)[0] == 200

        serve.until_said("the key database is away")
        assert serve.post("/v1/chat/completions", CHAT, made)[0] == 200
        with servers.postgres(folder, port):
            serve.until_said("the key database is back", within_s=10 * HEALED_S)
            assert serve.post("/v1/chat/completions", CHAT, made_key(serve, configuration, "two"))[0] == 200


def test_a_locked_file_at_the_start_and_a_revocation_meanwhile(configuration: Path, tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    flags = ("--config", str(configuration))
    with Serve(data, *flags, port=port) as serve:
        serve.until_ready()
        secret = serve.operator_secret()
        kept, lost = (made_key(serve, configuration, name) for name in ("kept", "lost"))
        key_id = serve.get("/v1/key", lost)[1]["id"]
        serve.until(lambda: (data / "keys.snapshot").read_text().count('"key_id"') == 3)
        serve.stop()

    with locked(data / "keys.db"), Serve(data, *flags, port=port) as serve:
        serve.until_ready()
        for known in (secret, kept, lost):
            assert serve.post("/v1/chat/completions", CHAT, known)[0] == 200
        assert code(serve.get("/v1/key", STRANGER)) == (503, "keys_unavailable")

        revoked = scibox(data, "keys", "revoke", key_id, *flags)
        assert revoked.returncode == 0
        assert "does not work now" in revoked.stdout
        serve.until(lambda: code(serve.get("/v1/key", lost)) == (401, "key_revoked"), within_s=10)
        assert serve.post("/v1/chat/completions", CHAT, kept)[0] == 200
        serve.stop()

    with Serve(data, *flags, port=port) as serve:  # the lock is gone: the database is told
        serve.until_ready()
        serve.until(lambda: "revoked" in scibox(data, "keys", "list", *flags).stdout)
        (data / "revoked").unlink()
        serve.stop()
    with Serve(data, *flags, port=port) as serve:
        serve.until_ready()
        assert code(serve.get("/v1/key", lost)) == (401, "key_revoked")
        assert serve.post("/v1/chat/completions", CHAT, kept)[0] == 200


def made_key(serve: Serve, configuration: Path, name: str) -> str:
    made = scibox(serve.data, "keys", "create", name, "--config", str(configuration))
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()
