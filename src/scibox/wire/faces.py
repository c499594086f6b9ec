"""The APIs at the door that ask a model, by their path below `/v1`. Batches run on all of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import anthropic, chat, completions, embeddings, responses
from .face import Face, Plain
from .rerank import RerankFace, ScoreFace

FACES: Mapping[str, Face] = MappingProxyType(
    {
        "/chat/completions": Plain(chat.parse),
        "/completions": completions.Completions(),
        "/responses": responses.Responses(),
        "/messages": anthropic.Messages(),
        "/embeddings": Plain(embeddings.parse),
        "/rerank": RerankFace(),
        "/score": ScoreFace(),
    }
)
