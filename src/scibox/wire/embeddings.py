"""`POST /v1/embeddings`: the request as clients send it and as replicas get it.

Source: OpenAI's API reference, "Create embeddings". Arrays of LLM token ids are refused: they are numbers
of OpenAI's own vocabularies, and any other model would read them as other words in silence.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from scibox.core.errors import InvalidRequest
from scibox.core.types import Call

from . import body
from .chat import solid_bytes


class EmbeddingRequest(Struct):
    """Create embeddings."""

    model: Annotated[str, Meta(min_length=1, max_length=256, description="A name from `GET /v1/models`.")]
    input: Annotated[
        str | list[str | int | list[int]],
        Meta(description="A text or a list of texts. Arrays of LLM token ids are refused."),
    ]
    encoding_format: Annotated[
        Literal["float", "base64"] | None,
        Meta(description="`base64` is little-endian float32, a third of the size."),
    ] = None
    dimensions: Annotated[int, Meta(ge=1, le=65536)] | None = None
    user: str | None = None


KNOWN = frozenset(EmbeddingRequest.__struct_fields__)
_decoder = msgspec.json.Decoder(EmbeddingRequest)


def parse(request_id: str, raw: bytes) -> Call:
    """Bytes to a call; `InvalidRequest` names the text at fault."""
    request, fields = body.decode(raw, _decoder)
    body.refuse_unknown(fields, KNOWN)
    texts = _texts(request.input)
    sizes = [len(text.encode()) for text in texts]
    longest = max(range(len(sizes)), key=sizes.__getitem__)
    return Call(
        request_id=request_id,
        kind="embedding",
        model=request.model,
        path="/embeddings",
        fields=fields,
        text_bytes=sizes[longest],
        solid_bytes=max(solid_bytes(text) for text in texts),
        items=len(texts),
        longest=longest,
    )


def render(call: Call, model: str) -> bytes:
    """The body for a replica that knows the model as `model`."""
    fields = dict(call.fields)
    fields["model"] = msgspec.json.encode(model)
    if fields.get("encoding_format") == b"null":
        del fields["encoding_format"]
    return body.encode(fields)


def _texts(value: str | list[str | int | list[int]]) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not items:
        raise InvalidRequest("'input' is empty; give at least one text.", param="input")
    texts: list[str] = []
    for index, item in enumerate(items):
        where = "input" if isinstance(value, str) else f"input[{index}]"
        if not isinstance(item, str):
            raise InvalidRequest(
                f"'{where}' holds LLM token ids of another vocabulary; send texts "
                "(in LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)).",
                param=where,
                code="token_ids_not_supported",
            )
        if not item.strip():
            raise InvalidRequest(f"'{where}' is empty; leave it out.", param=where)
        texts.append(item)
    return texts
