"""The endpoints that ask a model: authenticate, read, parse, serve; and watch whether the client stays.

Plain ASGI without a framework's request object: this is the way of every call.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

from starlette.types import Receive, Scope, Send

from scibox.core.errors import Draining, InvalidRequest, SciBoxError
from scibox.core.events import Emit, Refused
from scibox.core.types import Key
from scibox.gate.repeats import Answer, Repeats
from scibox.service.pipeline import Pipeline
from scibox.wire.face import Asked, Face

from .once import Made, Name, Once, name_of
from .request import ClientGone, bearer, explain, read_json, while_wanted
from .respond import EventStream, error_headers, request_id, send_error, send_json


class Calls:
    """One endpoint; its face makes calls of bodies and tells the answers."""

    def __init__(
        self,
        face: Face,
        pipeline: Pipeline,
        emit: Emit,
        ending: asyncio.Event,
        repeats: Repeats,
        *,
        heartbeat_s: float,
        max_body_bytes: int,
    ) -> None:
        self.face = face
        self._pipeline = pipeline
        self._emit = emit
        self._ending = ending
        self._once = Once(repeats, ending)
        self._heartbeat_s = heartbeat_s
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            key = self._pipeline.enter(bearer(scope))
            body = await read_json(scope, receive, self._max_body_bytes)
            asked = self.face.parse(request_id(scope), body)
            name = name_of(scope, key.key_id, body)
        except ClientGone:
            return
        except SciBoxError as failure:
            await self._refuse(explain(scope, failure), request_id(scope), send)
            return
        with suppress(ClientGone):
            await while_wanted(receive, self._ending, self._answer(key, asked, name, send))

    async def _refuse(self, error: SciBoxError, request_id: str, send: Send) -> None:
        self._emit(Refused(request_id, error.status, error.code, error.message))
        await send_error(send, error, self.face, request_id)

    async def _answer(self, key: Key, asked: Asked, name: Name | None, send: Send) -> None:
        if asked.call.stream:  # whatever its name: events that have left cannot be told again
            await self._stream(key, asked, send)
            return
        try:
            if name is None:
                answer = (await self._make(key, asked)).answer
            else:
                answer = await self._once.answer(name, lambda: self._make(key, asked))
        except SciBoxError as error:
            await self._refuse(error, asked.call.request_id, send)
            return
        except asyncio.CancelledError:
            if self._ending.is_set():
                stopped = Draining("The service stopped; try again in a minute.", retry_after_s=30)
                await send_error(send, stopped, self.face, asked.call.request_id)
            raise
        await send_json(send, answer.status, answer.body, answer.headers)

    async def _make(self, key: Key, asked: Asked) -> Made:
        """Serve a call whose answer is one body."""
        try:
            async with aclosing(self._pipeline.serve(key, asked.call)) as chunks:
                [answer] = [chunk async for chunk in chunks]
        except SciBoxError as failure:
            error = asked.told(failure)
            body = self.face.error(error, asked.call.request_id)
            # Other errors may heal: a limit, a model that the operator adds, a server that comes back.
            is_kept = isinstance(error, InvalidRequest)
            return Made(Answer(error.status, body, tuple(error_headers(error))), is_kept)
        return Made(Answer(200, asked.reply.whole(answer.data), tuple(answer.headers)), is_kept=True)

    async def _stream(self, key: Key, asked: Asked, send: Send) -> None:
        events = EventStream(send, self._heartbeat_s, self.face, asked)
        beat = asyncio.create_task(events.beat())
        try:
            async with aclosing(self._pipeline.serve(key, asked.call)) as chunks:
                async for chunk in chunks:
                    await events.write(asked.reply.event(chunk.data), chunk.headers)
        except SciBoxError as error:
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
