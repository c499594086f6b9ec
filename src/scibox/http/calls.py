"""The endpoints that ask a model: authenticate, read, parse, serve; and watch whether the client stays.

One task for each request. Its connection cancels it when the client leaves, `ending` when the service does.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from msgspec.structs import replace

from scibox.core.errors import Draining, InvalidRequest, SciBoxError
from scibox.core.events import Emit, Notice, Refused
from scibox.core.types import Call, Key
from scibox.gate.repeats import Answer, Repeats
from scibox.service.pipeline import Pipeline
from scibox.wire import waiting
from scibox.wire.face import Asked, Face

from .ending import Ending
from .incoming import Headers, Incoming
from .once import Made, Name, Once, name_of
from .request import explain, patience_s, read_call, secret
from .respond import EventStream, Head, error_headers, send_error


class Calls:
    """One endpoint, at `path` below /v1; its face makes calls of bodies and tells the answers."""

    def __init__(
        self,
        path: str,
        face: Face,
        pipeline: Pipeline,
        emit: Emit,
        ending: Ending,
        *,
        repeats: Repeats,
        heartbeat_s: float,
        max_body_bytes: int,
    ) -> None:
        self.path = path
        self.face = face
        self._pipeline = pipeline
        self._emit = emit
        self._ending = ending
        self._once = Once(repeats, ending)
        self._heartbeat_s = heartbeat_s
        self._max_body_bytes = max_body_bytes

    async def __call__(self, incoming: Incoming) -> None:
        """Answer one request."""
        try:
            await self._serve(incoming)
        except Exception as error:
            target = incoming.target.decode("latin-1")
            self._emit(Notice(f"POST {target[:200]} failed: {error!r}", is_warning=True))
            if incoming.response_started:
                incoming.break_off()
                return
            incoming.keep_alive = False
            failure = SciBoxError("The service failed; try again, and give the operator the x-request-id.")
            await send_error(incoming, failure, self.face)

    async def _serve(self, incoming: Incoming) -> None:
        key = None
        try:
            key = await self._pipeline.enter(secret(incoming.headers))
            body = await read_call(incoming, self._max_body_bytes)
            asked = self._read(incoming, body)
            name = name_of(incoming, key.key_id, body)
        except SciBoxError as failure:
            limits = await self._limits(key) if key else ()
            await self._refuse(incoming, explain(incoming.headers, failure), limits)
            return
        self._ending.watch(incoming.task)
        try:
            await self._answer(key, asked, name, incoming)
        finally:
            self._ending.release(incoming.task)

    async def _refuse(self, incoming: Incoming, error: SciBoxError, limits: Headers) -> None:
        self._emit(Refused(incoming.request_id, error.status, error.code, error.message))
        await send_error(incoming, error, self.face, limits)

    def _read(self, incoming: Incoming, body: bytes) -> Asked:
        asked = self.face.parse(incoming.request_id, body)
        call = replace(asked.call, endpoint=self.path, patience_s=patience_s(incoming.headers))
        return Asked(call, asked.reply, asked.paths)

    async def _limits(self, key: Key, call: Call | None = None) -> Headers:
        """What is left of the limits, for the answer to a call that has not got its turn."""
        return waiting.limit_headers(await self._pipeline.allowances(key, call))

    async def _answer(self, key: Key, asked: Asked, name: Name | None, incoming: Incoming) -> None:
        if asked.call.stream:  # whatever its name: events that have left cannot be told again
            await self._stream(key, asked, incoming)
            return
        call, head = asked.call, Head()
        try:
            if name is None:
                made = await self._make(key, asked, head)
            else:
                made = await self._once.make(name, lambda: self._make(key, asked, head))
        except SciBoxError as error:
            await self._refuse(incoming, error, await self._limits(key, call))
            return
        except asyncio.CancelledError:
            if self._ending.is_set():
                stopped = Draining("The service stopped; try again in a minute.", retry_after_s=30)
                await send_error(incoming, stopped, self.face, head.headers)
            raise
        has_turn = made.answer.status == 200 and not made.is_replayed
        headers = head.headers if head.headers or has_turn else await self._limits(key, call)
        await incoming.answer(made.answer.status, made.answer.body, [*headers, *made.answer.headers])

    async def _make(self, key: Key, asked: Asked, head: Head) -> Made:
        """Serve a call whose answer is one body."""
        try:
            async with aclosing(self._pipeline.serve(key, asked.call, head)) as chunks:
                [answer] = [chunk async for chunk in chunks]
        except SciBoxError as failure:
            error = asked.told(failure)
            body = self.face.error(error, asked.call.request_id)
            # Other errors may heal: a limit, a model that the operator adds, a server that comes back.
            is_kept = isinstance(error, InvalidRequest)
            return Made(Answer(error.status, body, tuple(error_headers(error))), is_kept)
        return Made(Answer(200, asked.reply.whole(answer.data), tuple(answer.headers)), is_kept=True)

    async def _stream(self, key: Key, asked: Asked, incoming: Incoming) -> None:
        events = EventStream(incoming, self._heartbeat_s, self.face, asked)
        try:
            async with aclosing(self._pipeline.serve(key, asked.call, events)) as chunks:
                async for chunk in chunks:
                    # Comments are the same in every API.
                    data = chunk.data if chunk.data.startswith(b":") else asked.reply.event(chunk.data)
                    if data:
                        if incoming.is_slow:  # then the replica waits too
                            await incoming.room()
                        events.put(data, chunk.headers)
                    if chunk.is_last:
                        events.finish()
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
            events.end()
        finally:
            events.close()
