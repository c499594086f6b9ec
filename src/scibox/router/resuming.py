"""An answer whose replica has died goes on on another one, from the text that has been delivered.

Not a retry: nothing is said twice, and no budget denies it. It is only paced (`core/spending.py`), so that
the streams of a dead replica do not fall on the others at once. Other replicas of the deployment come first,
then other deployments, and last the same replica: a child of ours is restarted, and behind one address
there may be many servers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from scibox.core.errors import InvalidRequest, SciBoxError, UpstreamTimeout, UpstreamUnavailable
from scibox.core.pulse import Flight
from scibox.core.types import Call
from scibox.upstream.client import Client, Exchange
from scibox.wire import reasoning
from scibox.wire.orders import Order, order
from scibox.wire.resuming.joiner import COMMENT, COMMENT_OF_SAME, Joiner
from scibox.wire.resuming.memory import Memory, Said
from scibox.wire.resuming.order import Rest, keeps, rest
from scibox.wire.tokenize import Wanted

from .answer import Answer
from .attempts import RESTART_PATIENCE_S, Way
from .learning import learn
from .replica import Replica, Route
from .tokenizer import Tokenizer
from .trouble import words_on

MOST_BREAKS = 3  # of one answer: a call that goes with its servers may be what kills them
MOST_TRIES = 3  # of one break
POLL_S = 0.1  # between two looks at a child of ours that is being restarted

Open = Callable[[Call, Replica, Order, float], Awaitable[Exchange]]


class CannotGoOn(SciBoxError):
    """This replica has no way to continue a text; never told to a client."""


def memory_of(call: Call, route: Route) -> Memory | None:
    """What is kept of an answer to this call; None where nothing needs to be."""
    size = keeps(call) if route.resumes else None
    return None if size is None else Memory(size)


def comment(before: Replica, after: Replica) -> bytes:
    """What the stream says where two replicas meet."""
    return COMMENT_OF_SAME if before is after else COMMENT


class Resumes:
    """Finds who goes on. `luck` is in 0..1; `first_chunk_s` is how long one may take to begin."""

    _clock = staticmethod(time.monotonic)

    def __init__(
        self,
        client: Client,
        tokenizer: Tokenizer,
        open_: Open,
        luck: Callable[[], float],
        first_chunk_s: Callable[[], float],
    ) -> None:
        self._client = client
        self._tokenizer = tokenizer
        self._open = open_
        self._luck = luck
        self._first_chunk_s = first_chunk_s

    async def go_on(self, way: Way, broken: Answer, error: SciBoxError, breaks: int) -> Answer:
        """The answer from where it broke off with this error, which is raised if nobody can."""
        assert broken.stream is not None
        if breaks > MOST_BREAKS or broken.stream.said() is None:
            raise error
        avoid = [broken.flight.member]
        patient_until = self._clock() + RESTART_PATIENCE_S
        tries = 0
        await self._wait(way, broken.flight.member)
        while tries < MOST_TRIES and self._clock() < way.ends_at:
            flight = self._next(way, avoid)
            if flight is None:
                break
            replica = flight.member
            try:
                return await self._try(way, broken, flight)
            except UpstreamUnavailable as failure:
                self._failed(flight, failure)
                if replica is broken.flight.member and replica.is_local and self._clock() < patient_until:
                    await asyncio.sleep(POLL_S)
                    continue
            except SciBoxError as failure:
                self._failed(flight, failure)
            except BaseException:
                flight.abandon(self._clock())
                raise
            tries += 1
            if replica is broken.flight.member:
                break
            avoid.append(replica)
        raise error

    async def _wait(self, way: Way, dead: Replica) -> None:
        """All streams of a dead replica may resume, but not at once."""
        now = self._clock()
        left = sum(one.is_usable and one is not dead for one in way.route.replicas)
        start_at = dead.resumes.start_at(now, left)
        if start_at > now:
            await asyncio.sleep(min(start_at, way.ends_at) - now)

    def _next(self, way: Way, avoid: list[Replica]) -> Flight[Replica] | None:
        now, call, deployments = self._clock(), way.call, way.route.deployments
        own = way.attempts.deployment
        for at in (own, *(at for at in range(len(deployments)) if at != own)):
            flight = deployments[at].choice.begin(now, size=call.text_bytes, avoid=avoid)
            if flight is not None:
                way.attempts.deployment = at
                return flight
        dead = avoid[0]
        return None if dead.is_draining else dead.pulse.begin(now, call.text_bytes)

    def _failed(self, flight: Flight[Replica], failure: SciBoxError) -> None:
        if isinstance(failure, CannotGoOn | InvalidRequest):
            flight.abandon(self._clock())
        else:
            failure.hide(flight.member.secret)
            flight.member.failed(words_on(failure), failure.code)
            flight.fail(self._clock(), self._luck())

    async def _try(self, way: Way, broken: Answer, flight: Flight[Replica]) -> Answer:
        """Ask one replica, and wait until it goes on."""
        call, replica, stream = way.call, flight.member, broken.stream
        assert stream is not None
        said = stream.said()
        by = min(self._clock() + self._first_chunk_s(), way.ends_at)
        sent, joiner = await self._continuation(call, replica, said)
        way.witness.tried(way.attempts.deployment, replica.name)
        exchange = await self._open(call, replica, sent, by)
        try:
            stream.join(joiner)
            answer = Answer(flight, exchange, stream)
            while not answer.has_begun:
                answer.feed(await exchange.read(by))
        except BaseException:
            replica.exchanges.discard(exchange)
            exchange.close()
            raise
        flight.first_chunk(self._clock())
        replica.answered()
        return answer

    async def _continuation(self, call: Call, replica: Replica, said: Said | None) -> tuple[Order, Joiner]:
        target = await learn(self._client, self._tokenizer, call, replica)
        thinking = reasoning.expected(call, target.thinking, target.model)
        wanted = rest(call, said, target.dialect, thinking) if said else None
        if wanted is None:
            raise CannotGoOn("It cannot go on with a text.")
        counted = await self._count(call, wanted, replica)
        sent = order(wanted.call(call, counted), target)
        tokens, is_complete = wanted.tokens(counted), wanted.is_complete(call, counted)
        how: dict[str, Any] = {
            "is_complete": is_complete,
            "echoes": target.dialect == "llama",
            "undo": sent.reading.undo,
        }
        said_tokens = wanted.all_tokens(counted) if is_complete else tokens
        return sent, Joiner(wanted, said_tokens, tokens if counted is None else counted, **how)

    async def _count(self, call: Call, wanted: Rest, replica: Replica) -> int | None:
        """LLM tokens of the text that is gone on from; None where nobody can tell."""
        if not wanted.sent:
            return 0
        if replica.tokenizer is None:
            return None
        text = Wanted(call.model, wanted.sent, None, adds_special=False, wants_texts=False)
        try:
            return (await self._tokenizer.tokens(text, replica)).count
        except UpstreamUnavailable:
            raise
        except SciBoxError:
            return None


def is_final(error: SciBoxError, ends_at: float, now: float) -> bool:
    """Whether the call itself is over, not only its replica."""
    return isinstance(error, UpstreamTimeout) and now >= ends_at
