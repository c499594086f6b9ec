"""Batches through the door: what comes out of them, and what happens when things go wrong on their way."""

from __future__ import annotations

import asyncio
from typing import Any

import jobs
from jobs import CHAT, EMBEDDINGS, jsonl, line, results, start, until_over
from rig import rig


async def test_a_thousand_lines_of_each_kind_are_answered_once_each() -> None:
    async with rig() as r:
        chats = jsonl(line(f"c{n}") for n in range(1000))
        texts = jsonl(line(f"e{n}", EMBEDDINGS) for n in range(1000))
        first = await start(r.client, chats, metadata={"for": "test"})
        second = await start(r.client, texts, EMBEDDINGS)
        done = [await until_over(r.client, batch["id"]) for batch in (first, second)]
        chat_results, text_results = [await results(r.client, b["output_file_id"]) for b in done]
        listed = await r.client.get("/v1/files", params={"purpose": "batch_output"})

    assert first["status"] == "validating"
    for batch in done:
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 1000, "completed": 1000, "failed": 0}
        assert batch["error_file_id"] is batch["errors"] is None
    assert done[0]["metadata"] == {"for": "test"}
    assert set(chat_results) == {f"c{n}" for n in range(1000)}
    assert set(text_results) == {f"e{n}" for n in range(1000)}
    for custom_id, result in chat_results.items():
        assert result["error"] is None
        assert result["response"]["status_code"] == 200
        assert result["response"]["body"]["object"] == "chat.completion"
        assert custom_id in result["response"]["body"]["choices"][0]["message"]["content"]
    assert len(r.ended) == 2000  # each was a call like any other
    assert {file["id"] for file in listed.json()["data"]} == {b["output_file_id"] for b in done}
