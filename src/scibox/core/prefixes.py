"""Which replica has read the beginning of a prompt before: its engine's prefix cache may still hold it.

The beginning is hashed at growing lengths, each half as long again as the one before, so a conversation
that has grown since its last turn is found by the longest part that it had then. For each hash a few
replicas are remembered, the last ones first: a beginning that is popular (a system prompt) is held by
several. What was not used for longest is forgotten. It is a guess: the engine's cache is smaller or larger
than this table, so a choice may prefer a replica for it, no more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, TypeVar
from zlib import crc32

if TYPE_CHECKING:
    from .pulse import Pulse

M = TypeVar("M")

MOST_BYTES = 32_768  # of a beginning that are looked at: more tells no conversations apart
SHORTEST_BYTES = 256  # some 64 LLM tokens: less is read in no time
GROWTH = 1.5
HOLDERS = 16  # replicas that are remembered for one beginning
LEAST_MARKS = 8_192  # hashes that are remembered; about 200 bytes of memory each
MARKS_PER_REPLICA = 1_024
MOST_MARKS = 131_072
LEADING = (b"tools", b"functions", b"messages", b"prompt")  # chat templates write tools first


def _lengths() -> tuple[int, ...]:
    lengths, length = [], float(SHORTEST_BYTES)
    while length <= MOST_BYTES:
        lengths.append(int(length))
        length *= GROWTH
    return tuple(lengths)


LENGTHS = _lengths()


def beginning(fields: Mapping[str, bytes]) -> bytes:
    """The start of a call's prompt in the order in which engines read it, from its fields' raw JSON."""
    parts, room = [], MOST_BYTES
    for name in LEADING:
        field = fields.get(name.decode())
        if field is not None and room > 0:
            parts.append(field[:room])
            room -= len(field)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def marks(start: bytes) -> list[int]:
    """Hashes of the beginning at each length it has; one pass over it."""
    found, at, mark, size = [], 0, 0, len(start)
    for length in LENGTHS:
        if length > size:
            break
        mark = crc32(start[at:length], mark)
        found.append(mark)
        at = length
    return found


class Prefixes(Generic[M]):
    """A bounded table from hashed beginnings to the replicas that have read them."""

    __slots__ = ("_holders", "most")

    def __init__(self) -> None:
        self._holders: OrderedDict[int, list[Pulse[M]]] = OrderedDict()  # least recently used first
        self.most = LEAST_MARKS

    def __len__(self) -> int:
        return len(self._holders)

    def resize(self, replicas: int) -> None:
        """Remember as much as so many replicas may hold."""
        self.most = min(max(LEAST_MARKS, MARKS_PER_REPLICA * replicas), MOST_MARKS)

    def longest(self, marked: list[int]) -> tuple[list[Pulse[M]], int]:
        """Who has read most of it, last ones last, and the number of the mark that it is."""
        holders = self._holders
        for at in range(len(marked) - 1, -1, -1):
            found = holders.get(marked[at])
            if found:
                return found, at
        return [], -1

    def known(self, marked: list[int], at: int, pulse: Pulse[M]) -> int:
        """How many bytes this replica has read, up to that mark."""
        holders = self._holders
        while at >= 0:
            found = holders.get(marked[at])
            if found is not None and pulse in found:
                return LENGTHS[at]
            at -= 1
        return 0

    def read(self, marked: list[int], pulse: Pulse[M]) -> None:
        """This replica reads it now."""
        holders = self._holders
        for mark in marked:
            known = holders.get(mark)
            if known is None:
                holders[mark] = [pulse]
                continue
            holders.move_to_end(mark)
            if known[-1] is not pulse:
                if pulse in known:
                    known.remove(pulse)
                elif len(known) >= HOLDERS:
                    del known[0]
                known.append(pulse)
        while len(holders) > self.most:
            holders.popitem(last=False)
