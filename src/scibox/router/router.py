"""Where a call goes: attempts on the replicas of its model, before the first chunk; then the relay.

Until the first chunk has left, a failed attempt is followed by another (`attempts.py` says where); after it
an answer is never begun again, only gone on with (`resuming.py`). Every wait has a deadline (law 7).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass

from scibox.core.errors import (
    SciBoxError,
    UpstreamBroken,
    UpstreamMisconfigured,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from scibox.core.pulse import Flight
from scibox.core.spending import Budget
from scibox.core.types import Call, Chunk
from scibox.upstream.client import MAX_BODY_BYTES, MAX_TEXT_BYTES, Client, Exchange
from scibox.wire import answers, retry_after
from scibox.wire.orders import Order, order, split

from .answer import Answer
from .attempts import Attempts, Way
from .choices import merged
from .counting import refuse_too_long
from .hedges import Hedges
from .knocking import Knocking
from .learning import learn
from .replica import NOBODY, Replica, Route, Witness
from .resuming import Resumes, comment, is_final, memory_of
from .tokenizer import Tokenizer
from .trouble import words_on

LAST_S = 1.0  # for what follows the last event
POLL_S = 0.1  # between two looks at a child of ours that is being restarted
PASSED_ON = (UpstreamUnavailable, UpstreamMisconfigured, UpstreamBroken, UpstreamTimeout)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds; a non-streamed answer is one chunk, for which only `total_s` holds."""

    first_chunk_s: float
    next_chunk_s: float
    total_s: float


class Router:
    """Turns a call into chunks. `luck` is in 0..1."""

    # The loop's time too, without looking for the loop: Python 3.11 asks the kernel for that each time.
    _clock = staticmethod(time.monotonic)

    def __init__(
        self, client: Client, deadlines: Deadlines, luck: Callable[[], float] = random.random
    ) -> None:
        self._client = client
        self.deadlines = deadlines
        self.tokenizer = Tokenizer(client)
        self._luck = luck
        self._knocking = Knocking(client)
        self._hedges = Hedges()
        self._retries: defaultdict[str, Budget] = defaultdict(Budget)  # by model
        self._resumes = Resumes(
            client, self.tokenizer, self._open, luck, lambda: self.deadlines.first_chunk_s
        )

    def ends_at(self) -> float:
        """When a call that begins now must have ended, in the loop's time."""
        return self._clock() + self.deadlines.total_s

    def may_retry(self, route: Route) -> bool:
        """Whether a failed piece of a call may be tried again from the start; it is then spent."""
        return self._retries[route.card.name].take(self._clock())

    async def stream(
        self,
        call: Call,
        route: Route,
        first: int = 0,
        witness: Witness = NOBODY,
        ends_at: float | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks of the first replica that answers, beginning with those of deployment `first`."""
        ends_at = self.ends_at() if ends_at is None else ends_at
        if call.n > 1 and any(replica.dialect == "llama" for replica in route.replicas):
            # llama-server is asked for one choice at a time.
            parts = merged(
                split(call),
                lambda one: self.stream(one, route, first, witness, ends_at),
                group=call.n // call.prompts,
            )
            async with aclosing(parts) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        way, answer = await self._begin(call, route, first, witness, ends_at)
        breaks = 0
        try:
            if not call.stream:
                answer.flight.end(self._clock(), answer.deltas)
                answer.close()
                yield answer.first
                return
            yield answer.first
            while True:
                try:
                    for chunk in answer.chunks:
                        answer.deltas += chunk.deltas
                        yield chunk
                    if answer.is_whole:
                        break
                    by = min(self._clock() + self.deadlines.next_chunk_s, ends_at)
                    answer.feed(await answer.exchange.read(by))
                except PASSED_ON as error:
                    breaks += 1
                    before = answer.flight.member
                    answer = await self._after(way, answer, error, breaks)
                    yield Chunk(comment(before, answer.flight.member))
                    yield answer.first
            answer.flight.end(self._clock(), answer.deltas)
            with suppress(SciBoxError):
                # Read to the end, so that the connection can serve the next call.
                await answer.exchange.read(min(self._clock() + LAST_S, ends_at))
        except SciBoxError as error:
            answer.flight.end(self._clock(), answer.deltas)
            error.hide(answer.flight.member.secret)
            raise
        finally:
            answer.flight.abandon(self._clock(), answer.deltas)
            answer.close()

    async def _after(self, way: Way, answer: Answer, error: SciBoxError, breaks: int) -> Answer:
        """What goes on with an answer that its replica has broken off; raises the error where nothing can."""
        replica = answer.flight.member
        replica.failed(words_on(error), error.code)
        answer.flight.fail(self._clock(), self._luck())
        answer.close()
        error.hide(replica.secret)
        if is_final(error, way.ends_at, self._clock()):
            raise error
        return await self._resumes.go_on(way, answer, error, breaks)

    async def _begin(
        self, call: Call, route: Route, first: int, witness: Witness, ends_at: float
    ) -> tuple[Way, Answer]:
        """Attempts until one answers; raises what the last has failed with."""
        budget = self._retries[route.card.name]
        budget.called(self._clock())
        attempts = Attempts(call, route, first, budget, self._luck)
        answer: Answer | None = None
        way = Way(call, route, witness, ends_at, attempts)
        is_hedged = route.hedge_after_s is not None and not call.is_background
        while True:
            flight = attempts.next(self._clock())
            if flight is None:
                await asyncio.sleep(POLL_S)
            elif is_hedged and attempts.is_fresh:
                answer = await self._hedges.first(way, flight, self._try, self._clock)
            else:
                answer = await self._try(way, flight, attempts.deployment)
            if answer is not None:
                return way, answer
            if attempts.failure is not None and self._clock() >= ends_at:
                raise attempts.failure

    async def _try(self, way: Way, flight: Flight[Replica], deployment: int) -> Answer | None:
        """One attempt; None: it has failed, and another may follow."""
        try:
            if way.attempts.pause_s:
                await asyncio.sleep(way.attempts.pause_s)
            answer = await self._attempt(way, flight, deployment)
        except PASSED_ON as error:
            error.hide(flight.member.secret)
            way.attempts.failed(flight, error, self._clock())
            return None
        except SciBoxError as error:  # the caller's own fault: the replica has answered
            error.hide(flight.member.secret)
            flight.end(self._clock())
            raise
        except BaseException:
            flight.abandon(self._clock())
            raise
        flight.member.answered()
        return answer

    async def _attempt(self, way: Way, flight: Flight[Replica], deployment: int) -> Answer:
        """Open an exchange and wait for the first chunk."""
        call, replica, deadlines = way.call, flight.member, self.deadlines
        if replica.is_unreachable and not replica.is_local:
            await self._knocking.knock(replica)
        await refuse_too_long(self.tokenizer, call, replica)
        if not way.attempts.is_poll:
            way.witness.tried(deployment, replica.name)
        sent = order(call, await learn(self._client, self.tokenizer, call, replica))
        by = min(self._clock() + deadlines.first_chunk_s, way.ends_at) if call.stream else way.ends_at
        exchange = await self._open(call, replica, sent, by)
        try:
            if call.stream:
                answer = Answer(flight, exchange, answers.Stream(sent.reading, memory_of(call, way.route)))
                while not answer.has_begun:
                    answer.feed(await exchange.read(by))
                flight.first_chunk(self._clock())
            else:
                most_bytes = MAX_TEXT_BYTES if call.kind == "chat" else MAX_BODY_BYTES
                body = await exchange.read_all(by, most_bytes)
                answer = Answer.whole(flight, exchange, answers.whole(body, sent.reading))
        except BaseException:
            replica.exchanges.discard(exchange)
            exchange.close()
            raise
        return answer

    async def _open(self, call: Call, replica: Replica, sent: Order, by: float) -> Exchange:
        """An exchange whose answer begins well; whoever has it closes it."""
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
            await exchange.open(by)
            if exchange.status != 200:
                raise await _refusal(exchange, by)
            if call.stream and not exchange.header(b"content-type").lower().startswith(b"text/event-stream"):
                raise UpstreamBroken("The model server did not answer with a stream; tell the operator.")
        except BaseException:
            replica.exchanges.discard(exchange)
            exchange.close()
            raise
        return exchange


async def _refusal(exchange: Exchange, by: float) -> SciBoxError:
    """What an error answer says, and when to come again."""
    told = exchange.header(b"retry-after"), exchange.header(b"retry-after-ms")
    opens_in_s = retry_after.seconds(*told, time.time())
    return answers.refusal(exchange.status, await exchange.read_error(by), opens_in_s)
