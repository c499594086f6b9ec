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


class Estimates:
    """Of all models and owners."""

    def __init__(self) -> None:
        self._texts: dict[str, _Text] = {}
        self._lengths: dict[tuple[str, str], _Length] = {}  # owner ("": all of them) and model

    def prompt_tokens(self, model: str, call: Call) -> int:
        """LLM tokens of a call's prompt or texts, at least 1."""
        known = self._texts.get(model) or _Text()
        return max(1, round(_size(call) * known.tokens / known.bytes) + _around(call))

    def completion_tokens(self, owner: str, model: str, call: Call, room: int | None) -> int:
        """What a call reserves for its answers: what the caller allows, else a little more than usual.

        `room` is what the context leaves for each of them, None where that is not known.
        """
        if call.kind != "chat":
            return 0
        each = call.max_tokens
        if each is None:
            known = self._lengths.get((owner, model)) or self._lengths.get(("", model)) or _Length()
            each = max(LEAST_COMPLETION, round(known.mean + 2 * known.deviation))
        if room is not None:
            each = min(each, max(1, room))
        return each * call.n

    def learn(self, owner: str, model: str, call: Call, usage: Usage) -> None:
        """What an engine has counted for a whole answer."""
        size, tokens = _size(call), usage.prompt_tokens - _around(call)
        if size and tokens > 0:
            text = self._texts.get(model)
            if text is None:
                text = self._texts[model] = _Text()
            text.bytes = text.bytes * 0.98 + size
            text.tokens = text.tokens * 0.98 + tokens
        if call.kind == "chat":
            tokens = usage.completion_tokens // call.n
            of_all = self._lengths.get(("", model))
            if of_all is None:
                of_all = self._lengths["", model] = _Length()
            own = self._lengths.get((owner, model))
            if own is None:
                own = self._lengths[owner, model] = _Length(of_all.mean, of_all.deviation)
                if len(self._lengths) > MOST_KNOWN:
                    del self._lengths[next(iter(self._lengths))]
            of_all.learn(tokens)
            own.learn(tokens)


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
