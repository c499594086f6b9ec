"""How many texts are packed into sub-calls: texts of like length together, so that little is padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

BYTES_PER_TOKEN = 3  # a low guess for the usual vocabularies: English has 4 to 5, Russian in XLM-R 8


def pack(sizes: Sequence[int], *, texts: int, tokens: int) -> Iterator[list[int]]:
    """Indexes of `sizes` (bytes), the longest first: `texts` and about `tokens` LLM tokens at a time."""
    room = tokens * BYTES_PER_TOKEN
    packed: list[int] = []
    filled = 0
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        if packed and (len(packed) == texts or filled + sizes[index] > room):
            yield packed
            packed, filled = [], 0
        packed.append(index)
        filled += sizes[index]
    if packed:
        yield packed


def share(total: int, sizes: Sequence[int]) -> list[int]:
    """A total given out in proportion to sizes; the sum is exact."""
    shares: list[int] = []
    given, seen, whole = 0, 0, max(1, sum(sizes))
    for size in sizes:
        seen += size
        shares.append(total * seen // whole - given)
        given += shares[-1]
    if shares:
        shares[-1] += total - given
    return shares
