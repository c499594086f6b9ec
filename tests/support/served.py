"""One model on one engine, asked through the router as the pipeline does; streams put together as clients do."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

from scibox.core.types import ModelCard, Usage
from scibox.router.replica import Deployment, Replica, Route
from scibox.router.router import Router
from scibox.wire import chat

HI = [{"role": "user", "content": "Tell me about Ada Lovelace."}]


class Served:
    """One model, asked call by call."""

    def __init__(self, router: Router, replica: Replica) -> None:
        self.router = router
        self.replica = replica
        self.route = Route(ModelCard("m", "chat", "scibox", 1, 1024), (Deployment((replica,)),))
        self.usage = Usage()

    async def ask(self, **fields: Any) -> dict[str, Any]:
        """A whole answer."""
        [body] = await self._chunks(fields)
        answer: dict[str, Any] = json.loads(body)
        return answer

    async def stream(self, **fields: Any) -> list[dict[str, Any]]:
        """The events of a streamed answer, which ends with `[DONE]`."""
        sent = await self._chunks({**fields, "stream": True})
        assert all(event.startswith(b"data: ") and event.endswith(b"\n\n") for event in sent)
        assert sent.pop() == b"data: [DONE]\n\n"
        return [json.loads(event[6:]) for event in sent]

    async def _chunks(self, fields: dict[str, Any]) -> list[bytes]:
        body = {"model": "m", "messages": HI, "temperature": 0, "max_tokens": 100, **fields}
        call = chat.parse("r", json.dumps(body).encode())
        data = []
        async with aclosing(self.router.stream(call, self.route)) as chunks:
            async for chunk in chunks:
                self.usage = chunk.usage or self.usage
                if chunk.data:
                    data.append(chunk.data)
        return data


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def finish_of(chunks: list[dict[str, Any]]) -> str | None:
    [reason] = [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    return str(reason)


def calls_of(chunks: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The calls of a stream, put together as clients do it."""
    calls: list[dict[str, str]] = []
    for chunk in chunks:
        for piece in chunk["choices"][0]["delta"].get("tool_calls", ()) if chunk["choices"] else ():
            if piece["index"] == len(calls):
                assert piece["type"] == "function"
                calls.append({"id": piece["id"], "name": piece["function"]["name"], "arguments": ""})
            calls[piece["index"]]["arguments"] += piece["function"]["arguments"]
    return calls
