"""A model server that always says the same words, goes on from any of them, and breaks off at any byte."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

How = Literal["reset", "close", "stall", "chunk", "utf-8", "html"]
"""How it breaks off: RST; the end of the body without `[DONE]`; silence; bytes that are no HTTP chunk; bytes that are no text; a page
in the middle of the stream."""
WORDS = (
    "Once",
    " upon",
    " a",
    " time",
    ",",
    "\n\n",
    "a",
    " king",
    " «said»",
    " привет",
    " to",
    " 🜂",
    " all",
    ".",
)
TEXT = "".join(WORDS)
PROMPT_TOKENS = 7
HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


class Continuing:
    """It breaks off after `break_at` bytes of its events, with all calls or with the first `breaks`."""

    def __init__(self, how: How | None = None, break_at: int = 0, breaks: int = 1, number: int = 0) -> None:
        self.how = how
        self.break_at = break_at
        self.breaks = breaks
        self.number = number
        self.asked: list[dict[str, Any]] = []
        self.address = ""
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Continuing:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def events(self, body: dict[str, Any]) -> list[bytes]:
        """What it says to that call, whole."""
        is_chat = "messages" in body
        begun = self._begun(body)
        assert TEXT.startswith(begun), begun
        rest, said = [], ""
        for word in WORDS:  # a word that was cut comes whole
            said += word
            if len(said) > len(begun):
                rest.append(said[max(len(begun), len(said) - len(word)) :])
        used = len(WORDS) - len(rest)
        limit = body.get("max_tokens") or len(rest)
        reason = "length" if limit < len(rest) else "stop"
        rest = rest[:limit]
        choices: list[dict[str, Any]] = [{"delta": {"role": "assistant", "content": ""}}] if is_chat else []
        choices += [{"delta": {"content": word}} if is_chat else {"text": word} for word in rest]
        choices.append(
            {"delta": {}, "finish_reason": reason} if is_chat else {"text": "", "finish_reason": reason}
        )
        envelope = {"id": f"answer-{self.number}", "created": 5 + self.number, "model": "fake-model"}
        made = [{**envelope, "choices": [{"index": 0, "finish_reason": None, **one}]} for one in choices]
        usage = {"prompt_tokens": PROMPT_TOKENS + used, "completion_tokens": len(rest)}
        made.append({**envelope, "choices": [], "usage": usage})
        events = [b"data: " + json.dumps(one, ensure_ascii=False).encode() + b"\n\n" for one in made]
        return [*events, b"data: [DONE]\n\n"]

    def _begun(self, body: dict[str, Any]) -> str:
        if "prompt" in body:
            return str(body["prompt"]).removeprefix("Tell:")
        last = body["messages"][-1]
        if last["role"] != "assistant":
            return ""
        assert body["continue_final_message"]
        assert body["add_generation_prompt"] is False
        return str(last["content"])

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                body = json.loads(await reader.readexactly(size) or b"{}")
                if b"/tokenize" in head.partition(b"\r\n")[0]:
                    await self._tokenize(writer, body)
                elif await self._answer(writer, body):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _tokenize(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        text, count = str(body["prompt"]), 0
        while len("".join(WORDS[:count])) < len(text):
            count += 1
        told = json.dumps({"count": count, "max_model_len": 4096, "tokens": [0] * count}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(told) + told)
        await writer.drain()

    async def _answer(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> bool:
        """Answer one call; whether the connection is over."""
        breaks_now = self.how is not None and len(self.asked) < self.breaks
        self.asked.append(body)
        said = b"".join(self.events(body))
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        if not breaks_now:
            writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(said), said))
            await writer.drain()
            return False
        said = said[: self.break_at]
        writer.write(b"%x\r\n%b\r\n" % (len(said), said) if said else b"")
        await writer.drain()
        await self._break(writer)
        return True

    async def _break(self, writer: asyncio.StreamWriter) -> None:
        match self.how:
            case "reset":
                await asyncio.sleep(0.003)  # what was said must arrive before the RST
                writer.transport.abort()
            case "close":
                writer.write(b"0\r\n\r\n")
            case "chunk":
                writer.write(b"zz\r\n")
            case "utf-8":
                writer.write(b'13\r\ndata: {"x": "\xff\xff"}\n\n\r\n')
            case "html":
                writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(HTML), HTML))
            case _:
                await asyncio.sleep(30.0)
        if not writer.transport.is_closing():
            await writer.drain()
