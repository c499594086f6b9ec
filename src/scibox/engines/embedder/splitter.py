"""Texts to token ids, with the model's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from scibox.core.errors import ContextTooLong

Ids = list[int]


class Splitter:
    """Adds the prefix and the special ids; refuses what the model cannot read whole."""

    def __init__(self, folder: Path, prefix: str, max_tokens: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # A file may ask for cutting and padding; here nothing is ever cut in silence, and padding is the line's.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._prefix = prefix
        self._max_tokens = max_tokens

    def split(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text as the model will see it; ContextTooLong names the first text that does not fit."""
        encoded = self._tokenizer.encode_batch_fast([self._prefix + text for text in texts])
        found = [one.ids for one in encoded]
        for index, ids in enumerate(found):
            if len(ids) > self._max_tokens:
                raise ContextTooLong(
                    f"input[{index}] has {len(ids)} tokens, this model reads at most {self._max_tokens}; "
                    "split it into parts and embed each.",
                    param="input",
                )
        return found

    def ids(self, text: str, *, special: bool) -> Ids:
        """The ids of one text alone: no prefix, special ids if asked for."""
        found: Ids = self._tokenizer.encode(text, add_special_tokens=special).ids
        return found
