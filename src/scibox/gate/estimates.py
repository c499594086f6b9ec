"""How long a prompt and its answer will probably be, learnt from what the engines count.

An estimate is what a call reserves before it starts; the truth is settled when it ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from scibox.core.types import Call, Usage

MESSAGE_TOKENS = 4  # that a chat template writes around each message
FIRST_COMPLETION = 256.0  # LLM tokens, until something is known
LEAST_COMPLETION = 16
MOST_KNOWN = 4_096  # pairs of owner and model


@dataclass(slots=True)
class _Text:
    """Bytes and LLM tokens of the prompts of a model; the older count less. At first as for English."""

    bytes: float = 4_000.0
    tokens: float = 1_000.0


@dataclass(slots=True)
class _Length:
    """Mean and mean deviation of completions."""

    mean: float = FIRST_COMPLETION
    deviation: float = FIRST_COMPLETION / 4

    def learn(self, tokens: int) -> None:
        """One more; the weights are those of TCP's round-trip times (RFC 6298, 2.3)."""
        self.deviation += (abs(tokens - self.mean) - self.deviation) / 4
        self.mean += (tokens - self.mean) / 8


class Known:
    """What is known of the calls of one owner on one model; parts of it are those of all its callers."""

    __slots__ = ("_of_all", "_own", "_text")

    def __init__(self, text: _Text, of_all: _Length) -> None:
        self._text = text
        self._of_all = of_all
        self._own: _Length | None = None  # none of its calls has ended

    def prompt_tokens(self, call: Call) -> int:
        """LLM tokens of a call's prompt or texts, at least 1."""
        text = self._text
        return max(1, round(_size(call) * text.tokens / text.bytes) + _around(call))

    def completion_tokens(self, call: Call, room: int | None) -> int:
        """What a call reserves for its answers: what the caller allows, else a little more than usual.

        `room` is what the context leaves for each of them, None where that is not known.
        """
        if call.kind != "chat":
            return 0
        each = call.max_tokens
        if each is None:
            known = self._own or self._of_all
            each = max(LEAST_COMPLETION, round(known.mean + 2 * known.deviation))
        if room is not None and each > room:
            each = max(1, room)
        return each * call.n

    def learn(self, call: Call, usage: Usage) -> None:
        """What an engine has counted for a whole answer."""
        size, tokens = _size(call), usage.prompt_tokens - _around(call)
        if size and tokens > 0:
            text = self._text
            text.bytes = text.bytes * 0.98 + size
            text.tokens = text.tokens * 0.98 + tokens
        if call.kind == "chat":
            tokens = usage.completion_tokens // call.n
            if self._own is None:
                self._own = _Length(self._of_all.mean, self._of_all.deviation)
            self._of_all.learn(tokens)
            self._own.learn(tokens)


class Estimates:
    """Of all models and owners."""

    def __init__(self) -> None:
        self._of_models: dict[str, tuple[_Text, _Length]] = {}
        self._known: dict[tuple[str, str], Known] = {}  # by owner and model

    def of(self, owner: str, model: str) -> Known:
        """What is known of an owner's calls on a model."""
        known = self._known.get((owner, model))
        if known is None:
            parts = self._of_models.get(model)
            if parts is None:
                parts = self._of_models[model] = (_Text(), _Length())
            known = self._known[owner, model] = Known(*parts)
            if len(self._known) > MOST_KNOWN:
                del self._known[next(iter(self._known))]
        return known


def _size(call: Call) -> int:
    """Bytes of a prompt, characters of texts to embed (an id counts as four): a model has but one of them."""
    if call.embedding is None:
        return call.text_bytes * call.prompts
    return sum(
        len(text.content) if isinstance(text.content, str) else 4 * len(text.content)
        for text in call.embedding.texts
    )


def _around(call: Call) -> int:
    return MESSAGE_TOKENS * call.items if call.kind == "chat" else 0
