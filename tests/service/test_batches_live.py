"""Batches of a real service that is killed and started again: nothing is lost, nothing comes twice."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import httpx
from jobs import CHAT, EMBEDDINGS, OVER, jsonl, line

from live import Serve, free_port
from scibox.engines.fake_dialect import prompt_text, words_about

LINES = 1000
CONFIGURATION = """
[batches]
concurrency = 2
[models.chatty]
kind = "chat"
[[models.chatty.deployments]]
engine = "fake"
[models.vectors]
kind = "embedding"
[[models.vectors.deployments]]
engine = "fake"
"""
# How the service ends, and how far its batches are then.
ENDS = [(signal.SIGKILL, 0.05), (signal.SIGKILL, 0.3), (signal.SIGTERM, 0.5), (signal.SIGKILL, 0.8)]


class Batches:
    """The service's batches, asked over its port."""

    def __init__(self, serve: Serve, secret: str) -> None:
        headers = {"authorization": f"Bearer {secret}"}
        self.http = httpx.Client(base_url=serve.base_url, headers=headers, timeout=30)
        self.serve = serve

    def start(self, url: str, prefix: str) -> str:
        content = jsonl(line(f"{prefix}{n}", url) for n in range(LINES))
        made = self.http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)})
        body = {"input_file_id": made.json()["id"], "endpoint": url, "completion_window": "24h"}
        return str(self.http.post("/v1/batches", json=body).json()["id"])

    def get(self, batch_id: str) -> dict[str, Any]:
        return dict(self.http.get(f"/v1/batches/{batch_id}").json())

    def until_done(self, ids: list[str], share: float) -> None:
        def so_far() -> int:
            return sum(self.get(batch_id)["request_counts"]["completed"] for batch_id in ids)

        self.serve.until(lambda: so_far() >= share * LINES * len(ids))

    def until_over(self, batch_id: str) -> dict[str, Any]:
        self.serve.until(lambda: self.get(batch_id)["status"] in OVER)
        return self.get(batch_id)

    def results(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        content = self.http.get(f"/v1/files/{batch['output_file_id']}/content").content
        return [json.loads(text) for text in content.splitlines()]


def test_batches_outlive_the_service_however_it_ends(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "scibox.toml"
    config.write_text(CONFIGURATION)
    port, secret, ids = free_port(), "", []
    for number, share in ENDS:
        with Serve(data, "--config", str(config), port=port) as serve:
            serve.until_ready()
            secret = secret or serve.operator_secret()
            batches = Batches(serve, secret)
            ids = ids or [batches.start(CHAT, "c"), batches.start(EMBEDDINGS, "e")]
            batches.until_done(ids, share)
            states = [batches.get(batch_id) for batch_id in ids]
            batches.http.close()
            code = serve.stop(number)
            assert code == (0 if number == signal.SIGTERM else -number)
            assert any(state["status"] == "in_progress" for state in states)
    with Serve(data, "--config", str(config), port=port) as serve:
        serve.until_ready()
        batches = Batches(serve, secret)
        form = {"content-type": "multipart/form-data; boundary=xYz"}
        assert batches.http.post("/v1/files", content=b"no form", headers=form).status_code == 400
        ended = [batches.until_over(batch_id) for batch_id in ids]
        chats, texts = (batches.results(batch) for batch in ended)
        batches.http.close()
        said = serve.said()

    assert "boundary" not in said.lower()  # what is wrong with a form is its client's to know
    for batch in ended:
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
    assert sorted(item["custom_id"] for item in chats) == sorted(f"c{n}" for n in range(LINES))
    assert sorted(item["custom_id"] for item in texts) == sorted(f"e{n}" for n in range(LINES))
    for item in chats:
        prompt = prompt_text([{"role": "user", "content": f"say {item['custom_id']}"}])
        said = item["response"]["body"]["choices"][0]["message"]["content"]
        assert said == "".join(words_about(prompt))
