"""What the fake engine says to `/v1/completions`, in llama-server's shapes: words for each choice."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from scibox.engines.fake_dialect import DONE, StreamOptions, Usage, count_tokens, words_about


class CompletionBody(msgspec.Struct, frozen=True):
    """The fields of a completion that change the fake's answer."""

    prompt: str | list[str]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    n: int = 1
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class TextCompletion:
    """A whole answer: the words of each choice, all of the same number."""

    id: str
    model: str
    created: int
    texts: tuple[tuple[str, ...], ...]
    finish_reason: str
    usage: Usage
    has_logprobs: bool = False

    @property
    def deltas(self) -> tuple[tuple[str, ...], ...]:
        """The next word of every choice, for each event."""
        return tuple(zip(*self.texts, strict=True))

    def json(self) -> bytes:
        """The body of a non-streaming answer."""
        choices = [self._choice(index, text, self.finish_reason) for index, text in enumerate(self.texts)]
        return msgspec.json.encode({"choices": choices, **self._envelope(), "usage": self.usage.as_json()})

    def opening(self) -> list[bytes]:
        """Nothing comes before the first word."""
        return []

    def steps(self) -> list[list[bytes]]:
        """The events of each delta, one per choice."""
        return [
            [self._event(index, (word,), None) for index, word in enumerate(words)] for words in self.deltas
        ]

    def closing(self, include_usage: bool) -> list[bytes]:
        """The finish reasons; the usage stands in the last of them."""
        events = [self._event(index, (), self.finish_reason) for index in range(len(self.texts) - 1)]
        usage = {"usage": self.usage.as_json()} if include_usage else {}
        return [*events, self._event(len(self.texts) - 1, (), self.finish_reason, **usage), DONE]

    def _event(self, index: int, words: tuple[str, ...], finish: str | None, **more: object) -> bytes:
        chunk = {"choices": [self._choice(index, words, finish)], **self._envelope(), **more}
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

    def _choice(self, index: int, words: tuple[str, ...], finish: str | None) -> dict[str, object]:
        content = [
            {"token": word, "logprob": -0.5, "top_logprobs": [{"token": word, "logprob": -0.5}]}
            for word in words
        ]
        logprobs = {"content": content} if self.has_logprobs and words else None
        return {"text": "".join(words), "index": index, "logprobs": logprobs, "finish_reason": finish}

    def _envelope(self) -> dict[str, object]:
        return {"created": self.created, "id": self.id, "model": self.model, "object": "text_completion"}


def complete(
    body: CompletionBody, chunks: tuple[str, ...] | None, *, model: str, created: int, number: int
) -> TextCompletion:
    """The answer: the scripted chunks, or words that depend on the prompt and the choice alone."""
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    texts = [chunks or words_about(f"{prompt}{choice}") for prompt in prompts for choice in range(body.n)]
    limit = len(texts[0]) if body.max_tokens is None else body.max_tokens
    is_cut = limit < len(texts[0])
    kept = tuple(text[:limit] for text in texts)
    return TextCompletion(
        id=f"cmpl-fake{number}",
        model=model,
        created=created,
        texts=kept,
        finish_reason="length" if is_cut else "stop",
        usage=Usage(sum(map(count_tokens, prompts)), sum(map(len, kept))),
        has_logprobs=body.logprobs is not None,
    )
