"""Vectors to the bytes of an embeddings response."""

from __future__ import annotations

import base64

import msgspec

from scibox.engines.embedder.arrays import Vectors


def render(model: str, vectors: Vectors, *, as_base64: bool, prompt_tokens: int) -> bytes:
    """The whole body; base64 is of little-endian float32 as OpenAI sends it."""
    if as_base64:
        items = [b'"%b"' % base64.b64encode(row.tobytes()) for row in vectors.astype("<f4", copy=False)]
    else:
        # Nine significant digits give every float32 back exactly, at half the length of float64's seventeen.
        form = "[" + ",".join(["%.9g"] * vectors.shape[1]) + "]"
        items = [(form % tuple(row)).encode() for row in vectors.tolist()]
    data = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, item)
        for index, item in enumerate(items)
    )
    return b'{"object":"list","model":%b,"data":[%b],"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (
        msgspec.json.encode(model),
        data,
        prompt_tokens,
        prompt_tokens,
    )
