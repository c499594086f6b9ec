"""Re-encoding the 4-bit tensors of a GGUF file into a form that the CPU kernels of llama.cpp are quick at.

Q4_1 (scale and offset per block of 32) has no repacked kernels; Q4_0 and Q8_0 (scale only) have.
The file's layout is that of `docs/gguf.md` of ggml, version 3, little-endian; the blocks are those of
`ggml-common.h`. Everything but the Q4_1 tensors, their types and `general.file_type` stays byte for byte.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from scibox.core.errors import SciBoxError

Encoding = Literal["q4_0", "q8_0"]
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

BLOCK = 32  # values that share a scale, in all three encodings
Q4_1, Q4_1_BYTES = 3, 20
TYPE_IDS: dict[Encoding, int] = {"q4_0": 2, "q8_0": 8}  # ggml_type
FILE_TYPES: dict[Encoding, int] = {"q4_0": 2, "q8_0": 7}  # llama_ftype: MOSTLY_Q4_0, MOSTLY_Q8_0
STRING, ARRAY = 8, 9
SCALAR_BYTES = {
    0: 1,
    1: 1,
    2: 2,
    3: 2,
    4: 4,
    5: 4,
    6: 4,
    7: 1,
    10: 8,
    11: 8,
    12: 8,
}  # gguf_metadata_value_type
PART_BLOCKS = 1 << 16  # re-encoded at a time, so that memory stays small


class UnreadableWeights(SciBoxError):
    """The file is not a GGUF file of the kind that can be re-encoded."""

    code = "unreadable_weights"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of the table of tensors; `offset` counts from the start of the data."""

    name: bytes
    shape: tuple[int, ...]
    type_id: int
    offset: int
    size: int  # bytes up to the next tensor, padding and all


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the data: metadata as it came, and the table of tensors."""

    pairs: int
    metadata: bytes
    file_type_at: int | None  # where in `metadata` the value of general.file_type begins
    alignment: int
    tensors: tuple[Tensor, ...]
    data_at: int


def requantize(source: Path, target: Path, to: Encoding) -> None:
    """Write `source` to `target` with its Q4_1 tensors re-encoded; the same input gives the same bytes.

    `target` appears whole or not at all (written beside it as `.part`, then renamed). UnreadableWeights
    when the source is no such file, OSError when it cannot be read or written.
    """
    try:
        data = np.memmap(source, dtype=np.uint8, mode="r")
        header = read_header(data)
    except (struct.error, KeyError, IndexError, ValueError) as error:  # ValueError: the file is empty
        raise UnreadableWeights(f"{source.name} is not a readable GGUF file: {error!r}") from error
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as file:
            tensors = _lay_out(header, to)
            start = _render_header(header, tensors, to)
            file.write(start)
            file.write(bytes(-len(start) % header.alignment))
            for old in header.tensors:
                for piece in _encoded(data, header, old, to):
                    file.write(piece.data)
                file.write(bytes(-file.tell() % header.alignment))
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


class _Cursor:
    """Reads little-endian values one after another."""

    def __init__(self, data: Bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from("<" + form, self.data.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def string(self) -> bytes:
        (length,) = self.take("Q")
        self.skip(length)
        return self.data[self.at - length : self.at].tobytes()

    def skip(self, length: int) -> None:
        self.at += length
        if self.at > len(self.data):
            raise IndexError("the file ends inside its header")

    def skip_value(self, kind: int) -> None:
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            inner, count = self.take("IQ")
            if inner in SCALAR_BYTES:
                self.skip(SCALAR_BYTES[inner] * count)
                return
            for _ in range(count):
                self.skip_value(inner)
        else:
            self.skip(SCALAR_BYTES[kind])


def read_header(data: Bytes) -> Header:
    """Parse what stands before the tensors' data; struct.error, KeyError or IndexError when it is broken."""
    cursor = _Cursor(data)
    magic, version, count, pairs = cursor.take("IIQQ")
    if magic != int.from_bytes(b"GGUF", "little") or version != 3:
        raise KeyError(f"magic {magic:#x}, version {version}")
    begin, alignment, file_type_at = cursor.at, 32, None
    for _ in range(pairs):
        key = cursor.string()
        (kind,) = cursor.take("I")
        if key == b"general.file_type":
            file_type_at = cursor.at - begin
        if key == b"general.alignment":
            (alignment,) = struct.unpack_from("<I", data.data, cursor.at)
        cursor.skip_value(kind)
    metadata = data[begin : cursor.at].tobytes()
    entries = []
    for _ in range(count):
        name = cursor.string()
        (axes,) = cursor.take("I")
        shape = cursor.take(f"{axes}Q")
        type_id, offset = cursor.take("IQ")
        entries.append(Tensor(name, shape, type_id, offset, 0))
    data_at = cursor.at + -cursor.at % alignment
    return Header(pairs, metadata, file_type_at, alignment, _sized(entries, len(data) - data_at), data_at)


def _sized(entries: list[Tensor], data_bytes: int) -> tuple[Tensor, ...]:
    """The entries in the order of their data, each as long as to where the next begins."""
    entries = sorted(entries, key=lambda tensor: tensor.offset)
    ends = [*(tensor.offset for tensor in entries[1:]), data_bytes]
    sized = tuple(
        replace(tensor, size=end - tensor.offset) for tensor, end in zip(entries, ends, strict=True)
    )
    for tensor in sized:
        if tensor.size < 0 or (tensor.type_id == Q4_1 and tensor.size < _blocks(tensor) * Q4_1_BYTES):
            raise IndexError(f"the data of {tensor.name.decode('utf-8', 'replace')} is cut off")
    return sized


def _blocks(tensor: Tensor) -> int:
    values = 1
    for length in tensor.shape:
        values *= length
    return values // BLOCK


def _block_bytes(to: Encoding) -> int:
    return 2 + (BLOCK // 2 if to == "q4_0" else BLOCK)


def _lay_out(header: Header, to: Encoding) -> list[Tensor]:
    """The table of tensors after re-encoding."""
    tensors, offset = [], 0
    for old in header.tensors:
        tensor = replace(old, offset=offset)
        if old.type_id == Q4_1:
            tensor = replace(tensor, type_id=TYPE_IDS[to], size=_blocks(old) * _block_bytes(to))
        tensors.append(tensor)
        offset += tensor.size + -tensor.size % header.alignment
    return tensors


def _render_header(header: Header, tensors: list[Tensor], to: Encoding) -> bytes:
    metadata = bytearray(header.metadata)
    if header.file_type_at is not None:
        struct.pack_into("<I", metadata, header.file_type_at, FILE_TYPES[to])
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), header.pairs), bytes(metadata)]
    for tensor in tensors:
        axes = len(tensor.shape)
        parts.append(struct.pack("<Q", len(tensor.name)) + tensor.name)
        parts.append(struct.pack(f"<I{axes}QIQ", axes, *tensor.shape, tensor.type_id, tensor.offset))
    return b"".join(parts)


def _encoded(data: Bytes, header: Header, tensor: Tensor, to: Encoding) -> Iterator[Bytes]:
    begin = header.data_at + tensor.offset
    if tensor.type_id != Q4_1:
        yield np.ascontiguousarray(data[begin : begin + tensor.size])
        return
    blocks = data[begin : begin + _blocks(tensor) * Q4_1_BYTES].reshape(-1, Q4_1_BYTES)
    for at in range(0, len(blocks), PART_BLOCKS):
        values = decode_q4_1(blocks[at : at + PART_BLOCKS])
        yield encode_q4_0(values) if to == "q4_0" else encode_q8_0(values)


def decode_q4_1(blocks: Bytes) -> Floats:
    """[n, 20] bytes to [n, 32] values: scale * nibble + offset; low nibbles are the first 16 values."""
    scale, offset = np.ascontiguousarray(blocks[:, :4]).view("<f2").astype(np.float32).T
    nibbles = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1).astype(np.float32)
    return np.asarray(nibbles * scale[:, None] + offset[:, None], np.float32)


def encode_q8_0(values: Floats) -> Bytes:
    """[n, 32] values to [n, 34] bytes: a float16 scale, then signed bytes."""
    scale = (np.abs(values).max(axis=1) / 127.0).astype("<f2")
    steps = np.clip(np.rint(values * _inverse(scale)[:, None]), -127, 127).astype(np.int8)
    return np.concatenate([scale[:, None].view(np.uint8), steps.view(np.uint8)], axis=1)


def encode_q4_0(values: Floats) -> Bytes:
    """[n, 32] values to [n, 18] bytes: a float16 scale, then nibbles of value / scale + 8.

    The value farthest from 0 becomes nibble 0. A search for the scale with the least squared error was
    tried: the text's log-probability fell further, so the far values matter (docs/engines.md).
    """
    extreme = values[np.arange(len(values)), np.abs(values).argmax(axis=1)]
    scale = (extreme / -8.0).astype("<f2")
    nibbles = np.clip(np.rint(values * _inverse(scale)[:, None]) + 8.0, 0.0, 15.0).astype(np.uint8)
    packed = nibbles[:, : BLOCK // 2] | nibbles[:, BLOCK // 2 :] << 4
    return np.concatenate([scale[:, None].view(np.uint8), packed], axis=1)


def _inverse(scale: npt.NDArray[np.float16]) -> Floats:
    wide = scale.astype(np.float32)
    return np.divide(1.0, wide, out=np.zeros_like(wide), where=wide != 0.0)
