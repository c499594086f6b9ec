"""Vectors to the bytes of an embeddings response."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec

from scibox.engines.embedder.arrays import Vectors


def render(model: str, vectors: Vectors, *, as_base64: bool, prompt_tokens: Sequence[int]) -> bytes:
    """The whole body; base64 is of little-endian float32 as OpenAI sends it.

    Each item has its own `prompt_tokens`, which OpenAI's have not: the gateway keeps them with the vector.
    """
    if as_base64:
        items = [b'"%b"' % base64.b64encode(row.tobytes()) for row in vectors.astype("<f4", copy=False)]
    else:
        # Nine significant digits give every float32 back exactly, at half the length of float64's seventeen.
        form = "[" + ",".join(["%.9g"] * vectors.shape[1]) + "]"
        items = [(form % tuple(row)).encode() for row in vectors.tolist()]
    data = b",".join(
        b'{"object":"embedding","index":%d,"prompt_tokens":%d,"embedding":%b}' % (index, count, item)
        for index, (count, item) in enumerate(zip(prompt_tokens, items, strict=True))
    )
    total = sum(prompt_tokens)
    return b'{"object":"list","model":%b,"data":[%b],"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (
        msgspec.json.encode(model),
        data,
        total,
        total,
    )
