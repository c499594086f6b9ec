"""A per-character normalisation table in the binary form that tokenizer files carry.

The form is SentencePiece's `precompiled_charsmap`: the size of a double-array trie in bytes, the trie (uint32
units as in Darts), then the replacements as UTF-8, each ended by a zero byte. A trie leaf holds the offset of
its replacement. A unit's bits: 0-7 label, 8 "has a leaf", 10-30 offset to its children; a leaf has bit 31 and
its value in bits 0-30.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

# Offsets have 21 bits; bit 9 would multiply them by 256, which tables of a few thousand keys never need.
OFFSET_LIMIT = 1 << 21
# Free cells are looked for in this last part of the array only: a little larger, and many times quicker.
WINDOW = 1024
LEAF = 0  # the label of "a key ends here"; no key contains a zero byte


@dataclass(slots=True)
class Node:
    """One step of the trie: the children by byte, and the value of the key that ends here."""

    children: dict[int, Node] = field(default_factory=dict)
    value: int | None = None


def pack(table: Mapping[int, tuple[int, ...]]) -> bytes:
    """Packs code point -> replacement code points; code point 0 cannot be a key."""
    replacements = bytearray()
    root = Node()
    for code in sorted(table):
        node = root
        for byte in chr(code).encode():
            node = node.children.setdefault(byte, Node())
        node.value = len(replacements)
        replacements += "".join(map(chr, table[code])).encode() + b"\0"
    units = _double_array(root)
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + bytes(replacements)


def _double_array(root: Node) -> list[int]:
    """Lays the trie out so that the child of the node at `i` by label `c` stands at `i ^ offset(i) ^ c`."""
    units: dict[int, int] = {0: 0}
    used_bases: set[int] = set()
    end = 1
    todo = [(root, 0)]
    while todo:
        node, at = todo.pop()
        labels = sorted(node.children) + ([LEAF] if node.value is not None else [])
        base = _free_base(units, used_bases, labels, max(1, end - WINDOW))
        used_bases.add(base)
        end = max(end, base | 0xFF)
        offset = base ^ at
        if offset >= OFFSET_LIMIT:
            raise ValueError("the normalisation table is too large for this form")
        units[at] |= offset << 10 | (0x100 if node.value is not None else 0)
        if node.value is not None:
            units[base ^ LEAF] = 1 << 31 | node.value
        for label, child in node.children.items():
            units[base ^ label] = label
            todo.append((child, base ^ label))
    # A reader may look at any label of a base, so the last block of 256 is whole.
    return [units.get(i, 0) for i in range((max(units) | 0xFF) + 1)]


def _free_base(units: Mapping[int, int], used_bases: set[int], labels: list[int], place: int) -> int:
    """The first base from `place` on whose cells for all labels are free; two nodes never share a base."""
    while True:
        base = place ^ labels[0]
        if base and base not in used_bases and all(base ^ label not in units for label in labels):
            return base
        place += 1
