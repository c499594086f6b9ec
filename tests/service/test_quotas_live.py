"""Quotas of a real service go on where they were after a kill, and count what was used before they were set."""

from __future__ import annotations

import json
import signal
import sqlite3
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from live import Serve, scibox

MODEL = """
[[models.{name}.deployments]]
engine = "fake"
[models.{name}]
kind = "chat"
"""
QUOTA = 40  # LLM tokens: some calls


def spend(serve: Serve, secret: str, model: str) -> tuple[int, str, str]:
    """The status of a call, its error's code, and whether its client should try again."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 10}
    request = urllib.request.Request(
        f"{serve.base_url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {secret}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, "", ""
    except urllib.error.HTTPError as error:
        with error:
            told = json.load(error)["error"]["code"]
            return error.code, told, error.headers.get("x-should-retry", "")


def use_up(serve: Serve, secret: str, model: str) -> int:
    """Call until a call is refused; how many were answered."""
    for calls in range(QUOTA):
        if (told := spend(serve, secret, model))[0] != 200:
            assert told == (429, "insufficient_quota", "false")
            return calls
    raise AssertionError("no call was refused")


def left(serve: Serve, secret: str) -> int:
    """Of the only quota that holds for a key."""
    [limit] = serve.get("/v1/key", secret)[1]["limits"]
    return int(limit["remaining"])


def create(data: Path, owner: str, *flags: str) -> str:
    """A key's secret."""
    made = scibox(data, "keys", "create", owner, "--owner", owner, *flags, "--json")
    assert made.returncode == 0, made.stderr
    return str(json.loads(made.stdout)["secret"])


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_used_up_is_used_up_after_a_kill(data: Path, tmp_path: Path, workers: int) -> None:
    config = tmp_path / "scibox.toml"
    config.write_text(
        f"[server]\nworkers = {workers}\n"
        + MODEL.format(name="open")
        + MODEL.format(name="shut")
        + f"owner_limits = {{ tokens_per_month = {QUOTA} }}\n"
        + MODEL.format(name="all")
        + f"limits = {{ tokens_per_month = {QUOTA} }}\n"
    )
    of_owner, of_key = create(data, "one"), create(data, "two", "--tokens-per-month", str(QUOTA))
    plain = create(data, "three")
    assert scibox(data, "owners", "set", "one", "--tokens-per-day", str(QUOTA)).returncode == 0
    used_up = [(of_owner, "open"), (of_key, "open"), (plain, "shut"), (plain, "all")]
    with Serve(data, "--config", str(config)) as serve:
        serve.until_ready()
        assert all(use_up(serve, secret, model) > 1 for secret, model in used_up)
        serve.stop(signal.SIGKILL)

    with Serve(data, "--config", str(config)) as serve:
        serve.until_ready()
        after = [spend(serve, secret, model) for secret, model in used_up]
        free = spend(serve, plain, "open")

    assert after == [(429, "insufficient_quota", "false")] * 4
    assert free[0] == 200


def test_a_quota_set_over_http_counts_what_was_used_before(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "scibox.toml"
    config.write_text(MODEL.format(name="open"))
    secret, other = create(data, "one"), create(data, "two")
    with Serve(data, "--config", str(config)) as serve:
        serve.until_ready()
        operator = create(data, "root", "--operator")
        assert [spend(serve, secret, "open")[0] for _ in range(10)] == [200] * 10

        for owner in ("one", "two"):
            limits = {"limits": {"tokens_per_month": QUOTA}}
            assert serve.post(f"/admin/v1/owners/{owner}", limits, operator)[0] == 200

        serve.until(lambda: left(serve, secret) == 0)
        assert spend(serve, secret, "open") == (429, "insufficient_quota", "false")
        assert left(serve, other) == QUOTA
        assert use_up(serve, other, "open") > 1


def test_a_start_without_the_database_counts_what_was_used_when_it_is_there(
    data: Path, tmp_path: Path
) -> None:
    config = tmp_path / "scibox.toml"
    config.write_text(MODEL.format(name="open"))
    secret = create(data, "one", "--tokens-per-day", str(QUOTA))
    with Serve(data, "--config", str(config)) as serve:
        serve.until_ready()
        use_up(serve, secret, "open")
        assert serve.stop() == 0

    database = sqlite3.connect(data / "ledger.db", isolation_level=None)
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("BEGIN EXCLUSIVE")
    database.execute("UPDATE journals SET segment = segment")
    with Serve(data, "--config", str(config)) as serve:
        serve.until_said("the ledger cannot say what was used of quotas")
        serve.until_ready()
        assert spend(serve, secret, "open")[0] == 200
        assert left(serve, secret) > 0
        database.close()
        serve.until(lambda: left(serve, secret) == 0)
        serve.until_said("is counted again")
        assert spend(serve, secret, "open") == (429, "insufficient_quota", "false")
