"""An engine killed again and again under load: nobody is left without an end, nothing is lost or counted twice."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from live import Serve

KILLS = 4
CLIENTS = 8
TOKENS = 16


@dataclass
class Tally:
    """How calls ended, as their clients saw it."""

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, end: str, text: str = "") -> None:
        with self.lock:
            self.ends[end] += 1
            if end == "wrong":
                self.wrong.append(text)


def call(port: int, secret: str, stream: bool) -> tuple[str, str]:
    """One call: how it ended, and its body when that is against the rules."""
    body = {
        "model": "smollm2-135m-instruct",
        "messages": [{"role": "user", "content": "Count upwards."}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": stream,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"authorization": f"Bearer {secret}"}
        )
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status != 200:
        error = json.loads(text)["error"]
        is_clear = answer.status in {502, 503} and error["code"].startswith("upstream_")
        return ("refused", "") if is_clear else ("wrong", text)
    if not stream:
        whole = json.loads(text)["usage"]["completion_tokens"] == TOKENS
        return ("finished", "") if whole else ("wrong", text)
    if text.endswith("data: [DONE]\n\n") and '"error"' not in text:
        return "resumed" if ": resumed on" in text else "finished", ""
    last = text.rstrip().rpartition("\n\n")[2].removeprefix("data: ")
    is_clear = "[DONE]" not in text and json.loads(last)["error"]["code"].startswith("upstream_")
    return ("broken off", "") if is_clear else ("wrong", text)


def engines(serve: Serve) -> list[int]:
    return [pid for pid in serve.children() if b"llama" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.real
def test_every_call_has_one_clear_end_while_the_engine_is_killed(data_with_models: Path) -> None:
    chance = random.Random(7)
    with Serve(data_with_models) as serve:
        serve.until_ready()
        secret = serve.operator_secret()
        tally, stop = Tally(), threading.Event()

        def client(number: int) -> None:
            while not stop.is_set():
                tally.note(*call(serve.port, secret, stream=number % 2 == 0))

        clients = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for one in clients:
            one.start()
        for _ in range(KILLS):
            time.sleep(chance.uniform(1.0, 2.5))
            # `ready` may still be of the one that was killed: the service hears of its death a moment later.
            serve.until(lambda: len(engines(serve)) == 1)
            [engine] = engines(serve)
            os.kill(engine, signal.SIGKILL)
            serve.until(lambda gone=engine: gone not in serve.children())
            serve.until_ready()
        time.sleep(1.0)
        stop.set()
        for one in clients:
            one.join(60)

        calls = sum(tally.ends.values())
        assert tally.wrong == []
        assert tally.ends["finished"] > 0
        assert tally.ends["broken off"] + tally.ends["refused"] + tally.ends["resumed"] > 0  # they were felt
        serve.until(lambda: serve.said().count(" request=req_") == calls, within_s=5)  # one entry each
        assert serve.said().count("upstream_error") == tally.ends["broken off"] + tally.ends["refused"]
        assert serve.said().count("client_gone") == 0
        assert (
            serve.post("/v1/embeddings", {"model": "multilingual-e5-small", "input": "x"}, secret)[0] == 200
        )
