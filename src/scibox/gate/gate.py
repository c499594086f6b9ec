"""Who may enter, and what is owed for a call: authenticate, admit, settle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from scibox.core.errors import Draining, SciBoxError, UpstreamTimeout
from scibox.core.events import CallEnded, Emit
from scibox.core.types import Call, Chunk, Ending, Key, Usage

from .keyring import KeyRing


class Gate:
    """Lets calls in, one ticket each. `clock` is monotonic, `now` is Unix time; both in seconds."""

    def __init__(
        self, ring: KeyRing, emit: Emit, clock: Callable[[], float], now: Callable[[], float]
    ) -> None:
        self._ring = ring
        self._emit = emit
        self._clock = clock
        self._now = now
        self._is_draining = False
        self.in_flight = 0
        self.background = 0  # those of them that nobody waits for
        self.settled = asyncio.Event()  # set whenever a call has ended; who waits for that clears it
        self.idle = asyncio.Event()  # set while no call is in flight
        self.idle.set()

    async def authenticate(self, secret: str) -> Key:
        """The key of a secret, or `Unauthorized`, or `KeysUnavailable`."""
        return await self._ring.identify(secret, self._now())

    async def holder(self, secret: str) -> Key:
        """The key of a secret, also one that opens nothing any more; or an error as of `authenticate`."""
        return await self._ring.holder(secret, self._now())

    def recall(self, key_id: str) -> Key:
        """The key of a batch made earlier, as it is now, or `Unauthorized`."""
        return self._ring.recall(key_id, self._now())

    def admit(self, key: Key, call: Call, model: str) -> Ticket:
        """A ticket for a call on the model of that public name, to be used with `async with`."""
        if self._is_draining:
            raise Draining("The service is stopping; try again in a minute.", retry_after_s=30)
        return Ticket(self, key, call, model)

    def drain(self) -> None:
        """Refuse new calls from now on; running ones go on."""
        self._is_draining = True

    def settle(self, ticket: Ticket, ending: Ending, code: str | None) -> None:
        """Close a ticket: one event, whatever happened. Never awaits."""
        self.in_flight -= 1
        self.background -= ticket.call.is_background
        self.settled.set()
        if not self.in_flight:
            self.idle.set()
        first = ticket.first_chunk_at
        self._emit(
            CallEnded(
                request_id=ticket.call.request_id,
                key_id=ticket.key.key_id,
                owner=ticket.key.owner,
                kind=ticket.call.kind,
                model=ticket.model,
                stream=ticket.call.stream,
                ending=ending,
                usage=ticket.usage,
                total_s=self._clock() - ticket.opened_at,
                first_chunk_s=None if first is None else first - ticket.opened_at,
                code=code,
            )
        )

    def clock(self) -> float:
        """Monotonic seconds."""
        return self._clock()


class Ticket:
    """The reservation of an admitted call; closed exactly once, by leaving its `async with`."""

    def __init__(self, gate: Gate, key: Key, call: Call, model: str) -> None:
        self._gate = gate
        self.key = key
        self.call = call
        self.model = model
        self.usage = Usage()
        self.opened_at = gate.clock()
        self.first_chunk_at: float | None = None

    async def __aenter__(self) -> Ticket:
        self._gate.in_flight += 1
        self._gate.background += self.call.is_background
        self._gate.idle.clear()
        return self

    def count(self, chunk: Chunk) -> None:
        """Note what a chunk says of usage, and when the first one came."""
        if self.first_chunk_at is None:
            self.first_chunk_at = self._gate.clock()
        if chunk.usage is not None:
            self.usage = chunk.usage

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gate.settle(self, _ending(error), error.code if isinstance(error, SciBoxError) else None)


def _ending(error: BaseException | None) -> Ending:
    """How a call ended, from what left its `async with`."""
    if error is None:
        return Ending.FINISHED
    if isinstance(error, UpstreamTimeout):
        return Ending.DEADLINE
    if isinstance(error, SciBoxError):
        return Ending.REFUSED if error.status < 500 else Ending.UPSTREAM_ERROR
    # GeneratorExit and CancelledError: the door closed the call since its client had left.
    return Ending.INTERNAL_ERROR if isinstance(error, Exception) else Ending.CLIENT_GONE
