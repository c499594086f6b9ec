"""Blocking work of files and batches, off the event loop and away from everything else.

Threads of its own: a disk that hangs must not take the threads that follow the keys. What fails there is
`StorageUnavailable` to whoever asked, and nothing to any call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from scibox.core.errors import OperatorError, StorageUnavailable
from scibox.store.links import DatabaseAway

T = TypeVar("T")
THREADS = 4


class Disk:
    """Runs functions that block."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "scibox-disk")

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """The function's result; a failure of disk or database as `StorageUnavailable`."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, work, *arguments)
        except (OSError, DatabaseAway, OperatorError) as error:
            raise StorageUnavailable(
                f"Files and batches are not available now ({_reason(error)}); try again in a minute. "
                "If that lasts, tell the operator.",
                retry_after_s=30,
            ) from error

    def later(self, work: Callable[[], object]) -> None:
        """Run it some time; nobody waits for it, and nobody hears when it fails."""
        self._threads.submit(work)

    def close(self) -> None:
        """Let go of the threads; what still runs in them is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _reason(error: Exception) -> str:
    """Why, without paths of the machine."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) if isinstance(error, DatabaseAway) else "its database cannot be read"
