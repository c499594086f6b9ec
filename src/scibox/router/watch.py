"""The deadlines of one exchange, by one timer: to set the next, for each chunk, costs next to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scibox.core.errors import UpstreamTimeout
from scibox.upstream.client import Exchange

_TOO_LONG = "The model server took too long; try again, or ask for a shorter answer."
_AGAIN_S = 0.1  # nobody waits: it is being connected, or the client has not taken the last chunk yet


class Watch:
    """Ends the wait of an exchange with `UpstreamTimeout` at a time of the loop's clock."""

    __slots__ = ("_at", "_exchange", "_loop", "_timer", "_timer_at")

    def __init__(self, exchange: Exchange, at: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._exchange = exchange
        self._at = self._timer_at = at
        self._timer = self._loop.call_at(at, self._due)

    def wait(self, patience_s: float, ends_at: float) -> None:
        """A wait begins, for so long at most."""
        self._at = min(self._loop.time() + patience_s, ends_at)
        if self._at < self._timer_at:
            self._timer.cancel()
            self._arm(self._at)

    def close(self) -> None:
        """There is nothing more to wait for."""
        self._timer.cancel()

    def _arm(self, at: float) -> None:
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._due)

    def _due(self) -> None:
        now = self._loop.time()
        if now < self._at:
            self._arm(self._at)
        elif not self._exchange.expire(late()):
            self._arm(now + _AGAIN_S)


def late() -> UpstreamTimeout:
    """What the caller is told of a deadline."""
    return UpstreamTimeout(_TOO_LONG, retry_after_s=5)


@asynccontextmanager
async def until(at: float) -> AsyncIterator[None]:
    """`asyncio.timeout_at` whose end is `UpstreamTimeout`."""
    try:
        async with asyncio.timeout_at(at):
            yield
    except TimeoutError:
        raise late() from None
