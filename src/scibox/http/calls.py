"""The endpoints that ask a model: authenticate, read, parse, serve; and watch whether the client stays.

Plain ASGI without a framework's request object: this is the way of every call.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import replace

from starlette.types import Receive, Scope, Send

from scibox.core.errors import Draining, SciBoxError
from scibox.core.events import Emit, Refused
from scibox.core.types import Call, Key
from scibox.service.pipeline import Pipeline
from scibox.wire import waiting
from scibox.wire.face import Asked, Face

from .request import ClientGone, bearer, explain, patience_s, read_json, while_wanted
from .respond import EventStream, Head, Headers, request_id, send_error, send_json


class Calls:
    """One endpoint, at `path` below /v1; its face makes calls of bodies and tells the answers."""

    def __init__(
        self,
        path: str,
        face: Face,
        pipeline: Pipeline,
        emit: Emit,
        ending: asyncio.Event,
        *,
        heartbeat_s: float,
        max_body_bytes: int,
    ) -> None:
        self.path = path
        self.face = face
        self._pipeline = pipeline
        self._emit = emit
        self._ending = ending
        self._heartbeat_s = heartbeat_s
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        key = None
        try:
            key = await self._pipeline.enter(bearer(scope))
            body = await read_json(scope, receive, self._max_body_bytes)
            asked = self._read(scope, body)
        except ClientGone:
            return
        except SciBoxError as failure:
            error = explain(scope, failure)
            self._emit(Refused(request_id(scope), error.status, error.code, error.message))
            limits = await self._limits(key) if key else ()
            await send_error(send, error, self.face, request_id(scope), limits)
            return
        with suppress(ClientGone):
            await while_wanted(receive, self._ending, self._answer(key, asked, send))

    def _read(self, scope: Scope, body: bytes) -> Asked:
        asked = self.face.parse(request_id(scope), body)
        call = replace(asked.call, endpoint=self.path, patience_s=patience_s(scope))
        return Asked(call, asked.reply, asked.paths)

    async def _limits(self, key: Key, call: Call | None = None) -> Headers:
        """What is left of the limits, for the answer to a call that has not got its turn."""
        return waiting.limit_headers(await self._pipeline.allowances(key, call))

    async def _answer(self, key: Key, asked: Asked, send: Send) -> None:
        if asked.call.stream:
            await self._stream(key, asked, send)
            return
        call, head = asked.call, Head()
        try:
            async with aclosing(self._pipeline.serve(key, call, head)) as chunks:
                [answer] = [chunk async for chunk in chunks]
        except SciBoxError as error:
            limits = head.headers or await self._limits(key, call)
            await send_error(send, asked.told(error), self.face, call.request_id, limits)
            return
        except asyncio.CancelledError:
            if self._ending.is_set():
                stopped = Draining("The service stopped; try again in a minute.", retry_after_s=30)
                await send_error(send, stopped, self.face, call.request_id, head.headers)
            raise
        await send_json(send, 200, asked.reply.whole(answer.data), [*head.headers, *answer.headers])

    async def _stream(self, key: Key, asked: Asked, send: Send) -> None:
        events = EventStream(send, self._heartbeat_s, self.face, asked)
        beat = asyncio.create_task(events.beat())
        try:
            async with aclosing(self._pipeline.serve(key, asked.call, events)) as chunks:
                async for chunk in chunks:
                    await events.write(asked.reply.event(chunk.data), chunk.headers)
        except SciBoxError as error:
            if not events.has_begun and not events.headers:
                events.headers = [*await self._limits(key, asked.call)]
            await events.fail(asked.told(error))
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
