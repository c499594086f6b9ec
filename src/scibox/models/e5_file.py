"""Reads the packed 4-bit file of multilingual-e5-small ("E5S1").

Layout, all little-endian: magic, version, sizes, the Unigram pieces with their scores, a normalisation table
from one code point to several, a directory of tensors, the tensors. Tensors are float32 or blocks of 32
weights: a float16 scale and 16 bytes whose low nibbles are weights 0-15 and whose high nibbles are weights
16-31; a weight is (nibble - 8) * scale.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

MAGIC = b"E5S1\x01\x00\x00\x00"
BLOCK = 32
BLOCK_BYTES = 18
FLOAT32, BLOCKS4 = 0, 1

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The shape of the transformer."""

    hidden: int
    layers: int
    heads: int
    inner: int
    rows: int
    positions: int
    kinds: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The Unigram pieces with their scores, the ids of the special ones, and the normalisation table."""

    pieces: tuple[tuple[str, float], ...]
    bos: int
    eos: int
    pad: int
    unk: int
    table: dict[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Blocks:
    """4-bit weights of a matrix: scales [rows, columns/32] and nibbles [rows, columns/32, 16]."""

    scales: npt.NDArray[np.float16]
    nibbles: Bytes


class File:
    """An opened weights file; ValueError when it is not one or is cut short."""

    def __init__(self, path: Path) -> None:
        self._data: Bytes = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        if self._data[:8].tobytes() != MAGIC:
            raise ValueError(f"{path.name} is not a packed multilingual-e5-small file")
        try:
            self._at = 8
            hidden, layers, heads, inner, rows, positions, kinds = self._take("<7i")
            (epsilon,) = struct.unpack("<f", self._raw(4))
            (block,) = self._take("<i")
            if block != BLOCK:
                raise ValueError(f"{path.name} has blocks of {block} weights, {BLOCK} were expected")
            self.sizes = Sizes(hidden, layers, heads, inner, rows, positions, kinds, epsilon)
            self.vocabulary = self._vocabulary()
            self._tensors = dict(self._directory())
        except (struct.error, IndexError) as broken:
            raise ValueError(f"{path.name} is cut short") from broken

    def floats(self, name: str) -> Floats:
        """A float32 tensor, flat."""
        return self._bytes(name, FLOAT32).view("<f4").astype(np.float32)

    def blocks(self, name: str, rows: int) -> Blocks:
        """A 4-bit tensor of `rows` rows."""
        raw = self._bytes(name, BLOCKS4).reshape(rows, -1, BLOCK_BYTES)
        scales = np.ascontiguousarray(raw[:, :, :2]).view("<f2")[..., 0]
        return Blocks(scales, raw[:, :, 2:])

    def _bytes(self, name: str, kind: int) -> Bytes:
        stored, start, size = self._tensors[name]
        found = self._data[start : start + size]
        if stored != kind or len(found) != size:
            raise ValueError(f"the tensor {name} is damaged")
        return found

    def _take(self, form: str) -> tuple[int, ...]:
        size = struct.calcsize(form)
        return struct.unpack(form, self._raw(size))

    def _raw(self, size: int) -> bytes:
        raw = self._data[self._at : self._at + size].tobytes()
        self._at += size
        return raw

    def _vocabulary(self) -> Vocabulary:
        count, bos, eos, pad, unk = self._take("<5i")
        (text_size,) = self._take("<Q")
        ends = np.frombuffer(self._raw(4 * (count + 1)), "<u4").tolist()
        scores = np.frombuffer(self._raw(4 * count), "<f4").tolist()
        text = self._raw(text_size)
        pieces = tuple(
            (text[start:end].decode(), score)
            for start, end, score in zip(ends[:-1], ends[1:], scores, strict=True)
        )
        return Vocabulary(pieces, bos, eos, pad, unk, self._table())

    def _table(self) -> dict[int, tuple[int, ...]]:
        entries, _ = self._take("<iI")
        table = {}
        for _ in range(entries):
            code, length = self._take("<IB")
            table[code] = self._take(f"<{length}I")
        return table

    def _directory(self) -> list[tuple[str, tuple[int, int, int]]]:
        (count,) = self._take("<i")
        found = []
        for _ in range(count):
            (name_size,) = self._take("<H")
            name = self._raw(name_size).decode()
            kind, _, start, size = self._take("<BIQQ")
            found.append((name, (kind, start, size)))
        return found
