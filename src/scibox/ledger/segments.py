"""The journal's folder as its readers see it: whose segments are there, who lives, what is in them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import frames
from .files import is_held
from .frames import Stretch

NODE = "node"
LOOK_BYTES = 2**18  # about 250 calls with their openings


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """A file of a process's journal; numbers grow, and some may be missing."""

    process: str
    number: int
    path: Path


def by_process(folder: Path) -> dict[str, list[Segment]]:
    """Every process's segments, in order."""
    found: dict[str, list[Segment]] = {}
    for path in sorted(folder.glob("*-*.log")):
        process, _, number = path.stem.rpartition("-")
        if number.isdigit():
            found.setdefault(process, []).append(Segment(process, int(number), path))
    return {process: sorted(segments) for process, segments in found.items()}


def processes(folder: Path) -> set[str]:
    """Every process that has left something here."""
    locks = {path.stem for path in folder.glob("*-*.lock")}
    return locks | {path.stem.rpartition("-")[0] for path in folder.glob("*-*.log")}


def is_alive(folder: Path, process: str) -> bool:
    """Whether that process can still write."""
    return is_held(_lock(folder, process))


def forget(folder: Path, process: str) -> None:
    """A dead process has no segments left."""
    _lock(folder, process).unlink(missing_ok=True)


def node_id(folder: Path) -> str:
    """The name of this data folder among those that share a database; made when first asked for."""
    path = folder / NODE
    with contextlib.suppress(FileNotFoundError):
        if known := path.read_text("ascii").strip():
            return known
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    early = folder / f"{NODE}.early"
    with early.open(
        "a"
    ) as stream:  # one name for all that try: of one that dies here nothing is left for ever
        fcntl.flock(stream, fcntl.LOCK_EX)
        if path.exists():
            early.unlink(missing_ok=True)
        else:
            stream.truncate(0)
            stream.write(f"node_{secrets.token_hex(8)}\n")
            stream.flush()
            os.fsync(stream.fileno())
            early.rename(path)
    return path.read_text("ascii").strip()


def has_begun(segment: Segment) -> bool:
    """Whether its process has written to it: then it writes to none before it."""
    with opened(segment) as descriptor:
        return frames.has_begun(os.pread(descriptor, len(frames.MAGIC), 0))


@contextlib.contextmanager
def opened(segment: Segment) -> Iterator[int]:
    """A descriptor to read it by; of an empty file where it is gone: nothing was in it then."""
    try:
        descriptor = os.open(segment.path, os.O_RDONLY)
    except FileNotFoundError:
        descriptor = os.open(os.devnull, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read(
    descriptor: int, offset: int, *, is_growing: bool, look: Callable[[int, int, int], bytes] = os.pread
) -> Stretch:
    """Some of the records from `offset` on, with their offsets in the segment; none: there are no more now.

    A write under way may look like damage before what was written after it. Looked at once more, what stood
    whole at the first look has nothing unfinished before it.
    """
    size = LOOK_BYTES
    data = look(descriptor, size, offset)
    if is_growing and not frames.has_begun(data):
        return Stretch((), offset)
    stretch = frames.read(data)
    if not stretch.end and len(data) == size:  # much damage, or nothing: look at the rest
        size = max(0, os.fstat(descriptor).st_size - offset)
        stretch = frames.read(look(descriptor, size, offset))
    if stretch.lost_bytes and is_growing:
        stretch = frames.read(look(descriptor, size, offset), stretch.end)
    records = tuple((offset + behind, record) for behind, record in stretch.records)
    return Stretch(records, offset + stretch.end, stretch.lost_bytes)


def torn_bytes(descriptor: int, end: int) -> int:
    """How much stands behind the last record of a segment that nobody writes to."""
    return len(os.pread(descriptor, max(0, os.fstat(descriptor).st_size - end), end).rstrip(b"\0"))


def size_bytes(segments: Sequence[Segment]) -> int:
    """Of these files; those that are gone have none."""
    size = 0
    for segment in segments:
        with contextlib.suppress(FileNotFoundError):
            size += segment.path.stat().st_size
    return size


def _lock(folder: Path, process: str) -> Path:
    return folder / f"{process}.lock"
