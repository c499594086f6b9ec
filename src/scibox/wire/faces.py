"""The APIs at the door that ask a model, by their path below `/v1`. Batches run on all of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import chat, embeddings
from .face import Face, Plain

FACES: Mapping[str, Face] = MappingProxyType(
    {
        "/chat/completions": Plain(chat.parse),
        "/embeddings": Plain(embeddings.parse),
    }
)
