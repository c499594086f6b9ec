"""A real service and the commands beside it: what operators change, and where secrets are found (PROMISES K2, K5)."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from live import Serve, scibox
from scibox.core import secret as secrets

CONFIGURATION = """
[models.chatty]
kind = "chat"
[[models.chatty.deployments]]
engine = "fake"
[models.vectors]
kind = "embedding"
[[models.vectors.deployments]]
engine = "fake"
"""
PROMPT = "canary prompt zebra quagga"
CHAT = {"model": "chatty", "messages": [{"role": "user", "content": PROMPT}]}


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "scibox.toml"
    path.write_text(CONFIGURATION)
    return path


def test_commands_beside_a_running_service(data: Path, configuration: Path, tmp_path: Path) -> None:
    table, out, flags = tmp_path / "teams.csv", tmp_path / "keys.csv", ("--config", str(configuration))
    table.write_text("owner,name\n" + "".join(f"team-{i},n\n" for i in range(200)))
    with Serve(data, *flags) as serve:
        serve.until_ready()
        made = scibox(data, "keys", "create", "--from", str(table), "--out", str(out), *flags)
        assert made.returncode == 0, made.stderr
        rows = list(csv.DictReader(io.StringIO(out.read_text())))
        first, last = rows[0], rows[-1]
        # The database is asked for a key that nobody knows: it works at its first use.
        assert serve.post("/v1/chat/completions", CHAT, first["secret"])[0] == 200
        assert serve.get("/v1/key", last["secret"])[1]["owner"] == "team-199"

        assert scibox(data, "keys", "disable", "--owner", "team-0", *flags).returncode == 0
        serve.until(lambda: serve.get("/v1/key", first["secret"])[0] == 401, within_s=10)
        assert serve.get("/v1/key", first["secret"])[1]["error"]["code"] == "key_disabled"
        assert scibox(data, "keys", "enable", "--owner", "team-0", *flags).returncode == 0
        serve.until(lambda: serve.get("/v1/key", first["secret"])[0] == 200, within_s=10)

        rotated = scibox(data, "keys", "rotate", last["key_id"], *flags).stdout.strip()
        assert serve.get("/v1/key", rotated)[1]["id"] == last["key_id"]
        serve.until(lambda: serve.get("/v1/key", last["secret"])[0] == 401, within_s=10)

        gone = serve.ask("DELETE", "/v1/key", None, rotated)
        assert (gone[0], serve.get("/v1/key", rotated)[0]) == (200, 401)
        serve.until(
            lambda: "revoked" in scibox(data, "keys", "show", last["key_id"], *flags).stdout, within_s=10
        )
        used = scibox(data, "keys", "list", "--owner", "team-0", *flags)
        assert "active" in used.stdout


def test_secrets_and_prompts_are_found_nowhere(data: Path, configuration: Path) -> None:
    """Every file of the data folder, the log, and what pages and lists answer, while it runs and after."""
    flags = ("--config", str(configuration))
    with Serve(data, *flags) as serve:
        serve.until_ready()
        operator = serve.operator_secret()
        made = serve.post("/admin/v1/keys", {"owner": "canary", "role": "operator"}, operator)[1]
        serve.post("/admin/v1/keys", {"owner": "another"}, made["secret"])  # the log says who did it
        rotated = serve.post(f"/admin/v1/keys/{made['id']}/rotate", {"overlap_s": 600}, made["secret"])[1]
        mistyped = made["secret"][:-1] + ("x" if made["secret"][-1] != "x" else "y")
        unknown = secrets.compose([5] * secrets.RANDOM_CHARS)
        canaries = [made["secret"], rotated["secret"], mistyped, unknown]
        pages = []
        for secret in canaries:
            pages.append(serve.post("/v1/chat/completions", CHAT, secret))
            pages.append(serve.post("/v1/chat/completions", {**CHAT, "stream": "wrong"}, secret))
            pages.append(serve.post("/v1/embeddings", {"model": "vectors", "input": [PROMPT]}, secret)[:1])
            for path in (
                "/v1/key",
                "/v1/models",
                "/v1/usage",
                "/v1/queue",
                "/admin/v1/keys",
                "/admin/v1/owners",
            ):
                pages.append(serve.get(path, secret))
        pages.append(
            serve.get(f"/admin/v1/keys?after={made['secret']}", operator)[:1]
        )  # only the asker is told
        pages.append(serve.ask("DELETE", "/v1/key", None, rotated["secret"]))
        pages.append(serve.get("/v1/key", made["secret"]))
        pages.append(serve.get("/openapi.json"))
        running = everything(data)
        assert serve.stop() == 0
        said, kept = serve.said(), everything(data)

    answered = [page for page in pages if page[0] == 200]
    assert len(answered) > 10
    for where, text in {"running": running, "kept": kept, "said": said, "pages": str(pages)}.items():
        for secret in canaries:
            assert secret not in text, where
            assert secret[10:40] not in text, where
        if where != "pages":  # the fake tells what it was asked
            assert "zebra" not in text, where
    # The search was at the right places.
    assert secrets.digest(made["secret"]) in kept
    assert "key=key_" in said
    assert operator in said  # shown once, at the first start
    assert operator not in kept


def everything(folder: Path) -> str:
    """All bytes of all files, as text."""
    return "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())
