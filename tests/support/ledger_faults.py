"""Disks that fail as they are told, for the tests of the journal."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from scibox.ledger.files import Files


class FaultyFiles(Files):
    """Fails with `broken` wherever it is named: "reserve", "write", "half" (writes a part first), "sync"."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.error = errno.ENOSPC
        self.tried = 0
        self.synced = 0
        self.bad: set[int] = set()  # inodes of files that cannot be written
        self.syncing = threading.Event()  # set when a sync has begun
        self.may_sync = threading.Event()
        self.may_sync.set()

    def _fail(self, what: str) -> None:
        if what in self.broken:
            self.tried += 1
            raise OSError(self.error, os.strerror(self.error))

    def create(self, path: Path, size_bytes: int) -> int:
        self._fail("create")
        return super().create(path, size_bytes)

    def reserve(self, descriptor: int, size_bytes: int) -> None:
        self._fail("reserve")
        super().reserve(descriptor, size_bytes)

    def write(self, descriptor: int, data: bytes, at: int) -> None:
        if os.fstat(descriptor).st_ino in self.bad:
            raise OSError(self.error, os.strerror(self.error))
        if "half" in self.broken:
            super().write(descriptor, data[: len(data) // 2], at)
            raise OSError(self.error, os.strerror(self.error))
        self._fail("write")
        super().write(descriptor, data, at)

    def sync(self, descriptor: int) -> None:
        self.syncing.set()
        self.may_sync.wait(30)
        self._fail("sync")
        self.synced += 1
        super().sync(descriptor)
