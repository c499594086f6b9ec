"""Embeddings: one call of many texts becomes sub-calls that may fail and be tried again, and one answer.

    contents   what is embedded: ids decoded, prefixes added          contents.py
    cache      what is known already is not asked for again           store/vectors.py
    lengths    what is too long is refused by name, or cut            lengths.py
    sub-calls  packed by length, some at a time, each tried again     core/packing.py, router.py
    answer     in the order of the texts, all of them or an error     wire/embeddings.py

A text is embedded once, however often it stands in the call.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

from msgspec.structs import replace

from scibox.core.errors import (
    ContextTooLong,
    InvalidRequest,
    SciBoxError,
    UpstreamBroken,
    UpstreamLost,
    UpstreamUnavailable,
)
from scibox.core.packing import pack
from scibox.core.types import Call, Chunk, Content, Embedding, Usage, Vector
from scibox.store.vectors import VectorCache
from scibox.wire import embeddings

from .contents import content_of
from .lengths import Lengths, Measured
from .replica import NOBODY, Route, Witness
from .router import Router, until
from .spread import spread

ATTEMPTS = 3  # of one sub-call; each may try every replica
DELAY_S = 0.25  # before the second; then twice as long
OWN_AT_ONCE = 2  # sub-calls to a child of ours: one is worked on while the next is split
FLOATS_AT_ONCE = 16_384  # rendered between two looks at the other calls: about 5 ms
TEXTS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Packing:
    """How large sub-calls are, and how many of one call run at a time on a server that is not ours."""

    texts_per_call: int = 128
    tokens_per_call: int = 16_384
    calls_at_once: int = 4


@dataclass(frozen=True, slots=True)
class _Job:
    """One call on its way: where it begins, and who hears what becomes of it."""

    call: Call
    route: Route
    first: int
    witness: Witness


@dataclass(frozen=True, slots=True)
class _Piece:
    """A text that must be embedded: its place in the cache and its name in errors."""

    key: bytes
    content: Content
    where: str

    @property
    def size(self) -> int:
        """Bytes; an id stands for about four."""
        return len(self.content.encode()) if isinstance(self.content, str) else 4 * len(self.content)


class Vectors:
    """Turns an embeddings call into one chunk."""

    def __init__(self, router: Router, cache: VectorCache, packing: Packing) -> None:
        self._router = router
        self._cache = cache
        self.packing = packing
        self._turns: dict[str, asyncio.Semaphore] = {}

    async def stream(
        self, call: Call, route: Route, first: int = 0, witness: Witness = NOBODY
    ) -> AsyncGenerator[Chunk, None]:
        """The answer as one chunk, or an error; nothing in between."""
        task = call.embedding
        assert task is not None
        _refuse_dimensions(task, route.card.dimensions, route)
        async with until(self._router.ends_at()):
            job = _Job(call, route, first, witness)
            vectors, shortened, cached_tokens = await self._embed_all(job, task)
        width = len(vectors[0].floats) // 4
        _refuse_dimensions(task, width, route)
        usage = Usage(sum(vector.prompt_tokens for vector in vectors), cached_tokens=cached_tokens)
        body = await _render(vectors, task, width, route.card.name, usage)
        yield Chunk(body, usage, embeddings.truncated(shortened), is_last=True)

    async def _embed_all(
        self, job: _Job, task: Embedding, *, may_remember: bool = True
    ) -> tuple[list[Vector], list[int], int]:
        """The vectors in the order of the texts, which texts were cut, and the LLM tokens not worked on."""
        route = job.route
        lengths = Lengths(self._router.tokenizer, route, task.truncate)
        keys: list[bytes] = []
        measured: dict[bytes, Measured] = {}
        for index, text in enumerate(task.texts):
            content = content_of(text, route)
            keys.append(self._cache.key(route.rules.identity, content))
            fixed = len(route.rules.prefix_of(text.purpose))
            measured.setdefault(keys[-1], Measured(content, text.where, fixed))
            if index % TEXTS_AT_ONCE == TEXTS_AT_ONCE - 1:
                await asyncio.sleep(0)  # ten thousand of them take a while
        known = await self._cache.get(list(measured)) if may_remember else {}
        over = {key for key, vector in known.items() if vector.prompt_tokens > (lengths.limit or 2**63)}
        unknown = {key: text for key, text in measured.items() if key not in known or key in over}
        cuts = await lengths.shorten(unknown)
        # A cut text is a text of its own: the same as if the client had sent no more of it.
        renamed = {key: self._cache.key(route.rules.identity, content) for key, content in cuts.items()}
        known |= await self._cache.get(list(renamed.values())) if renamed and may_remember else {}
        times = Counter(renamed.get(key, key) for key in keys)
        cached_tokens = _hear(job.witness, {key: known[key] for key in known if key in times}, times, True)
        pieces = [
            _Piece(renamed.get(key, key), cuts.get(key, text.content), text.where)
            for key, text in unknown.items()
            if renamed.get(key, key) not in known
        ]
        known |= await self._embed(job, pieces, times)
        vectors = [known[renamed.get(key, key)] for key in keys]
        if len({len(vector.floats) for vector in vectors}) > 1 and may_remember:
            # The server behind the name has changed its model: what is remembered is of the old one.
            return await self._embed_all(job, task, may_remember=False)
        return vectors, [index for index, key in enumerate(keys) if key in renamed], cached_tokens

    async def _embed(
        self, job: _Job, pieces: Sequence[_Piece], times: Mapping[bytes, int]
    ) -> dict[bytes, Vector]:
        """All of them, in sub-calls; the first that fails for good ends the others."""
        route = job.route
        made: dict[bytes, Vector] = {}
        is_own = all(replica.is_local for replica in route.replicas)
        # llama.cpp computes texts of one call, and of calls at the same time, together, and then some models'
        # vectors depend on the company (docs/embeddings.md). A child of ours has one slot; others get one
        # text at a time.
        is_llama = any(replica.dialect == "llama" for replica in route.replicas)

        async def work(indexes: list[int]) -> None:
            some = [pieces[index] for index in indexes]
            async with AsyncExitStack() as turn:
                if is_llama and not is_own:
                    await turn.enter_async_context(self._turn(route))
                vectors = await self._patiently(job, some)
            found = {piece.key: vector for piece, vector in zip(some, vectors, strict=True)}
            made.update(found)
            _hear(job.witness, found, times, False)
            self._cache.put(found)

        packs = pack(
            [piece.size for piece in pieces],
            texts=1 if is_llama else self.packing.texts_per_call,
            tokens=self.packing.tokens_per_call,
        )
        await spread(packs, work, OWN_AT_ONCE if is_own else self.packing.calls_at_once)
        return made

    def _turn(self, route: Route) -> asyncio.Semaphore:
        return self._turns.setdefault(route.card.name, asyncio.Semaphore(1))

    async def _patiently(self, job: _Job, pieces: Sequence[_Piece]) -> list[Vector]:
        """One sub-call until it is answered; what is wrong with a text is found by halves, and named."""
        attempt = 1
        while True:
            try:
                return await self._once(job, pieces)
            except InvalidRequest as error:
                if len(pieces) == 1:
                    raise _named(error, pieces[0].where) from None
                half = len(pieces) // 2
                first = await self._patiently(job, pieces[:half])
                return first + await self._patiently(job, pieces[half:])
            except (UpstreamUnavailable, UpstreamBroken) as error:
                if attempt == ATTEMPTS or _kills(error, job.route):
                    raise
            await asyncio.sleep(DELAY_S * 2 ** (attempt - 1))
            attempt += 1

    async def _once(self, job: _Job, pieces: Sequence[_Piece]) -> list[Vector]:
        asked = replace(
            job.call,
            kind="embedding",
            path="/embeddings",
            fields=embeddings.ask([piece.content for piece in pieces]),
            items=len(pieces),
            embedding=None,
        )
        way = self._router.stream(asked, job.route, job.first, job.witness)
        async with aclosing(way) as chunks:
            [answer] = [chunk async for chunk in chunks]
        return embeddings.read(answer.data, [piece.size for piece in pieces])


def _hear(
    witness: Witness, found: Mapping[bytes, Vector], times: Mapping[bytes, int], is_cached: bool
) -> int:
    """Tell that these vectors are there; returns the LLM tokens that were not worked on for them."""
    texts = sum(times[key] for key in found)
    tokens = sum(times[key] * vector.prompt_tokens for key, vector in found.items())
    cached_tokens = tokens if is_cached else 0
    if texts:
        witness.embedded(texts, tokens, cached_tokens)
    return cached_tokens


async def _render(vectors: Sequence[Vector], task: Embedding, width: int, model: str, usage: Usage) -> bytes:
    """The body, made in steps: ten thousand vectors of a thousand numbers take seconds."""
    wanted = task.dimensions or width
    step = max(1, FLOATS_AT_ONCE // width)
    parts = [embeddings.head(model)]
    for first in range(0, len(vectors), step):
        some = [vector.floats for vector in vectors[first : first + step]]
        if wanted < width:
            some = [embeddings.cut(floats, wanted) for floats in some]
        parts.append(embeddings.items(some, first, as_base64=task.as_base64))
        await asyncio.sleep(0)
    parts.append(embeddings.tail(usage.prompt_tokens))
    return b"".join(parts)


def _refuse_dimensions(task: Embedding, own: int | None, route: Route) -> None:
    wanted = task.dimensions
    if wanted is None or own is None or wanted == own or (wanted < own and route.rules.is_matryoshka):
        return
    more = f"from 1 to {own}" if route.rules.is_matryoshka else f"{own}, or leave it out"
    raise InvalidRequest(
        f"'{route.card.name}' has vectors of {own} numbers, not of {wanted}; 'dimensions' may be {more}.",
        param="dimensions",
    )


def _kills(error: SciBoxError, route: Route) -> bool:
    """A child of ours that died was given the call a second time by the router: it may be what kills it."""
    return isinstance(error, UpstreamLost) and any(replica.is_local for replica in route.replicas)


def _named(error: InvalidRequest, where: str) -> InvalidRequest:
    """A replica's refusal of one text, naming the text as the client knows it."""
    if isinstance(error, ContextTooLong):
        return ContextTooLong(
            f"The text in '{where}' is longer than the model can read; split it, or ask for "
            "'truncate_prompt_tokens': -1.",
            param=where,
        )
    return InvalidRequest(f"The model server refused '{where}': {error.message}", param=where)
