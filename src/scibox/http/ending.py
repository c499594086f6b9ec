"""The moment at which the calls that still run are ended: the service stops, and its patience is over."""

from __future__ import annotations

import asyncio


class Ending(asyncio.Event):
    """Set once. Calls are told by being cancelled, so that none of them needs a task that waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: set[asyncio.Task[None]] = set()

    def set(self) -> None:
        """End the calls."""
        super().set()
        for call in list(self._calls):
            call.cancel()

    def watch(self, call: asyncio.Task[None]) -> None:
        """That call is to be cancelled at that moment, or now."""
        if self.is_set():
            call.cancel()
        self._calls.add(call)

    def release(self, call: asyncio.Task[None]) -> None:
        """That call has ended by itself."""
        self._calls.discard(call)
