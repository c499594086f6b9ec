"""How the fake engine answers one request, and how the answer goes wrong when the script says so."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any

import msgspec

from scibox.engines import fake_completions as completions
from scibox.engines import fake_dialect as dialect
from scibox.engines.fake_script import Broken, Fault, Received, Running, Script

if TYPE_CHECKING:
    from scibox.engines.fake import FakeEngine

Completion = dialect.Completion | completions.TextCompletion
JSON = "application/json; charset=utf-8"
SSE = "text/event-stream"


async def answer(engine: FakeEngine, writer: asyncio.StreamWriter, request: Received) -> None:
    """Answer one request; raises Broken when the script ends the connection."""
    try:
        match request.method, request.path:
            case "GET", "/health" if engine.loading:
                await _send(writer, 503, dialect.error_json(503, "Loading model", "unavailable_error"))
            case "GET", "/health":
                await _send(writer, 200, b'{"status":"ok"}')
            case "GET", "/v1/models":
                await _send(writer, 200, _models(engine))
            case "POST", "/v1/chat/completions":
                await _chat(engine, writer, request)
            case "POST", "/v1/completions":
                await _completion(engine, writer, request)
            case "POST", "/v1/embeddings":
                await _embeddings(engine, writer, request)
            case "POST", "/tokenize":
                await _send(writer, 200, dialect.tokenized(request.json, engine.name, engine.context))
            case "POST", "/v1/rerank":
                await _rerank(engine, writer, request)
            case "POST", "/detokenize":
                await _send(writer, 200, dialect.detokenized(_field(request, "tokens", list)))
            case "POST", "/apply-template":
                prompt = dialect.prompt_text(_field(request, "messages", list)) + engine.prompt_end
                await _send(writer, 200, msgspec.json.encode({"prompt": prompt}))
            case _:
                await _send(writer, 404, dialect.error_json(404, "File Not Found", "not_found_error"))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        await _send(writer, 400, dialect.error_json(400, str(error), "invalid_request_error"))


def _models(engine: FakeEngine) -> bytes:
    return dialect.models_list(engine.name, engine.created, engine.context, engine.owned_by)


def _field(request: Received, name: str, kind: type) -> Any:  # Any: of the `kind` that the caller names
    value = request.json.get(name) if isinstance(request.json, dict) else None
    if not isinstance(value, kind):
        raise msgspec.ValidationError(f'"{name}" must be {kind.__name__}')
    return value


async def _chat(engine: FakeEngine, writer: asyncio.StreamWriter, request: Received) -> None:
    body = msgspec.json.decode(request.body, type=dialect.ChatBody)
    script = engine.take_script()
    completion = dialect.complete(
        body, script, model=engine.name, created=engine.created, number=len(engine.requests)
    )
    await _play(engine, writer, request, completion, body, script=script)


async def _completion(engine: FakeEngine, writer: asyncio.StreamWriter, request: Received) -> None:
    body = msgspec.json.decode(request.body, type=completions.CompletionBody)
    script = engine.take_script()
    completion = completions.complete(
        body, script.chunks, model=engine.name, created=engine.created, number=len(engine.requests)
    )
    await _play(engine, writer, request, completion, body, script=script)


async def _play(
    engine: FakeEngine,
    writer: asyncio.StreamWriter,
    request: Received,
    completion: Completion,
    body: dialect.ChatBody | completions.CompletionBody,
    *,
    script: Script,
) -> None:
    with engine.call(request) as running:
        if completion.usage.prompt_tokens >= engine.context:
            await _send(writer, 400, _too_long(completion.usage.prompt_tokens, engine.context))
            return
        await _delay(writer, script)
        if script.status != 200 or script.html_with_200:
            await _send_scripted(writer, script)
            return
        if body.stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            await _Stream(writer, script, running).play(completion, usage)
        else:
            await asyncio.sleep(script.chunk_delay_s * len(completion.deltas))
            await _send_whole(writer, script, completion.json())
        engine.answered(completion.id, completion.usage, running)


async def _embeddings(engine: FakeEngine, writer: asyncio.StreamWriter, request: Received) -> None:
    body = msgspec.json.decode(request.body, type=dialect.EmbeddingsBody)
    script = engine.take_script()
    with engine.call(request) as running:
        await _delay(writer, script)
        if script.status != 200 or script.html_with_200 or script.body is not None:
            await _send_scripted(writer, script)
            return
        longest = dialect.longest(body)
        if longest > engine.context:
            await _send(writer, 400, _too_long(longest, engine.context))
            return
        text, usage = dialect.embed(body, model=engine.name, dimensions=engine.dimensions)
        await _send_whole(writer, script, text)
        engine.answered(f"embd-fake{len(engine.requests)}", usage, running)


async def _rerank(engine: FakeEngine, writer: asyncio.StreamWriter, request: Received) -> None:
    body = msgspec.json.decode(request.body, type=dialect.RerankBody)
    script = engine.take_script()
    with engine.call(request) as running:
        await _delay(writer, script)
        if script.status != 200 or script.html_with_200 or script.body is not None:
            await _send_scripted(writer, script)
            return
        text, usage = dialect.rerank(body, model=engine.name, dimensions=engine.dimensions)
        await _send_whole(writer, script, text)
        engine.answered(f"rerank-fake{len(engine.requests)}", usage, running)


def _too_long(prompt_tokens: int, context: int) -> bytes:
    message = f"request ({prompt_tokens} tokens) exceeds the available context size ({context} tokens)"
    kind = "exceed_context_size_error"
    return dialect.error_json(400, message, kind, n_prompt_tokens=prompt_tokens, n_ctx=context)


async def _delay(writer: asyncio.StreamWriter, script: Script) -> None:
    if script.refuse:
        reset(writer)
        raise Broken
    await asyncio.sleep(script.first_chunk_delay_s)


async def _send_scripted(writer: asyncio.StreamWriter, script: Script) -> None:
    if script.html_with_200:
        await _send(writer, 200, dialect.HTML, "text/html", script.headers)
        return
    body = script.body
    if body is None:
        body = dialect.error_json(script.status, "This error was scripted.", "server_error")
    await _send(writer, script.status, body, JSON, script.headers)


async def _send_whole(writer: asyncio.StreamWriter, script: Script, body: bytes) -> None:
    if script.fault is None:
        await _send(writer, 200, body)
        return
    if script.fault == "garbage":
        await _send(writer, 200, dialect.GARBAGE)
        raise Broken
    if script.after_chunks:
        writer.write(_head(200, JSON, len(body)) + body[: len(body) // 2])
        await writer.drain()
    await _strike(writer, "close" if script.fault in ("end", "error") else script.fault)


async def _strike(writer: asyncio.StreamWriter, fault: Fault) -> None:
    """End the connection in the scripted way."""
    if fault == "stall":
        await asyncio.Event().wait()  # until the client leaves: the reading side cancels us
    if fault == "reset":
        reset(writer)
    raise Broken


class _Stream:
    """One server-sent event stream in HTTP chunks, one per event unless the script splits them."""

    def __init__(self, writer: asyncio.StreamWriter, script: Script, running: Running) -> None:
        self.writer = writer
        self.script = script
        self.running = running
        self.begun = False

    async def play(self, completion: Completion, include_usage: bool) -> None:
        """Send the whole stream; raises Broken where the script says so."""
        script = self.script
        for index, events in enumerate(completion.steps()):
            if script.fault is not None and index == script.after_chunks:
                await self._fail(script.fault)
            if index:
                await asyncio.sleep(script.chunk_delay_s)
            opening = completion.opening() if index == 0 else []
            await self._write(*opening, *events)
            self.running.completion_tokens = index + 1
        if script.fault is not None:
            await self._fail(script.fault)
        await self._write(*([] if completion.deltas else completion.opening()))
        await self._write(*completion.closing(include_usage), end=True)

    async def _fail(self, fault: Fault) -> None:
        match fault:
            case "garbage":
                await self._write(dialect.GARBAGE, end=True)
            case "error":
                body = dialect.error_json(500, "This error was scripted.", "server_error")
                await self._write(b"data: " + body + b"\n\n", end=True)
            case "end":
                await self._write(end=True)
            case _:
                await _strike(self.writer, fault)
        raise Broken

    async def _write(self, *events: bytes, end: bool = False) -> None:
        if not self.begun:
            self.begun = True
            self.writer.write(_head(200, SSE, None))
        for event in events:
            for piece in _pieces(event, self.script.split_bytes):
                self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await self.writer.drain()
                if self.script.split_bytes:
                    await asyncio.sleep(0)  # lets a reader on the same loop see the pieces apart
        if end:
            self.writer.write(b"0\r\n\r\n")
            await self.writer.drain()


def _pieces(event: bytes, size: int | None) -> list[bytes]:
    return [event] if size is None else [event[at : at + size] for at in range(0, len(event), size)]


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes,
    content_type: str = JSON,
    headers: tuple[tuple[str, str], ...] = (),
) -> None:
    writer.write(_head(status, content_type, len(body), headers) + body)
    await writer.drain()


def _head(
    status: int, content_type: str, length: int | None, headers: tuple[tuple[str, str], ...] = ()
) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    more = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} Fake\r\nContent-Type: {content_type}\r\n{framing}\r\n{more}\r\n".encode(
        "latin-1"
    )


def reset(writer: asyncio.StreamWriter) -> None:
    """Drop the connection without a goodbye: RST on TCP (SO_LINGER with 0 s), a bare close elsewhere."""
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.family != socket.AF_UNIX:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
