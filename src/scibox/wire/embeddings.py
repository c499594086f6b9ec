"""`POST /v1/embeddings`: the request as clients send it; what replicas are sent and answer; the whole answer.

Source: OpenAI's API reference, "Create embeddings"; `truncate_prompt_tokens`: vLLM's documents; `input_type`:
Cohere's. A replica is always asked for base64, so that its float32 numbers come exactly.
"""

from __future__ import annotations

import base64
import binascii
import math
from array import array
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from scibox.core.errors import InvalidRequest, UpstreamBroken
from scibox.core.packing import share
from scibox.core.types import Call, Content, Embedding, Purpose, Text, Vector

from . import body

MAX_TEXTS = 10_000
NAMED = 100  # indexes of shortened texts that the header lists
# A vector this near to unit length is left as the engine gave it: float32 is no finer.
UNIT = 1e-6
MOST_TOKENS = 2**31  # what one sub-call could ever have
_MINUS_ZERO = array("f", [-0.0]).tobytes()

InputType = Literal["query", "passage", "document", "search_query", "search_document"]
_PURPOSES: dict[InputType, Purpose] = {
    "query": "query",
    "search_query": "query",
    "passage": "passage",
    "document": "passage",
    "search_document": "passage",
}


class EmbeddingRequest(Struct):
    """Create embeddings."""

    model: Annotated[
        str, Meta(min_length=1, max_length=256, description="Honoured. A name from `GET /v1/models`.")
    ]
    input: Annotated[
        str | list[str | int | list[int]],
        Meta(
            description="Honoured. A text, a list of at most 10,000 texts, the LLM token ids of a text, or a "
            "list of such lists. Ids are of cl100k_base unless the model's setting `token_ids` says "
            "otherwise."
        ),
    ]
    encoding_format: Annotated[
        Literal["float", "base64"] | None,
        Meta(description="Honoured. `base64` is little-endian float32, a third of the size."),
    ] = None
    dimensions: Annotated[
        Annotated[int, Meta(ge=1, le=65536)] | None,
        Meta(
            description="Honoured. Shorter vectors, of models that were trained for it; else the model's own "
            "size."
        ),
    ] = None
    user: Annotated[str | None, Meta(description="No effect. Calls are accounted to the key.")] = None
    truncate_prompt_tokens: Annotated[
        Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None,
        Meta(
            description="Honoured. Cut longer texts to their first n LLM tokens (-1: to the model's limit) "
            "instead of refusing them; the header `x-scibox-truncated` lists which."
        ),
    ] = None
    input_type: Annotated[
        InputType | None,
        Meta(
            description="Honoured. What the texts are: picks the prefix that the model's configuration has "
            "for it."
        ),
    ] = None


KNOWN = frozenset(EmbeddingRequest.__struct_fields__)
_decoder = msgspec.json.Decoder(EmbeddingRequest)


def parse(request_id: str, raw: bytes) -> Call:
    """Bytes to a call; `InvalidRequest` names the text at fault."""
    request, fields = body.decode(raw, _decoder)
    body.refuse_unknown(fields, KNOWN)
    if request.truncate_prompt_tokens == 0:
        raise InvalidRequest(
            "'truncate_prompt_tokens' must be at least 1, or -1 for the model's limit.",
            param="truncate_prompt_tokens",
        )
    purpose = _PURPOSES[request.input_type] if request.input_type else None
    embedding = Embedding(
        texts=_texts(request.input, purpose),
        dimensions=request.dimensions,
        as_base64=request.encoding_format == "base64",
        truncate=request.truncate_prompt_tokens,
    )
    return Call(
        request_id=request_id,
        kind="embedding",
        model=request.model,
        path="/embeddings",
        fields=fields,
        items=len(embedding.texts),
        embedding=embedding,
    )


def _texts(value: str | list[str | int | list[int]], purpose: Purpose | None) -> tuple[Text, ...]:
    if isinstance(value, str):
        return (_text(value, "input", purpose),)
    if not value:
        raise InvalidRequest("'input' is empty; give at least one text.", param="input")
    kind = type(value[0])
    for index, item in enumerate(value):
        if type(item) is not kind:
            raise InvalidRequest(
                f"'input[{index}]' is not of the kind of 'input[0]'; send only texts or only LLM token ids.",
                param=f"input[{index}]",
            )
    if kind is int:
        return (Text(tuple(value), "input", purpose),)  # type: ignore[arg-type]  # all of one kind
    if len(value) > MAX_TEXTS:
        raise InvalidRequest(
            f"'input' has {len(value)} texts; send at most {MAX_TEXTS:,} in one call.", param="input"
        )
    return tuple(_text(item, f"input[{index}]", purpose) for index, item in enumerate(value))


def _text(item: str | int | list[int], where: str, purpose: Purpose | None) -> Text:
    if isinstance(item, str):
        refuse_empty(item, where)
        return Text(item, where, purpose)
    if not item:
        raise InvalidRequest(f"'{where}' is empty; leave it out.", param=where)
    return Text(tuple(item), where, purpose)  # type: ignore[arg-type]  # no int: those were one text


def refuse_empty(text: str, where: str) -> None:
    """There is no meaning to embed in an empty text."""
    if not text or text.isspace():
        remedy = "leave it out" if where.endswith("]") else "give a text"
        raise InvalidRequest(f"'{where}' is empty; {remedy}.", param=where)


def ask(contents: Sequence[Content]) -> dict[str, bytes]:
    """The fields of a sub-call: texts, or LLM token ids of the replica's own vocabulary."""
    return {"input": msgspec.json.encode(contents), "encoding_format": b'"base64"'}


def render(call: Call, model: str) -> bytes:
    """The body for a replica that knows the model as `model`."""
    return body.encode({**call.fields, "model": msgspec.json.encode(model)})


class _Item(Struct):
    embedding: str | list[float]
    index: int | None = None
    prompt_tokens: int | None = None  # ours: of this text


class _Usage(Struct):
    prompt_tokens: int | None = None


class _Answer(Struct):
    data: list[_Item]
    usage: _Usage | None = None


_answers = msgspec.json.Decoder(_Answer)


def read(answer: bytes, sizes: Sequence[int]) -> list[Vector]:
    """The vectors of a sub-call's answer, of unit length, in the order of its texts (`sizes` in bytes).

    LLM tokens are told for the whole sub-call unless the replica is our embedder: they are given out by size.
    """
    try:
        told = _answers.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamBroken("The model server's embeddings could not be read; try again.") from None
    items: list[_Item | None] = [None] * len(sizes)
    for place, item in enumerate(told.data):
        index = place if item.index is None else item.index
        if 0 <= index < len(sizes):
            items[index] = item
    whole = [item for item in items if item is not None]
    if len(whole) != len(sizes) or len(told.data) != len(sizes):
        raise UpstreamBroken(
            "The model server answered with another number of embeddings than was asked for."
        )
    vectors = [unit(_floats(item.embedding)) for item in whole]
    if len({len(vector) for vector in vectors}) > 1:
        raise UpstreamBroken("The model server answered with embeddings of different lengths.")
    counts = share(_count(told.usage.prompt_tokens if told.usage else None), sizes)
    return [
        Vector(vector.tobytes(), count if item.prompt_tokens is None else _count(item.prompt_tokens))
        for vector, item, count in zip(vectors, whole, counts, strict=True)
    ]


def _count(told: int | None) -> int:
    """LLM tokens as a replica told them; a number that cannot be one counts as not told."""
    return told if told is not None and 0 <= told < MOST_TOKENS else 0


def _floats(value: str | list[float]) -> array[float]:
    try:
        if isinstance(value, str):
            return array("f", base64.b64decode(value, validate=True))
        return array("f", value)
    except (binascii.Error, ValueError, OverflowError):
        raise UpstreamBroken("The model server's embeddings could not be read; try again.") from None


def unit(floats: array[float]) -> array[float]:
    """The same direction at length 1; what has none (zero, infinite, not a number) is no embedding."""
    length = math.hypot(*floats)
    if not math.isfinite(length) or length == 0.0:
        raise UpstreamBroken("The model server answered with a vector that is not finite or is zero.")
    if abs(length - 1.0) > UNIT:
        return array("f", [value / length + 0.0 for value in floats])
    if _MINUS_ZERO in floats.tobytes():  # JSON's -0 is read as 0: then a text and base64 would differ
        return array("f", [value + 0.0 for value in floats])
    return floats


def cut(floats: bytes, dimensions: int) -> bytes:
    """The first dimensions of a vector that was trained for that, at unit length again."""
    return unit(array("f", floats[: 4 * dimensions])).tobytes()


def head(model: str) -> bytes:
    """The answer up to its first vector."""
    return b'{"object":"list","model":%b,"data":[' % msgspec.json.encode(model)


def items(vectors: Sequence[bytes], first: int, *, as_base64: bool) -> bytes:
    """Some vectors, of which the first has that index.

    Nine significant digits give every float32 back exactly, at half the length of float64's seventeen.
    """
    if as_base64:
        told = [b'"%b"' % base64.b64encode(floats) for floats in vectors]
    else:
        form = "[" + ",".join(["%.9g"] * (len(vectors[0]) // 4)) + "]"
        told = [(form % tuple(array("f", floats))).encode() for floats in vectors]
    comma = b"," if first else b""
    return comma + b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, item)
        for index, item in enumerate(told, first)
    )


def tail(prompt_tokens: int) -> bytes:
    """The answer after its last vector."""
    return b'],"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (prompt_tokens, prompt_tokens)


def truncated(indexes: Sequence[int]) -> tuple[tuple[bytes, bytes], ...]:
    """The header that lists shortened texts: `3,17`, and `,+40` where there are more than it names."""
    if not indexes:
        return ()
    more = f",+{len(indexes) - NAMED}" if len(indexes) > NAMED else ""
    return ((b"x-scibox-truncated", (",".join(map(str, indexes[:NAMED])) + more).encode()),)
