"""Embeddings that were made before, by content: the newest used in memory, more of them on disk.

It never fails a call: what the disk cannot do is reported once and done without. The disk is a thread's.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import sqlite3
from array import array
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from scibox.core.types import Content, Vector

from .vector_file import VectorFile, remove

T = TypeVar("T")

ENTRY_BYTES = 250  # what an entry costs in memory beside its floats
WAITING_BYTES = 64 * 2**20  # a disk that cannot keep up with more than this is not waited for

Report = Callable[[str], None]


class VectorCache:
    """Vectors under digests of the model's identity and the text. `path` None or a limit of 0: none there."""

    def __init__(self, memory_bytes: int, path: Path | None, disk_bytes: int, report: Report) -> None:
        self.memory_bytes = memory_bytes
        self._held_bytes = 0
        self._waiting_bytes = 0
        self._vectors: OrderedDict[bytes, Vector] = OrderedDict()
        self._report = report
        self._has_reported = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vectors")
        self._file = self._open(path, disk_bytes) if path is not None and disk_bytes else None
        self._secret = self._file.secret if self._file else secrets.token_bytes(32)

    def key(self, identity: bytes, content: Content) -> bytes:
        """The digest of a text, or of LLM token ids, for the model of that identity."""
        digest = hashlib.blake2b(identity, key=self._secret, digest_size=20)
        if isinstance(content, str):
            digest.update(b"\0text\0" + content.encode())
        else:
            digest.update(b"\0ids\0" + array("q", content).tobytes())
        return digest.digest()

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        """What is known of these keys."""
        found = {key: vector for key in keys if (vector := self._vectors.get(key)) is not None}
        for key in found:
            self._vectors.move_to_end(key)
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if self._file is not None and missing:
            on_disk = await asyncio.get_running_loop().run_in_executor(self._thread, self._read, missing)
            self._hold(on_disk)
            found |= on_disk
        return found

    def put(self, vectors: Mapping[bytes, Vector]) -> None:
        """Remember these; the disk has them a little later."""
        self._hold(vectors)
        size = sum(len(vector.floats) for vector in vectors.values())
        if self._file is not None and self._waiting_bytes + size <= WAITING_BYTES:
            self._waiting_bytes += size
            writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, dict(vectors))
            writing.add_done_callback(lambda _: self._written(size))

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._thread.shutdown(wait=True)
        if self._file is not None:
            with suppress(sqlite3.Error):
                self._file.close()

    def _hold(self, vectors: Mapping[bytes, Vector]) -> None:
        for key, vector in vectors.items():
            if (before := self._vectors.pop(key, None)) is not None:
                self._held_bytes -= len(before.floats) + ENTRY_BYTES
            self._vectors[key] = vector
            self._held_bytes += len(vector.floats) + ENTRY_BYTES
        while self._held_bytes > self.memory_bytes:
            _, oldest = self._vectors.popitem(last=False)
            self._held_bytes -= len(oldest.floats) + ENTRY_BYTES

    def _written(self, size: int) -> None:
        self._waiting_bytes -= size

    # below: in the thread, but for `_open`

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        return self._try(lambda file: file.get(keys)) or {}

    def _write(self, vectors: Mapping[bytes, Vector]) -> None:
        self._try(lambda file: file.put(vectors))

    def _try(self, work: Callable[[VectorFile], T]) -> T | None:
        assert self._file is not None
        try:
            return work(self._file)
        except sqlite3.OperationalError as error:  # full, locked, gone: perhaps not the next time
            self._complain(f"the cache of embeddings does without its file for now: {error}")
        except sqlite3.DatabaseError as error:
            self._complain(f"the file of the cache of embeddings is damaged and begins anew: {error}")
            with suppress(sqlite3.Error, OSError):
                self._file.renew()
        return None

    def _open(self, path: Path, disk_bytes: int) -> VectorFile | None:
        try:
            try:
                return VectorFile(path, disk_bytes)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # no database, or a damaged one: nothing in it is missed
                remove(path)
                return VectorFile(path, disk_bytes)
        except (sqlite3.Error, OSError) as error:
            self._complain(f"the cache of embeddings stays in memory, {path} cannot be used: {error}")
            return None

    def _complain(self, message: str) -> None:
        if not self._has_reported:
            self._has_reported = True
            self._report(message)
