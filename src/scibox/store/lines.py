"""JSONL on disk: inputs read in stretches, results appended so that a crash loses none that was recorded."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

STRETCH_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some lines with their numbers, counted from 1, and where the next ones begin; no lines: the end."""

    lines: tuple[tuple[int, bytes], ...]
    offset: int
    number: int


def read(path: Path, limit_bytes: int, offset: int = 0, number: int = 1) -> Stretch:
    """The next lines, about a mebibyte of them. Of one over the limit comes the start."""
    lines: list[tuple[int, bytes]] = []
    size = 0
    with path.open("rb") as stream:
        stream.seek(offset)
        while size < STRETCH_BYTES and (line := stream.readline(limit_bytes + 2)):
            piece = line
            while not piece.endswith(b"\n") and (piece := stream.readline(STRETCH_BYTES)):
                pass  # the rest of a line that is too long
            kept = line.rstrip(b"\r\n")
            size += len(line)
            if kept.strip():
                lines.append((number, kept))
            elif not lines:
                size = 0  # blank lines are not the end
            number += 1
        return Stretch(tuple(lines), stream.tell(), number)


class Results:
    """The two result files of a batch that is under way. One thread at a time.

    What is on disk is the truth on how far the batch is: a line counts from the moment `append` has
    returned. A torn end (a crash, a full disk) is cut off before anything else is written.
    """

    def __init__(self, output: Path, errors: Path) -> None:
        self._paths = (output, errors)
        self._sizes = [0, 0]

    @property
    def size_bytes(self) -> int:
        """Bytes recorded in both files."""
        return sum(self._sizes)

    def load(self, custom_id: Callable[[bytes], str]) -> tuple[set[str], set[str]]:
        """Whose lines are recorded in each of the files; `custom_id` reads it of a line."""
        output, errors = (self._recorded(index, custom_id) for index in (0, 1))
        return output, errors

    def append(self, output: bytes, errors: bytes) -> None:
        """Record whole lines durably; after an OSError nothing of them counts, and they may come again."""
        sizes = [self._write(index, data) for index, data in ((0, output), (1, errors))]
        self._sizes = sizes

    def close(self) -> tuple[int, int]:
        """The sizes of the two files, with nothing behind what is recorded; empty ones are removed."""
        for path, size in zip(self._paths, self._sizes, strict=True):
            if not size:
                path.unlink(missing_ok=True)
            elif path.stat().st_size != size:
                os.truncate(path, size)
        return self._sizes[0], self._sizes[1]

    def _recorded(self, index: int, custom_id: Callable[[bytes], str]) -> set[str]:
        found: set[str] = set()
        size = 0
        if self._paths[index].exists():
            with self._paths[index].open("rb") as stream:
                for line in stream:
                    try:
                        if not line.endswith(b"\n"):
                            break
                        found.add(custom_id(line))
                    except ValueError:  # blocks that never reached the disk before the power went
                        break
                    size += len(line)
        self._sizes[index] = size
        return found

    def _write(self, index: int, data: bytes) -> int:
        """Returns the file's new size."""
        size = self._sizes[index]
        if not data:
            return size
        is_new = not self._paths[index].exists()
        descriptor = os.open(self._paths[index], os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            os.ftruncate(descriptor, size)
            os.lseek(descriptor, size, os.SEEK_SET)
            write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(self._paths[index])
        return size + len(data)


def write(descriptor: int, data: bytes) -> None:
    """All of the data."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(path: Path) -> None:
    """Make a new file's name durable too."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
