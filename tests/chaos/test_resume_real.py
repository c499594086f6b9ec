"""Two real engines, one killed in the middle of its answer: with greedy decoding the other says the very same text."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import pytest
from world import IS_LONG

from rig import socket_folder
from scibox.core.types import ModelCard, Usage
from scibox.engines import llama
from scibox.engines.supervisor import Supervisor
from scibox.router.replica import Deployment, Replica, Route
from scibox.router.router import Deadlines, Router
from scibox.upstream.address import Address
from scibox.upstream.client import Client
from scibox.wire import chat

TOKENS = 48
# From 64 prompt tokens in one batch on llama.cpp's attention on CPU is another kernel, with other last digits than
# those of single steps (docs/engines.md): with smaller batches a text that is read again is what it was when it was written.
BATCH = 63
QUESTIONS = ("Write a short story about a lighthouse keeper.", "Explain how rain forms, step by step.")
INDEXES = range(1, TOKENS) if IS_LONG else (1, 27, 40)


class Pair:
    """Two engines with the same weights; the first is asked first."""

    def __init__(self, router: Router, supervisors: list[Supervisor]) -> None:
        self.router = router
        self.supervisors = supervisors
        self._killed: int | None = None

    def _route(self) -> Route:
        """Replicas that have not failed yet: a breaker remembers."""
        addresses = [Address.parse(f"unix:{one.socket}") for one in self.supervisors]
        replicas = [
            Replica(address, "small", context=1024, is_local=True, counts=True, dialect="llama")
            for address in addresses
        ]
        card = ModelCard("m", "chat", "scibox", 1, 1024)
        return Route(card, tuple(Deployment((one,)) for one in replicas))

    async def text(self, question: str, kill_at: int | None = None) -> tuple[str, Usage, list[bytes]]:
        """The answer, its usage and the comments in it; the first engine is killed after so many pieces."""
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "stream": True,
        }
        call = chat.parse("r", json.dumps({**body, "max_tokens": TOKENS}).encode())
        texts: list[str] = []
        comments: list[bytes] = []
        usage = Usage()
        async with aclosing(self.router.stream(call, self._route())) as chunks:
            async for chunk in chunks:
                usage = chunk.usage or usage
                if chunk.data.startswith(b":"):
                    comments.append(chunk.data)
                elif chunk.data.startswith(b"data: {"):
                    for choice in json.loads(chunk.data[6:])["choices"]:
                        texts.append(choice["delta"].get("content") or "")
                if kill_at is not None and len(list(filter(None, texts))) >= kill_at:
                    self._kill()
                    kill_at = None
        assert chunk.is_last
        return "".join(texts), usage, comments

    def _kill(self) -> None:
        pid = self.supervisors[0].pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        self._killed = pid

    async def ready(self) -> None:
        """Both answer; the supervisor hears of a death a moment later."""
        while self._killed is not None and self.supervisors[0].pid == self._killed:
            await asyncio.sleep(0.01)
        for supervisor in self.supervisors:
            await supervisor.wait_ready()


@asynccontextmanager
async def pair(weights: Path) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(socket_folder())
        client = Client(1.0)
        stack.callback(client.close)
        supervisors = []
        for name in ("one", "two"):
            socket = folder / f"{name}.sock"
            settings = llama.Settings(str(socket), str(weights), "small", slots=1, context=1024, batch=BATCH)
            supervisor = Supervisor(name, llama.command(settings), socket, report=lambda event: None)
            await supervisor.start()
            stack.push_async_callback(supervisor.stop)
            supervisors.append(supervisor)
        found = Pair(Router(client, Deadlines(60, 60, 120)), supervisors)
        await found.ready()
        yield found


@pytest.mark.real
@pytest.mark.timeout(3600 if IS_LONG else 300)
async def test_the_text_is_the_same_wherever_the_engine_is_killed(models_dir: Path) -> None:
    [weights] = sorted((models_dir / "smollm2-135m-instruct").glob("*.gguf"))
    async with pair(weights) as two:
        for question in QUESTIONS:
            expected, usage, comments = await two.text(question)
            assert comments == []
            assert usage.completion_tokens > 8
            for index in INDEXES:
                text, resumed_usage, comments = await two.text(question, kill_at=index)

                assert text == expected, index
                assert resumed_usage.prompt_tokens == usage.prompt_tokens
                assert resumed_usage.completion_tokens == usage.completion_tokens
                assert comments == [b": resumed on another replica\n\n"]
                await two.ready()
