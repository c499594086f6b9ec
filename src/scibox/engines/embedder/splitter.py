"""Texts to token ids, with the model's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from scibox.core.errors import ContextTooLong, InvalidRequest
from scibox.engines.embedder.arrays import Ids

# Splitting 38 MB at once took half a minute and 1.4 GB. So texts are split a few at a time, and of a text
# with more characters than this per allowed id the beginning is tried first; pieces are much shorter.
CHARACTERS_PER_ID = 32
TEXTS_AT_ONCE = 64


class Splitter:
    """Adds the special ids; refuses what the model cannot read whole."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # A file may ask for cutting and padding; nothing is cut in silence here, and padding is the line's.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._size = self._tokenizer.get_vocab_size()
        self._max_tokens = max_tokens

    def split(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text as the model will see it; ContextTooLong names the first that does not fit."""
        found: list[Ids] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[start : start + TEXTS_AT_ONCE]
            self._try_beginnings(some, start)
            encoded = self._tokenizer.encode_batch_fast(list(some))
            for index, one in enumerate(encoded, start):
                if len(one) > self._max_tokens:
                    raise self._too_long(index, str(len(one)))
                found.append(np.array(one.ids, np.int32))
        return found

    def ids(self, text: str, *, special: bool) -> list[int]:
        """The ids of one text alone; special ones if asked for."""
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=special).ids
        return found

    def piece(self, one: int) -> str:
        """The vocabulary's entry of one id."""
        return str(self._tokenizer.id_to_token(one))

    def text(self, ids: Sequence[int]) -> str:
        """The text of some ids, special ones written out; InvalidRequest for an id that there is not."""
        for index, one in enumerate(ids):
            if not 0 <= one < self._size:
                raise InvalidRequest(
                    f"tokens[{index}] is {one}; this vocabulary's ids end at {self._size - 1}.",
                    param=f"tokens[{index}]",
                )
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def _try_beginnings(self, texts: Sequence[str], start: int) -> None:
        enough = CHARACTERS_PER_ID * self._max_tokens
        for index, text in enumerate(texts, start):
            if len(text) <= enough:
                continue
            # The cut may split a piece in two and so count one more: the last two are not counted.
            count = len(self._tokenizer.encode(text[:enough])) - 2
            if count > self._max_tokens:
                raise self._too_long(index, f"more than {count}")

    def _too_long(self, index: int, count: str) -> ContextTooLong:
        return ContextTooLong(
            f"input[{index}] has {count} LLM tokens, this model reads at most {self._max_tokens}; "
            "split it into parts and embed each.",
            param=f"input[{index}]",
        )
