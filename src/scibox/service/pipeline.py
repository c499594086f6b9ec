"""The way of every request. Read this first.

    1  gate.authenticate(secret) -> Key
    2  directory.route(key, call) -> Route       which model, may this key use it
    3  gate.ticket(key, call)     -> Ticket      one per call; entering it waits for the call's turn
    4  router.stream(call, route) -> chunks      replicas, deadlines, another attempt before the first chunk
       (vectors.stream for texts to embed: sub-calls that go that way, and the cache)
    5  ticket.count(chunk)                       usage seen so far; with the last chunk, the entry is written
    6  the ticket closes          -> settle      exactly once: finished, error, client gone, key revoked

A non-streaming answer is the same way with one chunk; so are embeddings.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from scibox.core.admission import Allowance, Place
from scibox.core.types import Call, Chunk, Key
from scibox.gate.gate import UNHEARD, Gate
from scibox.gate.ticket import Audience
from scibox.router.replica import Route
from scibox.router.router import Router
from scibox.router.vectors import Vectors
from scibox.wire.tokenize import Tokens, Wanted

from .directory import Directory


class Pipeline:
    """Joins the gate, the directory and the router; a reload gives it another directory."""

    def __init__(self, gate: Gate, directory: Directory, router: Router, vectors: Vectors) -> None:
        self._gate = gate
        self.router = router
        self.vectors = vectors
        self.directory = directory

    async def enter(self, secret: str) -> Key:
        """Whose secret this is; before a body is read."""
        return await self._gate.authenticate(secret)

    async def holder(self, secret: str) -> Key:
        """Whose secret this is, also where it opens nothing any more."""
        return await self._gate.holder(secret)

    async def recall(self, key_id: str) -> Key:
        """The key of a batch made earlier, as it is now."""
        return await self._gate.recall(key_id)

    async def count(self, key: Key, call: Call) -> int:
        """LLM tokens of a chat call's prompt, after the chat template. Takes no slot and no ticket."""
        self.directory.route(key, call)
        with self.directory.splitting_route(key, call.model) as route:
            return await self.router.tokenizer.count(call, route)

    async def tokenize(self, key: Key, wanted: Wanted) -> Tokens:
        """The LLM tokens of a text or a dialogue. Takes no slot and no ticket."""
        route = self.directory.splitting_route(key, wanted.model)
        if wanted.call is not None:
            self.directory.route(key, wanted.call)
        with route:
            return await self.router.tokenizer.tokenize(wanted, route)

    async def detokenize(self, key: Key, model: str, ids: Sequence[int]) -> str:
        """The text of a model's LLM tokens. Takes no slot and no ticket."""
        with self.directory.splitting_route(key, model) as route:
            return await self.router.tokenizer.detokenize(ids, route)

    async def allowances(self, key: Key, call: Call | None = None) -> Sequence[Allowance]:
        """What is left of the limits of a key, of a call's model, or of all models that it may use."""
        cards = self.directory.cards(key)
        if call is not None:
            cards = [card for card in cards if call.model == card.name]
        return await self._gate.allowances(key, cards)

    async def places(self, key: Key) -> Sequence[Place]:
        """Where the calls of the key's owner stand."""
        return await self._gate.places(key)

    async def serve(self, key: Key, call: Call, audience: Audience = UNHEARD) -> AsyncGenerator[Chunk, None]:
        """The answer to a call, chunk by chunk; `audience` hears of its turn."""
        route = self.directory.route(key, call)
        others = functools.partial(self.directory.others, key, route)
        with route:
            async with (
                self._gate.ticket(key, call, route.card, audience, others) as ticket,
                aclosing(
                    self._way(call, route).stream(call, route, ticket.grant.deployment, ticket)
                ) as chunks,
            ):
                async for chunk in chunks:
                    ticket.count(chunk)
                    if chunk.is_last:
                        await ticket.recorded()
                    if chunk.data:
                        yield chunk
                        ticket.handed_on()  # whoever asks for more has taken this

    def _way(self, call: Call, route: Route) -> Router | Vectors:
        return self.vectors if call.embedding and route.card.kind == "embedding" else self.router
