"""The ledger of a real service that is killed under load: what clients were given is in it, once (PROMISES R1, R5)."""

from __future__ import annotations

import csv
import io
import json
import random
import signal
import threading
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path

from live import Serve, scibox

LIVES = 3
CLIENTS = 4
CONFIGURATION = """
[models.chatty]
kind = "chat"
price = { prompt = 1000.0, completion = 1000.0 }
[[models.chatty.deployments]]
engine = "fake"
"""


class Clients:
    """Send calls until they are told to stop; keep the request id and the tokens of every whole answer."""

    def __init__(self, port: int, secret: str) -> None:
        self.given: dict[str, int] = {}
        self.sent = 0
        self._port = port
        self._secret = secret
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, number: int) -> None:
        is_stream = number % 2 == 0
        body = {"model": "chatty", "messages": [{"role": "user", "content": "go on"}], "stream": is_stream}
        while not self._stop.is_set():
            request = urllib.request.Request(
                f"http://127.0.0.1:{self._port}/v1/chat/completions",
                json.dumps(
                    {**body, "stream_options": {"include_usage": True}} if is_stream else body
                ).encode(),
                {"authorization": f"Bearer {self._secret}", "content-type": "application/json"},
            )
            with self._lock:
                self.sent += 1
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    request_id, text = answer.headers["x-request-id"], answer.read().decode()
            except (OSError, HTTPException):  # killed before or in the middle
                time.sleep(0.01)
                continue
            if not is_stream or text.endswith("data: [DONE]\n\n"):
                last = text.split("\n\n")[-3].removeprefix("data: ") if is_stream else text
                with self._lock:
                    self.given[request_id] = json.loads(last)["usage"]["total_tokens"]


def test_every_answer_is_in_the_ledger_once_whenever_the_service_is_killed(
    data: Path, tmp_path: Path
) -> None:
    chance = random.Random(3)
    config = tmp_path / "scibox.toml"
    config.write_text(CONFIGURATION)
    given: dict[str, int] = {}
    sent, secret = 0, ""
    for _ in range(LIVES):
        with Serve(data, "--config", str(config)) as serve:
            serve.until_ready()
            secret = secret or serve.operator_secret()
            clients = Clients(serve.port, secret)
            time.sleep(chance.uniform(0.5, 1.5))
            serve.stop(signal.SIGKILL)
            clients.stop()
            given |= clients.given
            sent += clients.sent
    with Serve(data, "--config", str(config)) as serve:
        serve.until_ready()
        status, page = serve.get("/admin/v1/usage?bucket_width=all&group_by=outcome", secret)
        assert status == 200
        while_running = scibox(data, "usage", "--by", "outcome", "--format", "csv", "--config", str(config))
        assert serve.stop() == 0
    left = sorted(path.name for path in (data / "journal").iterdir())
    exported = scibox(data, "usage", "export", "--config", str(config))
    rows = list(csv.DictReader(io.StringIO(exported.stdout)))
    sums = scibox(data, "usage", "--by", "outcome", "--format", "csv", "--config", str(config))

    tokens = {row["request_id"]: int(row["prompt_tokens"]) + int(row["completion_tokens"]) for row in rows}
    assert len(tokens) == len(rows) <= sent
    assert {name: tokens.get(name) for name in given} == given
    assert len(given) > LIVES * CLIENTS
    assert left == ["feeder.lock", "node"]
    by_outcome = {row["outcome"]: int(row["calls"]) for row in csv.DictReader(io.StringIO(sums.stdout))}
    assert sum(by_outcome.values()) == len(rows)
    assert by_outcome["finished"] >= len(given)
    assert while_running.stdout == sums.stdout
    told = {one["outcome"]: one["num_model_requests"] for one in page["data"][0]["results"]}
    assert told == {name: count for name, count in by_outcome.items() if name in told}
    priced = [row for row in rows if row["outcome"] == "finished"]
    assert all(abs(float(row["price"]) * 1000 - tokens[row["request_id"]]) < 1e-6 for row in priced)
