"""Answers of one choice each, told as one answer of several: the choices of `n`, the prompts of a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from scibox.core.types import Chunk, Usage

from . import sse

Json = dict[str, Any]  # Any: a decoded answer of a replica

_EVENT = b"data: "


class Merger:
    """Numbers the choices, and makes one id and one usage of many.

    The answers belong to `calls`, which come in groups of `group` with the same prompt: that is counted once.
    """

    def __init__(self, calls: int, group: int) -> None:
        self._usages: list[Usage | None] = [None] * calls
        self._group = group
        self._envelope: Json = {}

    @property
    def usage(self) -> Usage:
        """What all the answers have cost, as far as it is known."""
        heads = self._usages[:: self._group]
        prompts = sum(usage.prompt_tokens for usage in heads if usage)
        return Usage(prompts, sum(usage.completion_tokens for usage in self._usages if usage))

    def event(self, index: int, chunk: Chunk) -> bytes:
        """An event of answer `index` as one of the whole; empty where it is told once for all, at the end."""
        if chunk.usage is not None:
            self._usages[index] = chunk.usage
        if not chunk.data.startswith(_EVENT) or chunk.data == sse.DONE:
            return b""
        event: Json = msgspec.json.decode(chunk.data[len(_EVENT) :])
        if not event.get("choices"):
            return b""
        for choice in event["choices"]:
            choice["index"] = index
        if not self._envelope:
            self._envelope = {name: value for name, value in event.items() if name != "choices"}
        return sse.render(msgspec.json.encode({"choices": event["choices"], **self._envelope}))

    def ending(self, *, with_usage: bool) -> bytes:
        """The last events: what it cost, if that was asked for."""
        if not with_usage:
            return b""
        chunk = {"choices": [], **self._envelope, "usage": _told(self.usage)}
        return sse.render(msgspec.json.encode(chunk))

    def whole(self, answers: Sequence[Chunk]) -> Chunk:
        """The whole answers as one body."""
        bodies: list[Json] = [msgspec.json.decode(answer.data) for answer in answers]
        self._usages = [answer.usage for answer in answers]
        choices = [
            {**choice, "index": index} for index, body in enumerate(bodies) for choice in body["choices"]
        ]
        body = bodies[0] | {"choices": choices, "usage": _told(self.usage)}
        return Chunk(msgspec.json.encode(body), self.usage, answers[0].headers, is_last=True)


def _told(usage: Usage) -> Json:
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
