"""What is really embedded for a text that a client sent: ids decoded, the model's prefix put before it."""

from __future__ import annotations

from scibox.core.errors import InvalidRequest
from scibox.core.types import Content, Text
from scibox.models import cl100k

from .replica import Route

TAKES_IDS = frozenset({"llama", "vllm"})  # dialects


def content_of(text: Text, route: Route) -> Content:
    """The content for the model's engine: text, or ids where the engine reads its own."""
    if isinstance(text.content, str):
        return route.rules.prefix_of(text.purpose) + text.content
    match route.rules.token_ids:
        case "cl100k_base":
            return route.rules.prefix_of(text.purpose) + _decoded(text.content, text.where)
        case "own" if all(replica.dialect in TAKES_IDS for replica in route.replicas):
            _refuse_negative(text.content, text.where)
            return text.content
        case _:
            raise InvalidRequest(
                f"'{text.where}' holds LLM token ids, which '{route.card.name}' does not take; send texts "
                "(in LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)).",
                param=text.where,
                code="token_ids_not_supported",
            )


def _decoded(ids: tuple[int, ...], where: str) -> str:
    try:
        text = cl100k.decode(ids)
    except cl100k.Undecodable as wrong:
        raise InvalidRequest(
            f"'{where}' {wrong}. Ids are read as cl100k_base here; if they are of another vocabulary, "
            "send the text itself.",
            param=where,
        ) from None
    if not text.strip():
        raise InvalidRequest(f"'{where}' is empty once its ids are text; leave it out.", param=where)
    return text


def _refuse_negative(ids: tuple[int, ...], where: str) -> None:
    if min(ids) < 0 or max(ids) >= 2**31:
        raise InvalidRequest(
            f"'{where}' holds {min(ids) if min(ids) < 0 else max(ids)}, which is no LLM token id.",
            param=where,
        )
