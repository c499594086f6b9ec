"""What the journal does to the disk, in one place: tests put their faults here."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

# A file system that cannot reserve space still keeps a journal; trouble then shows later.
_CANNOT_RESERVE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class Files:
    """Files that are reserved ahead and written at their place."""

    def create(self, path: Path, size_bytes: int) -> int:
        """The descriptor of a new file, so much zeros reserved; or an OSError, and there is no file."""
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            self.reserve(descriptor, size_bytes)
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                raise
        return descriptor

    def reserve(self, descriptor: int, size_bytes: int) -> None:
        """Take the space on the disk now."""
        os.posix_fallocate(descriptor, 0, size_bytes)

    def write(self, descriptor: int, data: bytes, at: int) -> None:
        """All of the data at its place, or an OSError; then the same may be written there again."""
        written = os.pwrite(descriptor, data, at)
        if written != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self, descriptor: int) -> None:
        """Wait until it is on the disk itself."""
        os.fdatasync(descriptor)

    def trim(self, descriptor: int, size_bytes: int) -> None:
        """Give back the space behind."""
        os.ftruncate(descriptor, size_bytes)

    def close(self, descriptor: int) -> None:
        """Let go of the descriptor."""
        os.close(descriptor)


def hold(path: Path) -> int:
    """Hold a new lock file until the descriptor is closed or this process dies. Nobody sees it unlocked."""
    early = path.with_suffix(".early")
    descriptor = os.open(early, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        early.rename(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def take(path: Path) -> int | None:
    """Take the lock of a file that several processes use in turn; None while another has it."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return None
        raise
    return descriptor


def is_held(path: Path) -> bool:
    """Whether a living process holds this lock file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    with contextlib.closing(os.fdopen(descriptor, "rb")):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        return False
