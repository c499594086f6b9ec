"""Batches over HTTP, for tests: input files, results, waiting for an end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import httpx

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
OVER = {"completed", "failed", "expired", "cancelled"}


def line(custom_id: str, url: str = CHAT, **changes: object) -> dict[str, Any]:
    """A line of an input file; the call's own words are in it, so that its answer can be told apart."""
    body: dict[str, object] = (
        {"model": "chatty", "messages": [{"role": "user", "content": f"say {custom_id}"}]}
        if url == CHAT
        else {"model": "vectors", "input": f"text {custom_id}"}
    )
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {**body, **changes}}


def jsonl(lines: Iterable[object]) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in lines)


async def upload(
    client: httpx.AsyncClient, content: bytes, name: str = "in.jsonl", **fields: str
) -> httpx.Response:
    data = {"purpose": "batch", **fields}
    return await client.post("/v1/files", data=data, files={"file": (name, content)})


async def start(client: httpx.AsyncClient, content: bytes, url: str = CHAT, **more: object) -> dict[str, Any]:
    """A new batch over a new file."""
    file = (await upload(client, content)).json()
    body = {"input_file_id": file["id"], "endpoint": url, "completion_window": "24h", **more}
    answer = await client.post("/v1/batches", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def look(client: httpx.AsyncClient, batch_id: str) -> dict[str, Any]:
    return dict((await client.get(f"/v1/batches/{batch_id}")).json())


async def until_over(client: httpx.AsyncClient, batch_id: str, seconds: float = 60) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        while (batch := await look(client, batch_id))["status"] not in OVER:
            await asyncio.sleep(0.02)
    return batch


async def until_done(client: httpx.AsyncClient, batch_id: str, lines: int, seconds: float = 60) -> None:
    """Until so many lines are recorded."""
    async with asyncio.timeout(seconds):
        while (await look(client, batch_id))["request_counts"]["completed"] < lines:
            await asyncio.sleep(0.01)


async def results(client: httpx.AsyncClient, file_id: str | None) -> dict[str, Any]:
    """The lines of a result file by their custom id; each is there once."""
    assert file_id is not None
    answer = await client.get(f"/v1/files/{file_id}/content")
    assert answer.status_code == 200, answer.text
    lines = [json.loads(text) for text in answer.content.splitlines()]
    found = {item["custom_id"]: item for item in lines}
    assert len(found) == len(lines)
    return found
