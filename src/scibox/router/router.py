"""Where a call goes: attempts on the replicas of its model, before the first chunk; then the relay.

Until the first chunk has left, a failed attempt is followed by another; after it, never (ARCHITECTURE,
law 2). Every wait has a deadline (law 7).
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from scibox.core.errors import (
    SciBoxError,
    UpstreamBroken,
    UpstreamLost,
    UpstreamMisconfigured,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from scibox.core.types import Call, Chunk
from scibox.upstream.client import Client, Exchange
from scibox.wire import answers
from scibox.wire.orders import order, split

from .choices import merged
from .counting import refuse_too_long
from .learning import learn
from .replica import NOBODY, Replica, Route, Witness
from .tokenizer import Tokenizer
from .trouble import words_on

RESTART_PATIENCE_S = 15.0  # a child of ours that died is back within seconds: wait for it
RESTART_POLL_S = 0.1
LAST_S = 1.0  # for what follows the last event
PASSED_ON = (UpstreamUnavailable, UpstreamMisconfigured, UpstreamBroken, UpstreamTimeout)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds; a non-streamed answer is one chunk, for which only `total_s` holds."""

    first_chunk_s: float
    next_chunk_s: float
    total_s: float


class Router:
    """Turns a call into chunks."""

    def __init__(self, client: Client, deadlines: Deadlines) -> None:
        self._client = client
        self.deadlines = deadlines
        self.tokenizer = Tokenizer(client)

    def ends_at(self) -> float:
        """When a call that begins now must have ended, in the loop's time."""
        return self._now() + self.deadlines.total_s

    # The loop's time too, without looking for the loop: Python 3.11 asks the kernel for that each time.
    _now = staticmethod(time.monotonic)

    async def stream(
        self, call: Call, route: Route, first: int = 0, witness: Witness = NOBODY
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks of the first replica that answers, beginning with those of deployment `first`."""
        ends_at = self.ends_at()
        failure: SciBoxError | None = None
        for index, deployment in route.from_(first):
            for replica in deployment.in_turn():
                has_begun = False
                tried = functools.partial(witness.tried, index, str(replica.address))
                replica.in_flight += 1
                try:
                    async with aclosing(self._choices(call, replica, ends_at, tried)) as chunks:
                        async for chunk in chunks:
                            if not has_begun:
                                has_begun = True
                                replica.answered()
                            yield chunk
                    return
                except PASSED_ON as error:
                    replica.failed(words_on(error))
                    if has_begun:
                        raise
                    failure = error
                finally:
                    replica.in_flight -= 1
        raise failure or UpstreamUnavailable("This model has no server; tell the operator.")

    def _choices(
        self, call: Call, replica: Replica, ends_at: float, tried: Callable[[], None]
    ) -> AsyncGenerator[Chunk, None]:
        """The answer of one replica; llama-server is asked for one choice at a time."""
        if not replica.is_local and (call.n == 1 or replica.dialect != "llama"):
            return self._attempt(call, replica, ends_at, tried)
        if call.n == 1 or replica.dialect != "llama":
            return self._patiently(call, replica, ends_at, tried)
        group = call.n // call.prompts
        return merged(split(call), lambda one: self._patiently(one, replica, ends_at, tried), group=group)

    async def _patiently(
        self, call: Call, replica: Replica, ends_at: float, tried: Callable[[], None]
    ) -> AsyncGenerator[Chunk, None]:
        """Attempts on one replica: a child of ours that is being restarted is waited for.

        One that dies before it has answered anything is given the call once more, and no oftener: if the
        call is what kills it, it must not kill it again and again.
        """
        now = self._now
        patient_until = now() + (RESTART_PATIENCE_S if replica.is_local else 0.0)
        is_second_life = not replica.is_local
        while True:
            has_begun = False
            try:
                async with aclosing(self._attempt(call, replica, ends_at, tried)) as chunks:
                    async for chunk in chunks:
                        has_begun = True
                        yield chunk
                return
            except UpstreamUnavailable:
                if has_begun or now() > patient_until:
                    raise
            except UpstreamLost:
                if has_begun or is_second_life:
                    raise
                is_second_life = True
            await asyncio.sleep(RESTART_POLL_S)

    async def _attempt(
        self, call: Call, replica: Replica, ends_at: float, tried: Callable[[], None]
    ) -> AsyncGenerator[Chunk, None]:
        """One try of a call on one replica."""
        await refuse_too_long(self.tokenizer, call, replica)
        tried()
        sent = order(call, await learn(self._client, self.tokenizer, call, replica))
        exchange = self._client.exchange(
            replica.address,
            "POST",
            replica.address.prefix + sent.path,
            body=sent.body,
            secret=replica.secret,
            request_id=call.request_id,
        )
        replica.exchanges.add(exchange)
        try:
            await self._open(exchange, call, ends_at)
            if not call.stream:
                yield answers.whole(await exchange.read_all(ends_at), sent.reading)
                return
            # No generator of its own for this: each costs every chunk half a microsecond.
            stream = answers.Stream(sent.reading)
            patience_s = self.deadlines.first_chunk_s
            while not stream.finished:
                received = await exchange.read(min(self._now() + patience_s, ends_at))
                if not received:
                    stream.close()
                for chunk in stream.feed(received):
                    yield chunk
                patience_s = self.deadlines.next_chunk_s
            # Read to the end, so that the connection can serve the next call.
            await exchange.read(min(self._now() + LAST_S, ends_at))
        except SciBoxError as error:
            error.hide(replica.secret)
            raise
        finally:
            replica.exchanges.discard(exchange)
            exchange.close()

    async def _open(self, exchange: Exchange, call: Call, ends_at: float) -> None:
        first_at = self._now() + self.deadlines.first_chunk_s
        by = min(first_at, ends_at) if call.stream else ends_at
        await exchange.open(by)
        if exchange.status != 200:
            raise answers.refusal(exchange.status, await exchange.read_error(by))
        if call.stream and not exchange.header(b"content-type").lower().startswith(b"text/event-stream"):
            raise UpstreamBroken("The model server did not answer with a stream; tell the operator.")


@asynccontextmanager
async def until(at: float) -> AsyncIterator[None]:
    """`asyncio.timeout_at` whose end is `UpstreamTimeout`."""
    try:
        async with asyncio.timeout_at(at):
            yield
    except TimeoutError:
        raise UpstreamTimeout(
            "The model server took too long; try again, or ask for a shorter answer.", retry_after_s=5
        ) from None
