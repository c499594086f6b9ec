"""The list of what has ended, whatever the database says: ids of revoked keys, digests of replaced secrets.

One file per data folder, `revoked`, with a line `<subject> <Unix seconds>` each; it is only ever appended to,
and a line is on the disk before anybody is told. Several processes append and read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

_LINE = re.compile(rb"^([\w-]{1,100}) ([0-9]{1,12}(?:\.[0-9]{1,9})?)\n", re.ASCII | re.MULTILINE)


def is_listable(subject: str) -> bool:
    """Whether it has the form of a key's id or a digest."""
    return _LINE.fullmatch(f"{subject} 0\n".encode()) is not None


class Revoked:
    """The file at a path. Methods block, and raise OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def stamp(self) -> tuple[int, int]:
        """Differs after each change: the file and its size; cheap to ask."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return (0, 0)
        return (status.st_ino, status.st_size)

    def read(self) -> dict[str, float]:
        """When each subject has ended, or will have; a torn line is not counted."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        ends: dict[str, float] = {}
        for subject, at in _LINE.findall(content):
            name, time = subject.decode(), float(at)
            ends[name] = min(time, ends.get(name, time))
        return ends

    def add(self, ends: Mapping[str, float]) -> None:
        """Append these, and wait until they are on the disk."""
        lines = b"".join(f"{subject} {at:.3f}\n".encode() for subject, at in ends.items())
        if _LINE.sub(b"", lines):
            raise ValueError("no subject that can be listed")
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(self._path) as descriptor:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":  # torn: the machine or a writer died
                lines = b"\n" + lines
            while lines:
                lines = lines[os.write(descriptor, lines) :]
            os.fsync(descriptor)
            if not size:
                _sync_folder(self._path.parent)


def merge(ends: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    """Both, with the earlier time of each subject."""
    both = dict(ends)
    for subject, at in more.items():
        both[subject] = min(at, both.get(subject, at))
    return both


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
