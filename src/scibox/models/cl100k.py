"""The vocabulary `cl100k_base`: LLM token ids, as clients made for OpenAI's models send them, back to text.

`cl100k_base.z` holds what OpenAI's `tiktoken` (MIT) downloads as `cl100k_base.tiktoken`, packed: deflate of
100,256 lengths, a byte each, then of the entries themselves in the order of their ids. A test rebuilds the
original file and compares its SHA-256. Decoding needs the entries only, no merging.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path

SIZE = 100_256
SPECIAL = range(100_257, 100_277)  # <|endoftext|> and its like: signs for a model of OpenAI's, no text
FILE = Path(__file__).with_name("cl100k_base.z")


class Undecodable(Exception):
    """Ids that are no text; the message is the end of a sentence about them."""


def decode(ids: Sequence[int]) -> str:
    """The text of ids.

    A client that cuts a long list of ids may cut a character in two: what is left of one at either end
    stands for nothing and is dropped. Anything else that is not UTF-8 is `Undecodable`.
    """
    text, bounds = _table()
    for one in ids:
        if not 0 <= one < SIZE:
            kind = "a special id" if one in SPECIAL else "no id"
            raise Undecodable(f"holds {one}, which is {kind} of cl100k_base")
    raw = b"".join([text[bounds[one] : bounds[one + 1]] for one in ids])
    try:
        return _whole_characters(raw).decode()
    except UnicodeDecodeError:
        raise Undecodable("holds ids that give no valid UTF-8") from None


def _whole_characters(raw: bytes) -> bytes:
    """Without the bytes of a character that the first or last of them were cut from."""
    start = 0
    while start < min(3, len(raw)) and raw[start] & 0xC0 == 0x80:  # a continuation byte begins nothing
        start += 1
    for back in range(1, min(3, len(raw) - start) + 1):
        byte = raw[-back]
        if byte & 0xC0 == 0x80:
            continue
        return raw[start:-back] if _length(byte) > back else raw[start:]
    return raw[start:]


def _length(first: int) -> int:
    """Bytes of a character by its first one (RFC 3629, section 4); 1 also for what can be no first one."""
    if 0xF0 <= first <= 0xF4:
        return 4
    if 0xE0 <= first <= 0xEF:
        return 3
    return 2 if 0xC2 <= first <= 0xDF else 1


@cache
def _table() -> tuple[bytes, array[int]]:
    """All entries in one, and where each begins: 1.1 MB, loaded when the first ids come."""
    raw = zlib.decompress(FILE.read_bytes())
    return raw[SIZE:], array("I", accumulate(raw[:SIZE], initial=0))
