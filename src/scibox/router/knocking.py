"""Whether a server that could not be reached can be again, asked so that no caller waits for it.

A probe of the breaker is a call; where the server is dead it would cost that call the connect deadline.
"""

from __future__ import annotations

import asyncio

from scibox.core.errors import SciBoxError, UpstreamUnavailable
from scibox.upstream.client import Client

from .replica import Replica

PATIENCE_S = 0.2  # of a call; one that is there is reached in less, or is found for the next call


class Knocking:
    """Connects to servers beside the calls, once at a time to each."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._tasks: dict[int, asyncio.Task[bool]] = {}  # by the replica's identity

    async def knock(self, replica: Replica) -> None:
        """Raises `UpstreamUnavailable` where it is not known at once that it is there."""
        task = self._tasks.get(id(replica))
        if task is None:
            task = self._tasks[id(replica)] = asyncio.create_task(self._reach(replica))
        await asyncio.wait({task}, timeout=PATIENCE_S)
        if not task.done() or not task.result():
            raise UpstreamUnavailable(
                "The model server cannot be reached now; try again in a few seconds.", retry_after_s=2
            )

    async def _reach(self, replica: Replica) -> bool:
        """Whether there is a connection; it is kept for the next call."""
        try:
            connection = await self._client.connect(replica.address)
        except SciBoxError:
            return False
        finally:
            del self._tasks[id(replica)]
        self._client.give_back(replica.address, connection)
        replica.found()
        return True
