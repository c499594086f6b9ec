"""How long texts to embed are: over the model's limit they are refused by name, or cut where that was asked.

Only texts whose bounds (`core/fit.py`) do not tell are counted, by the engine's own tokenizer. What no one
here can count is left to the replica, which refuses it itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from scibox.core.errors import (
    ContextTooLong,
    InvalidRequest,
    SciBoxError,
    UpstreamLost,
    UpstreamUnavailable,
)
from scibox.core.fit import LONGEST_ENTRY_BYTES, Fit, fit
from scibox.core.types import Content
from scibox.wire.chat import solid_bytes
from scibox.wire.tokenize import Wanted

from .replica import Replica, Route
from .spread import spread
from .tokenizer import Tokenizer

SPECIAL_TOKENS = 4  # that a tokenizer puts around a text, at most
COUNTS_AT_ONCE = 8
PATIENCE_S = 15.0  # for a child of ours that is being restarted
POLL_S = 0.25
ENTRY_STEP = 16  # characters; longer LLM tokens are rare


@dataclass(frozen=True, slots=True)
class Measured:
    """A text to be measured: its name in errors, and how many characters at its start must stay."""

    content: Content
    where: str
    fixed: int = 0


class Lengths:
    """Measures the texts of one call."""

    def __init__(self, tokenizer: Tokenizer, route: Route, truncate: int | None) -> None:
        self._tokenizer = tokenizer
        self._context = route.shown.context
        self._counter = next(iter(route.askable), None)
        self._truncate = truncate
        self.limit = self._limit(route, truncate)

    def _limit(self, route: Route, truncate: int | None) -> int | None:
        if truncate is None:
            return self._context
        if self._counter is None:
            raise InvalidRequest(
                f"The server of '{route.card.name}' cannot count LLM tokens and cut texts; "
                "leave 'truncate_prompt_tokens' out and shorten the texts.",
                param="truncate_prompt_tokens",
            )
        if truncate > 0:
            return min(truncate, self._context or truncate)
        if self._context is None:
            raise InvalidRequest(
                f"The limit of '{route.card.name}' is not known; say 'truncate_prompt_tokens' as a number.",
                param="truncate_prompt_tokens",
            )
        return self._context

    async def shorten(self, texts: Mapping[bytes, Measured]) -> dict[bytes, Content]:
        """What the texts that are too long are cut to, if that was asked for; else the first is refused."""
        if self.limit is None:
            return {}
        counts: dict[bytes, int | None] = {}  # of the texts that are too long; None: more than can be

        async def measure(key: bytes) -> None:
            count = await self._count_if_long(texts[key].content)
            if count is None or count > (self.limit or 0):
                counts[key] = count

        await spread(texts, measure, COUNTS_AT_ONCE)
        if counts and self._truncate is None:
            first = next(key for key in texts if key in counts)
            raise self._too_long(texts[first], counts[first])
        cuts: dict[bytes, Content] = {}

        async def cut(key: bytes) -> None:
            cuts[key] = await self._cut(texts[key], counts[key])

        await spread(counts, cut, COUNTS_AT_ONCE)
        return cuts

    async def _count_if_long(self, content: Content) -> int | None:
        """LLM tokens of a text that may be over the limit, 0 for one that is not; None: surely over it."""
        if not isinstance(content, str):
            return len(content)
        size = len(content) if content.isascii() else len(content.encode())
        if size + SPECIAL_TOKENS <= (self.limit or 0):
            return 0
        match fit(size, solid_bytes(content), self.limit, SPECIAL_TOKENS):
            case Fit.TOO_LONG:
                return None
            case Fit.UNKNOWN if self._counter is not None:
                return await self._count(self._counter, content)
            case _:
                return 0

    async def _count(self, counter: Replica, text: str) -> int:
        """Without truncation a count that fails is 0: the engine says itself what does not fit."""
        wanted = Wanted(counter.model, text, None, adds_special=True, wants_texts=False)
        now = asyncio.get_running_loop().time
        until = now() + (PATIENCE_S if counter.is_local else 2 * POLL_S)
        while True:
            try:
                return (await self._tokenizer.tokens(wanted, counter)).count
            except SciBoxError as error:
                may_come_back = isinstance(error, UpstreamUnavailable | UpstreamLost) and now() < until
                if not may_come_back:
                    if self._truncate is None:
                        return 0
                    raise
            await asyncio.sleep(POLL_S)

    async def _cut(self, text: Measured, count: int | None) -> Content:
        """The longest beginning found to fit: by guesses from the lengths so far, then by halves."""
        content, limit = text.content, self.limit
        assert limit is not None
        if not isinstance(content, str):
            return content[:limit]
        assert self._counter is not None
        low, low_count = text.fixed, 0
        high = min(len(content), text.fixed + limit * LONGEST_ENTRY_BYTES)
        high_count = count or len(content) // 4
        steps = 0
        while high - low > 1:
            steps += 1
            ahead = (high - low) * (limit - low_count) // max(1, high_count - low_count)
            guess = low + (ahead if steps % 3 else (high - low) // 2)
            if low_count == limit:  # only the rest of the last LLM token can still be missing
                guess = low + min(ENTRY_STEP, (high - low) // 2)
            guess = min(max(guess, low + 1), high - 1)
            found = await self._count(self._counter, content[:guess])
            if found <= limit:
                low, low_count = guess, found
            else:
                high, high_count = guess, found
        if low == text.fixed:
            raise InvalidRequest(
                f"'truncate_prompt_tokens' leaves nothing of '{text.where}'; give more than {limit}.",
                param="truncate_prompt_tokens",
            )
        return content[:low]

    def _too_long(self, text: Measured, count: int | None) -> ContextTooLong:
        length = f"{count} LLM tokens" if count else "far more LLM tokens than that"
        return ContextTooLong(
            f"The text in '{text.where}' is too long: the limit is {self.limit} LLM tokens, it has {length}. "
            "Split it, or ask for 'truncate_prompt_tokens': -1.",
            param=text.where,
        )
