"""`/tokenize` and `/detokenize`: LLM tokens of a text and back. No slot, no queue, no ticket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from scibox.core.errors import SciBoxError
from scibox.core.types import Key
from scibox.service.pipeline import Pipeline
from scibox.wire import tokenize
from scibox.wire.anthropic import face as anthropic

from .marks import fields_of
from .request import bearer, explain, read_json, while_wanted
from .respond import request_id


class Splitting:
    """Answers with the models' own tokenizers."""

    def __init__(self, pipeline: Pipeline, ending: asyncio.Event, max_body_bytes: int) -> None:
        self._pipeline = pipeline
        self._ending = ending
        self._max_body_bytes = max_body_bytes

    async def tokenize(self, request: Request) -> Response:
        """A text or a dialogue to LLM tokens."""
        return await self._answer(request, self._tokens)

    async def detokenize(self, request: Request) -> Response:
        """LLM tokens to their text."""
        return await self._answer(request, self._text)

    async def count(self, request: Request) -> Response:
        """How many LLM tokens a Message of Anthropic's API has."""
        return await self._answer(request, self._number)

    async def _number(self, key: Key, name: str, body: bytes) -> bytes:
        return anthropic.render_count(await self._pipeline.count(key, anthropic.parse_count(name, body)))

    async def _tokens(self, key: Key, name: str, body: bytes) -> bytes:
        return tokenize.render(await self._pipeline.tokenize(key, tokenize.parse(name, body)))

    async def _text(self, key: Key, name: str, body: bytes) -> bytes:
        asked = tokenize.parse_ids(name, body)
        return tokenize.render_text(await self._pipeline.detokenize(key, asked.model, asked.tokens))

    async def _answer(
        self, request: Request, work: Callable[[Key, str, bytes], Awaitable[bytes]]
    ) -> Response:
        scope, receive = request.scope, request.receive
        key = await self._pipeline.enter(bearer(scope))
        body = await read_json(scope, receive, self._max_body_bytes)

        async def answer() -> bytes:
            return await work(key, request_id(scope), body)

        try:
            answered = await while_wanted(receive, self._ending, answer())
        except SciBoxError as error:
            raise explain(fields_of(scope["headers"]), error) from error
        return Response(answered, media_type="application/json")
