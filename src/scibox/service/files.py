"""Files of owners: upload, list, read, remove. An owner sees nobody else's."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from scibox.core.errors import BodyTooLarge, InvalidRequest, NotFound
from scibox.core.files import File, Page
from scibox.store.lines import sync_folder
from scibox.store.shelf import InUse, NoSuchObject, OverLimit, Shelf
from scibox.wire.stored.files import Upload

from .disk import Disk

BLOCK_BYTES = 2**18  # written and read at a time


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what is stored; `keep_s` is how long files are kept where nobody says another time."""

    max_file_bytes: int
    max_owner_bytes: int
    keep_s: float


class Files:
    """The use cases. `now` is Unix time in seconds."""

    def __init__(self, shelf: Shelf, disk: Disk, limits: Limits, now: Callable[[], float]) -> None:
        self.limits = limits
        self._shelf = shelf
        self._disk = disk
        self._now = now
        self._arriving: Counter[str] = Counter()  # bytes of uploads under way, by owner

    async def receive(self, owner: str, pieces: AsyncIterator[bytes], said: Callable[[], Upload]) -> File:
        """Store an upload; `said` is asked after the last piece. Whatever fails leaves nothing behind."""
        stored = await self._disk.run(self._shelf.total_bytes, owner)
        file_id = f"file-{secrets.token_hex(12)}"
        path = self._shelf.content(file_id)
        stream = await self._disk.run(self._shelf.create, file_id)
        size = 0
        block = bytearray()
        is_kept = False
        try:
            async for piece in pieces:
                size += len(piece)
                self._arriving[owner] += len(piece)
                self._refuse_too_large(size, stored + self._arriving[owner])
                block += piece
                if len(block) >= BLOCK_BYTES:
                    await self._disk.run(stream.write, bytes(block))
                    block.clear()
            await self._disk.run(_finish, stream, path, bytes(block))
            file = self._file(file_id, owner, size, said())
            is_kept = True  # if this is cancelled now, the row may be there: content without one is swept
            await self._disk.run(self._shelf.add, file, self.limits.max_owner_bytes)
            return file
        except OverLimit:
            is_kept = False
            raise self._full() from None
        finally:
            self._arriving[owner] -= size
            self._disk.later(stream.close)
            if not is_kept:
                self._disk.later(lambda: path.unlink(missing_ok=True))

    async def list(self, owner: str, page: Page, purpose: str | None) -> tuple[list[File], bool]:
        """A page of an owner's files, and whether more follow."""
        try:
            return await self._disk.run(self._shelf.files, owner, page, purpose, self._now())
        except NoSuchObject as error:
            raise no_such_file(str(error), "after") from None

    async def get(self, owner: str, file_id: str) -> File:
        """One file."""
        try:
            return await self._disk.run(self._shelf.file, owner, file_id, self._now())
        except NoSuchObject:
            raise no_such_file(file_id) from None

    async def content(self, owner: str, file_id: str) -> Content:
        """A file with its bytes; to be closed."""
        file = await self.get(owner, file_id)
        stream = await self._disk.run(self._shelf.open, file_id)
        if stream is None:  # removed in this moment
            raise no_such_file(file_id)
        return Content(file, stream, self._disk)

    async def remove(self, owner: str, file_id: str) -> None:
        """Forget a file."""
        try:
            await self._disk.run(self._shelf.remove, owner, file_id, self._now())
        except NoSuchObject:
            raise no_such_file(file_id) from None
        except InUse as error:
            raise InvalidRequest(
                f"The file '{file_id}' is read by {error}; wait for that batch, or cancel it first.",
                code="file_in_use",
            ) from None

    def _file(self, file_id: str, owner: str, size: int, upload: Upload) -> File:
        now = self._now()
        lifetime_s = self.limits.keep_s if upload.lifetime_s is None else upload.lifetime_s
        return File(file_id, owner, upload.name, upload.purpose, size, now, now + lifetime_s)

    def _refuse_too_large(self, size: int, total: int) -> None:
        if size > self.limits.max_file_bytes:
            raise too_large(self.limits.max_file_bytes)
        if total > self.limits.max_owner_bytes:
            raise self._full()

    def _full(self) -> InvalidRequest:
        return InvalidRequest(
            f"Your files would be larger than {self.limits.max_owner_bytes} bytes together; "
            "delete some first (DELETE /v1/files/{id}).",
            param="file",
            code="storage_limit_reached",
        )


class Content:
    """A file and its bytes, block by block."""

    def __init__(self, file: File, stream: BinaryIO, disk: Disk) -> None:
        self.file = file
        self._stream = stream
        self._disk = disk

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """The blocks."""
        while block := await self._disk.run(self._stream.read, BLOCK_BYTES):
            yield block

    def close(self) -> None:
        """Let go of it, read to the end or not."""
        self._disk.later(self._stream.close)


def too_large(limit_bytes: int) -> BodyTooLarge:
    """A file over the bound for one."""
    return BodyTooLarge(
        f"The file is larger than {limit_bytes} bytes; split it into several batches.", param="file"
    )


def no_such_file(file_id: str, param: str | None = None) -> NotFound:
    """The same words for a file that never was, is gone, or is somebody else's."""
    return NotFound(
        f"There is no file '{file_id[:100]}'; see GET /v1/files for those there are.", param=param
    )


def _finish(stream: BinaryIO, path: Path, rest: bytes) -> None:
    """Make a content durable."""
    stream.write(rest)
    stream.flush()
    os.fsync(stream.fileno())
    sync_folder(path)
