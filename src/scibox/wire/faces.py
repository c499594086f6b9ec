"""The APIs at the door that ask a model, by their path below `/v1`. Batches run on all of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import chat, embeddings
from .anthropic import face as anthropic
from .completions import face as completions
from .face import Face, Plain
from .rerank import RerankFace, ScoreFace
from .responses import face as responses

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
