"""A constrained answer that leaves its grammar becomes an error instead of a wrong answer.

llama-server decodes on without a grammar once llguidance gives up amid an answer ("too many expressions
constructed", seen with `(.*[aeiou].{20}){3}x`), and tells nobody. So the text is matched against the same
grammar here, byte by byte (1 µs each): without masks over a whole vocabulary there is little to give up on.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from scibox.core.errors import UpstreamBroken

if TYPE_CHECKING:
    from llguidance import LLMatcher

_LEFT = (
    "The model server could not hold the answer to the form that was asked for; what came so far is not "
    "valid. Ask for a simpler form: patterns that repeat '.' or '\\w' a fixed number of times cause this."
)


class _Text(Struct):
    content: str | None = None


class _Choice(Struct):
    """Of a stream, a whole chat answer, or legacy completions."""

    delta: _Text | None = None
    message: _Text | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Answer(Struct):
    choices: list[_Choice] = []


_answers = msgspec.json.Decoder(_Answer)


class Guard:
    """A `Filter` (wire/answers.py) of answers of one choice, as the model wrote them."""

    def __init__(self, grammar: str, *, has_stop_words: bool) -> None:
        self._matcher = _compiled(grammar).deep_copy()
        self._may_be_cut = has_stop_words

    def event(self, data: bytes) -> list[bytes]:
        """The event as it is; `UpstreamBroken` where its text may not follow, or may not be the last."""
        self._follow(data)
        return [data]

    def whole(self, body: bytes) -> bytes:
        """The body as it is, if the grammar allows its text."""
        self._follow(body)
        return body

    def _follow(self, data: bytes) -> None:
        for choice in _answers.decode(data).choices:
            said = choice.delta or choice.message
            text = (said and said.content) or choice.text or ""
            if choice.finish_reason == "length":  # what `clean.py` takes out: the beginning of a character
                text = text.rstrip("\ufffd")
            signs = list(text.encode())
            if self._matcher.try_consume_tokens(signs) < len(signs):
                raise UpstreamBroken(_LEFT, code="constraint_not_held")
            is_whole = choice.finish_reason == "stop" and not self._may_be_cut
            if is_whole and not self._matcher.is_accepting():
                raise UpstreamBroken(_LEFT, code="constraint_not_held")


@lru_cache(maxsize=64)  # compiling takes 100 times as long as a copy
def _compiled(grammar: str) -> LLMatcher:
    from llguidance import LLMatcher, LLTokenizer  # noqa: PLC0415 - 25 ms, for the few who constrain answers

    return LLMatcher(LLTokenizer("byte"), LLMatcher.grammar_from_lark(grammar), log_level=0)
