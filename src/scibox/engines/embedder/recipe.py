"""How a folder of weights becomes vectors: pooling, length.

`embedder.json` says it; without it the files that sentence-transformers keeps beside a model are asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import msgspec

T = TypeVar("T")
Pooling = Literal["cls", "mean", "last"]
USUAL_MAX_TOKENS = 512
# Models of this family number positions from padding + 1, so two of their positions are never used.
OFFSET_FAMILY = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is done around the graph. `dimensions` 0: ask the graph.

    `prefix` does nothing: older files have it, and since then the gateway's configuration says it.
    """

    pooling: Pooling = "mean"
    normalize: bool = True
    max_tokens: int = USUAL_MAX_TOKENS
    dimensions: int = 0
    prefix: str = ""
    pad_id: int = 0


class _Pooling(msgspec.Struct):
    pooling_mode: str = ""
    pooling_mode_cls_token: bool = False
    pooling_mode_lasttoken: bool = False


class _Module(msgspec.Struct):
    type: str = ""


class _Limits(msgspec.Struct):
    """The fields of three config files that bear on length and padding."""

    max_seq_length: int | None = None
    max_position_embeddings: int | None = None
    model_max_length: float | None = None
    model_type: str = ""
    pad_token_id: int | None = None


def read(folder: Path) -> Recipe:
    """The recipe of the weights in a folder; ValueError when a file there is not what it should be."""
    own = folder / "embedder.json"
    if own.exists():
        return _decode(own, Recipe)
    model = _decode(folder / "config.json", _Limits)
    return Recipe(
        pooling=_pooling(_decode(folder / "1_Pooling" / "config.json", _Pooling)),
        normalize=_normalize(folder / "modules.json"),
        max_tokens=_max_tokens(
            model,
            _decode(folder / "sentence_bert_config.json", _Limits),
            _decode(folder / "tokenizer_config.json", _Limits),
        ),
        pad_id=model.pad_token_id or 0,
    )


def _pooling(told: _Pooling) -> Pooling:
    if told.pooling_mode_cls_token or told.pooling_mode == "cls":
        return "cls"
    if told.pooling_mode_lasttoken or told.pooling_mode == "lasttoken":
        return "last"
    return "mean"


def _normalize(modules: Path) -> bool:
    """Whether the list of modules has the one that normalises; without a list: yes, as cosine wants it."""
    if not modules.exists():
        return True
    return any(module.type.endswith("Normalize") for module in _decode(modules, list[_Module]))


def _max_tokens(model: _Limits, sentences: _Limits, tokenizer: _Limits) -> int:
    offset = 2 if model.model_type in OFFSET_FAMILY else 0
    limits = [
        sentences.max_seq_length,
        model.max_position_embeddings - offset if model.max_position_embeddings else None,
        tokenizer.model_max_length,
    ]
    # "No limit" is written as 1e30 in these files.
    return min((int(limit) for limit in limits if limit and limit < 1e9), default=USUAL_MAX_TOKENS)


def _decode(path: Path, shape: type[T]) -> T:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b"{}"
    try:
        return msgspec.json.decode(content, type=shape)
    except msgspec.MsgspecError as wrong:
        raise ValueError(f"{path}: {wrong}") from wrong
