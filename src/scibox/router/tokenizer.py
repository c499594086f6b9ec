"""The models' own tokenizers, asked over HTTP: LLM tokens of a text, text of LLM tokens, and their number.

An engine answers in its HTTP threads: no slot, no queue, no ticket. No tokenizer lives in the gateway.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from scibox.core.errors import (
    InvalidRequest,
    UpstreamBroken,
    UpstreamLost,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from scibox.core.types import Call
from scibox.upstream.client import Client
from scibox.wire import answers, tokenize
from scibox.wire.completions import face as completions
from scibox.wire.tokenize import Tokens, Wanted

from .replica import Replica, Route

T = TypeVar("T")

DEADLINE_S = 30.0
_OUT_OF_VOCABULARY = b"range_check"  # llama-server's 500 for an id that it does not have


class Tokenizer:
    """Asks the replicas of a route that have a tokenizer, one after the other."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def count(self, call: Call, route: Route) -> int:
        """LLM tokens of a chat call's prompt, after the chat template."""
        return (await self.tokenize(of(call), route)).count

    async def tokenize(self, wanted: Wanted, route: Route) -> Tokens:
        """The LLM tokens of a text or a dialogue."""
        return await _first(route, lambda replica: self.tokens(wanted, replica))

    async def detokenize(self, ids: Sequence[int], route: Route) -> str:
        """The text of these LLM tokens."""
        return await _first(route, lambda replica: self._text(ids, replica))

    async def tokens(self, wanted: Wanted, replica: Replica) -> Tokens:
        """The same of one replica."""
        if replica.tokenizer == "vllm":
            return tokenize.read_vllm(
                await self._post(replica, "/tokenize", tokenize.vllm_order(wanted, replica.model))
            )
        text, special = wanted.prompt, wanted.adds_special
        if wanted.call is not None:
            # The template has written most special tokens out; llama.cpp adds the first one when it splits.
            text, special = await self.prompt(wanted.call, replica), True
        order = tokenize.llama_order(text, special=special, texts=wanted.wants_texts)
        answer = await self._post(replica, "/tokenize", order)
        return tokenize.read_llama(answer, replica.context, texts=wanted.wants_texts)

    async def prompt(self, call: Call, replica: Replica) -> str:
        """A dialogue as the chat template of a llama-server writes it."""
        order = tokenize.template_order(call, replica.target)
        return tokenize.read_prompt(await self._post(replica, "/apply-template", order))

    async def _text(self, ids: Sequence[int], replica: Replica) -> str:
        answer = await self._post(replica, "/detokenize", tokenize.ids_order(ids, replica.model))
        return (tokenize.read_prompt if replica.tokenizer == "vllm" else tokenize.read_content)(answer)

    async def _post(self, replica: Replica, path: str, body: bytes) -> bytes:
        exchange = self._client.exchange(
            replica.address, "POST", replica.address.root + path, body=body, secret=replica.secret
        )
        by = time.monotonic() + DEADLINE_S
        try:
            await exchange.open(by)
            answer = await exchange.read_all(by)
            if exchange.status != 200:
                if _OUT_OF_VOCABULARY in answer:
                    raise InvalidRequest(
                        "'tokens' holds an id that is not in this model's vocabulary.", param="tokens"
                    )
                refusal = answers.refusal(exchange.status, answer)
                refusal.hide(replica.secret)
                raise refusal
            return answer
        finally:
            exchange.close()


def of(call: Call) -> Wanted:
    """The prompt of a chat call or of a completion, to be counted."""
    if call.path == completions.PATH:
        text = completions.prompt(call)
        return Wanted(call.model, text, None, adds_special=True, wants_texts=False)
    return Wanted(call.model, "", call, adds_special=False, wants_texts=False)


async def _first(route: Route, ask: Callable[[Replica], Awaitable[T]]) -> T:
    """The answer of the first replica that gives one."""
    failure: UpstreamBroken | UpstreamUnavailable | None = None
    try:
        async with asyncio.timeout(DEADLINE_S):
            for replica in route.askable:
                try:
                    return await ask(replica)
                except (UpstreamBroken, UpstreamLost, UpstreamUnavailable) as error:
                    failure = error
    except TimeoutError:
        raise UpstreamTimeout(
            "The model's tokenizer took too long; try again, or send less text.", retry_after_s=5
        ) from None
    raise failure or UpstreamUnavailable("No server of this model has a tokenizer that can be asked.")
