"""The embedder's door: a small ASGI application on a Unix socket."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from scibox.core.errors import BodyTooLarge, MethodNotAllowed, NotFound, SciBoxError, UpstreamUnavailable
from scibox.engines.embedder import reply, request
from scibox.engines.embedder.desk import Desk
from scibox.engines.embedder.splitter import Splitter

# ASGI's own types are open mappings.
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
T = TypeVar("T")

# The gateway's own limit is lower; this one only bounds memory if something else speaks to the socket.
BODY_LIMIT_BYTES = 64 << 20


class Gone(Exception):  # not an error: clients leave
    """The client has left."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything that exists once the weights are loaded."""

    splitter: Splitter
    desk: Desk
    dimensions: int
    max_tokens: int


class App:
    """Answers 503 until `ready` is set, then embeds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._created = int(time.time())
        # Splitting a large call takes seconds; small ones must not wait for it, so there are a few threads.
        self._splitting = ThreadPoolExecutor(4, thread_name_prefix="splitter")
        self.ready: Ready | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, or the server's lifespan."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        try:
            await _send(send, *await self._answer(scope["method"], scope["path"], receive))
        except Gone:
            return
        except SciBoxError as error:
            await _send(send, error.status, _error(error))
        except Exception as error:  # the border: anything else is our fault, said in one line
            sys.stderr.write(f"embedder: {type(error).__name__}: {error}\n")
            await _send(send, 500, _error(SciBoxError("The embedder failed on this call.")))

    async def _answer(self, method: str, path: str, receive: Receive) -> tuple[int, bytes]:
        routes: dict[str, tuple[str, Callable[[Receive], Awaitable[tuple[int, bytes]]]]] = {
            "/health": ("GET", self._health),
            "/v1/models": ("GET", self._models),
            "/v1/embeddings": ("POST", self._embeddings),
            "/tokenize": ("POST", self._tokenize),
            "/detokenize": ("POST", self._detokenize),
        }
        if path not in routes:
            raise NotFound(f"The embedder has no {path}.")
        wanted, route = routes[path]
        if method != wanted:
            raise MethodNotAllowed(f"{path} wants {wanted}.")
        return await route(receive)

    async def _health(self, _: Receive) -> tuple[int, bytes]:
        return (200, b'{"status":"ok"}') if self.ready else (503, b'{"status":"loading"}')

    async def _models(self, _: Receive) -> tuple[int, bytes]:
        ready = self._loaded()
        entry = {
            "id": self._name,
            "object": "model",
            "created": self._created,
            "owned_by": "scibox",
            "max_model_len": ready.max_tokens,
            "dimensions": ready.dimensions,
        }
        return 200, msgspec.json.encode({"object": "list", "data": [entry]})

    async def _embeddings(self, receive: Receive) -> tuple[int, bytes]:
        ready = self._loaded()
        call = request.decode(await _body(receive), request.Embed)
        request.check(call, ready.dimensions)
        texts = request.texts(call.input)
        return 200, await _unless_gone(self._embed(ready, texts, call.encoding_format == "base64"), receive)

    async def _embed(self, ready: Ready, texts: list[str], as_base64: bool) -> bytes:
        loop = asyncio.get_running_loop()
        ids = await loop.run_in_executor(self._splitting, ready.splitter.split, texts)
        vectors = await ready.desk.embed(ids)
        return reply.render(
            self._name, vectors, as_base64=as_base64, prompt_tokens=[len(text) for text in ids]
        )

    async def _tokenize(self, receive: Receive) -> tuple[int, bytes]:
        ready = self._loaded()
        call = request.decode(await _body(receive), request.Tokenize)
        ids = await asyncio.to_thread(ready.splitter.ids, call.content, special=call.add_special)
        if not call.with_pieces:
            return 200, msgspec.json.encode({"tokens": ids})
        pieces = [{"id": one, "piece": ready.splitter.piece(one)} for one in ids]
        return 200, msgspec.json.encode({"tokens": pieces})

    async def _detokenize(self, receive: Receive) -> tuple[int, bytes]:
        ready = self._loaded()
        call = request.decode(await _body(receive), request.Detokenize)
        text = await asyncio.to_thread(ready.splitter.text, call.tokens)
        return 200, msgspec.json.encode({"content": text})

    def _loaded(self) -> Ready:
        if self.ready is None:
            raise UpstreamUnavailable(
                "The embedding model is still loading.", code="loading", retry_after_s=1
            )
        return self.ready


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_LIMIT_BYTES:
            raise BodyTooLarge(f"The body is over {BODY_LIMIT_BYTES} bytes.")
        if not message.get("more_body"):
            return b"".join(parts)


async def _unless_gone(work: Awaitable[T], receive: Receive) -> T:
    """The work's result; the work is cancelled as soon as the client leaves."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Gone
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _live(receive: Receive, send: Send) -> None:
    while True:
        phase = (await receive())["type"].removeprefix("lifespan.")
        await send({"type": f"lifespan.{phase}.complete"})
        if phase == "shutdown":
            return


def _error(error: SciBoxError) -> bytes:
    told = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return msgspec.json.encode({"error": told})


async def _send(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
