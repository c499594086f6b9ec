"""Runs the operator's use cases in the service: off its loop, and obeyed by it before they are answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from scibox.core.errors import KeysUnavailable, OperatorError, StorageUnavailable
from scibox.store.sql import DatabaseAway

from .admin import Admin

T = TypeVar("T")
THREADS = 2  # of its own: a database that hangs must not take those that follow the keys


class Office:
    """The use cases for the door. `refresh` brings this process's ring to what the database has now."""

    def __init__(self, admin: Admin, refresh: Callable[[], Awaitable[None]]) -> None:
        self.admin = admin
        self._refresh = refresh
        self._threads = ThreadPoolExecutor(THREADS, "scibox-admin")

    async def ask(self, work: Callable[..., T], *arguments: object) -> T:
        """The result of a use case that changes nothing."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, work, *arguments)
        except (DatabaseAway, OperatorError) as error:
            raise StorageUnavailable(
                f"The database of keys does not work now ({error}). Calls go on, and revoking works; for "
                "everything else try again when it is back.",
                retry_after_s=30,
            ) from error

    async def change(self, work: Callable[..., T], *arguments: object) -> T:
        """The result of a use case that changes keys or owners; calls are judged by it from now on."""
        result = await self.ask(work, *arguments)
        with contextlib.suppress(KeysUnavailable):  # the change is made; the ring follows when it can
            await self._refresh()
        return result

    def close(self) -> None:
        """Let go of the threads; what still runs in them is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
