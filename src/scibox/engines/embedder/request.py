"""The body of an embeddings call: read, and refused with a reason when it is wrong."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from scibox.core.errors import InvalidRequest

T = TypeVar("T")


class Embed(msgspec.Struct, frozen=True):
    """What a client sends; `input` is checked by `texts`. Fields that change nothing here are ignored."""

    input: Any  # a string or a list: which of the wrong shapes it is decides the sentence
    encoding_format: str = "float"
    dimensions: int | None = None


class Tokenize(msgspec.Struct, frozen=True):
    """llama.cpp's `/tokenize`."""

    content: str
    add_special: bool = False
    with_pieces: bool = False


class Detokenize(msgspec.Struct, frozen=True):
    """llama.cpp's `/detokenize`."""

    tokens: list[int]


def decode(body: bytes, shape: type[T]) -> T:
    """The body as a record; InvalidRequest when it is not."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
        raise InvalidRequest(f"The body is not what was expected: {wrong}") from wrong


def check(call: Embed, dimensions: int) -> None:
    """Refuses formats and dimensions that this model cannot give."""
    if call.encoding_format not in ("float", "base64"):
        raise InvalidRequest(
            f"encoding_format is {call.encoding_format!r}; 'float' and 'base64' are known.",
            param="encoding_format",
        )
    if call.dimensions not in (None, dimensions):
        raise InvalidRequest(
            f"This model's vectors have {dimensions} dimensions and cannot be cut to {call.dimensions}; "
            "leave `dimensions` out.",
            param="dimensions",
        )


def texts(given: object) -> list[str]:
    """The texts of `input`, in order."""
    if isinstance(given, str):
        found = [given]
        names = ["input"]
    elif isinstance(given, list):
        _refuse_ids(given)
        found = given
        names = [f"input[{index}]" for index in range(len(found))]
    else:
        raise InvalidRequest("input must be a string or a list of strings.", param="input")
    if not found:
        raise InvalidRequest("input is an empty list; send at least one text.", param="input")
    for name, text in zip(names, found, strict=True):
        if not isinstance(text, str):
            raise InvalidRequest(f"{name} is not a string.", param=name)
        if not text:
            raise InvalidRequest(f"{name} is an empty string; it has no meaning to embed.", param=name)
    return found


def _refuse_ids(items: list[object]) -> None:
    first = items[0] if items else None
    if isinstance(first, int | list) and not isinstance(first, bool):
        raise InvalidRequest(
            "input holds token ids. They belong to another model's vocabulary and would give meaningless "
            "vectors; send the text itself (langchain-openai: check_embedding_ctx_length=False).",
            param="input",
        )
