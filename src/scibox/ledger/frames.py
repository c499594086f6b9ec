"""Records as frames of bytes, and back: what is torn or damaged is recognised, the rest is still found.

A frame: four magic bytes (the first stands in no UTF-8 text), the kind, the length of the payload, a CRC-32
of the payload that begins with kind and length; then the payload, MessagePack. Segments are reserved ahead:
behind the last frame are zeros. Former versions wrote JSON under kinds of its own, which are read as well.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import msgspec

from scibox.core.entries import Entry, Opened

Record = Opened | Entry

MAGIC = b"\xf5SBJ"
_HEAD = struct.Struct("<4sBII")
_SUMMED = struct.Struct("<BI")
MOST_PAYLOAD_BYTES = 2**16
_SEED = 0x9E3779B9  # so that zeros behind a torn head are no sum of anything
_OPENED, _ENTRY = ord("o"), ord("e")
_DECODERS: dict[int, Callable[[bytes], Record]] = {
    _OPENED: msgspec.msgpack.Decoder(Opened).decode,
    _ENTRY: msgspec.msgpack.Decoder(Entry).decode,
}
_JSON_DECODERS: dict[int, Callable[[bytes], Record]] = {  # of former versions
    ord("O"): msgspec.json.Decoder(Opened).decode,
    ord("E"): msgspec.json.Decoder(Entry).decode,
}
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Stretch:
    """The records of some bytes, each with the offset behind it; `lost_bytes` lie between good ones."""

    records: tuple[tuple[int, Record], ...]
    end: int  # behind the last good frame
    lost_bytes: int = 0


def frame(record: Record) -> bytes:
    """A record as bytes, to be written in one piece."""
    kind = _ENTRY if record.__class__ is Entry else _OPENED
    payload = _encode(record)
    size = len(payload)
    return _HEAD.pack(MAGIC, kind, size, crc32(payload, kind << 24 ^ size ^ _SEED)) + payload


def read(data: bytes, upto: int | None = None) -> Stretch:
    """Every good record of the data, in order; with `upto` only those that end there or before.

    Damage at the end is a torn write, or one that is under way, and counts as nothing.
    """
    records: list[tuple[int, Record]] = []
    at = end = lost = 0
    while (found := _next(data, at)) is not None:
        start, stop = found
        if upto is not None and stop > upto:
            break
        lost += start - end
        record = _record(data, start, stop)
        if record is None:
            lost += stop - start
        else:
            records.append((stop, record))
        at = end = stop
    return Stretch(tuple(records), end, lost)


def has_begun(head: bytes) -> bool:
    """Whether anything stands at the start of this data."""
    return any(head[: len(MAGIC)])


def _next(data: bytes, at: int) -> tuple[int, int] | None:
    """Start and stop of the first whole frame from `at` on."""
    stop = _stop(data, at)
    while stop is None:
        at = data.find(MAGIC, at + 1)
        if at < 0:
            return None
        stop = _stop(data, at)
    return at, stop


def _stop(data: bytes, at: int) -> int | None:
    """Where the frame at `at` stops; None where there is no whole one."""
    if data[at : at + len(MAGIC)] != MAGIC or len(data) < at + _HEAD.size:
        return None
    _, kind, length, checksum = _HEAD.unpack_from(data, at)
    begin = at + _HEAD.size
    stop: int = begin + length
    if length > MOST_PAYLOAD_BYTES or stop > len(data) or _sum(kind, data[begin:stop]) != checksum:
        return None
    return stop


def _record(data: bytes, start: int, stop: int) -> Record | None:
    """The record of a whole frame; None where this SciBox cannot read it."""
    kind = data[start + len(MAGIC)]
    decode = _DECODERS.get(kind) or _JSON_DECODERS.get(kind)
    try:
        return None if decode is None else decode(data[start + _HEAD.size : stop])
    except msgspec.MsgspecError:
        return None


def _sum(kind: int, payload: bytes) -> int:
    if kind in _JSON_DECODERS:
        return crc32(payload, crc32(_SUMMED.pack(kind, len(payload))))
    return crc32(payload, kind << 24 ^ len(payload) ^ _SEED)
