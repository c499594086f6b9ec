"""The endpoints that ask a model: authenticate, read, parse, serve; and watch whether the client stays.

Plain ASGI without a framework's request object: this is the way of every call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from scibox.core.errors import BodyTooLarge, Draining, SciBoxError
from scibox.core.events import Emit, Refused
from scibox.core.types import Key
from scibox.service.pipeline import Pipeline
from scibox.wire.face import Asked, Face

from .respond import EventStream, request_id, send_error, send_json


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


class Calls:
    """One endpoint; its face makes calls of bodies and tells the answers."""

    def __init__(
        self,
        face: Face,
        pipeline: Pipeline,
        emit: Emit,
        ending: asyncio.Event,
        *,
        heartbeat_s: float,
        max_body_bytes: int,
    ) -> None:
        self._face = face
        self._pipeline = pipeline
        self._emit = emit
        self._ending = ending
        self._heartbeat_s = heartbeat_s
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            key = self._pipeline.enter(bearer(scope))
            body = await read_body(scope, receive, self._max_body_bytes)
            asked = self._face.parse(request_id(scope), body)
        except ClientGone:
            return
        except SciBoxError as error:
            self._emit(Refused(request_id(scope), error.status, error.code, error.message))
            await send_error(send, error, self._face)
            return
        await self._while_wanted(receive, self._answer(key, asked, send))

    async def _answer(self, key: Key, asked: Asked, send: Send) -> None:
        if asked.call.stream:
            await self._stream(key, asked, send)
            return
        try:
            async with aclosing(self._pipeline.serve(key, asked.call)) as chunks:
                [answer] = [chunk async for chunk in chunks]
        except SciBoxError as error:
            await send_error(send, error, self._face)
            return
        except asyncio.CancelledError:
            if self._ending.is_set():
                stopped = Draining("The service stopped; try again in a minute.", retry_after_s=30)
                await send_error(send, stopped, self._face)
            raise
        await send_json(send, 200, asked.reply.whole(answer.data), answer.headers)

    async def _stream(self, key: Key, asked: Asked, send: Send) -> None:
        events = EventStream(send, self._heartbeat_s, self._face, asked.reply)
        beat = asyncio.create_task(events.beat())
        try:
            async with aclosing(self._pipeline.serve(key, asked.call)) as chunks:
                async for chunk in chunks:
                    await events.write(asked.reply.event(chunk.data), chunk.headers)
        except SciBoxError as error:
            await events.fail(error)
        except asyncio.CancelledError:
            if self._ending.is_set():
                await events.fail(
                    Draining("The service stopped; what came so far is not complete. Try again.")
                )
            raise
        else:
            await events.end()
        finally:
            beat.cancel()

    async def _while_wanted(self, receive: Receive, answer: Coroutine[None, None, None]) -> None:
        """Run the answer; when the client leaves or the service ends first, cancel it: its slot is free."""
        work: asyncio.Task[None] = asyncio.create_task(answer)
        ends = [asyncio.create_task(_gone(receive)), asyncio.create_task(self._ending.wait())]
        try:
            await asyncio.wait({work, *ends}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in [work, *ends]:
                task.cancel()
            await asyncio.gather(work, *ends, return_exceptions=True)
        if not work.cancelled():
            work.result()


def bearer(scope: Scope) -> str:
    """The secret of the `Authorization` header (RFC 6750, 2.1), or of Anthropic's `x-api-key`; else empty."""
    found = ""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, secret = value.decode("latin-1").partition(" ")
            return secret.strip() if scheme.lower() == "bearer" else ""
        if name == b"x-api-key":
            found = value.decode("latin-1").strip()
    return found


async def read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """The whole body, or `BodyTooLarge` as soon as that is known."""
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limit_bytes:
            raise _too_large(limit_bytes)
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        if not message.get("more_body", False):
            return b"".join(pieces)


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body is larger than {limit_bytes} bytes; send it in several calls.", param="body"
    )


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
