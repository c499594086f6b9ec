"""How a replica's `/completions` is told: `text_completion` objects in OpenAI's shape, whatever it added.

llama-server gives log-probabilities in chat's shape; here they are told in that of the older API.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from scibox.core.errors import SciBoxError, UpstreamBroken
from scibox.wire import errors, sse
from scibox.wire.pieces import Counts

_UNREADABLE = "The model server's answer could not be read; try again in a few seconds."


class _Top(Struct):
    token: str
    logprob: float


class _TokenLogprob(Struct):
    token: str
    logprob: float
    top_logprobs: list[_Top] = []


class _Logprobs(Struct):
    content: list[_TokenLogprob] | None = None  # chat's shape
    tokens: list[str] | None = None  # the older one
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None
    text_offset: list[int] | None = None


class _Choice(Struct):
    text: str | None = None
    index: int = 0
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Answer(Struct):
    created: int = 0
    model: str = ""
    choices: list[_Choice] = []
    usage: Counts | None = None
    system_fingerprint: Raw = Raw(b"null")


_decoder = msgspec.json.Decoder(_Answer)


class CompletionsReply:
    """One answer. `echoed` holds the text that each choice begins with, where that is wanted.

    `logprobs` is how many alternatives were asked for; None: no log-probabilities at all.
    """

    def __init__(
        self, request_id: str, echoed: Sequence[str], logprobs: int | None, *, wants_usage: bool
    ) -> None:
        self._id = f"cmpl-{request_id.removeprefix('req_')}"
        self._echoed = dict(enumerate(echoed))
        self._logprobs = logprobs
        self._wants_usage = wants_usage
        self._events = sse.EventSplitter()
        self._last = _Answer()
        self._usage: Counts | None = None
        self._told: dict[int, int] = {}  # of each choice: how many characters have been told

    def whole(self, body: bytes) -> bytes:
        """The completion object."""
        answer = _read(body)
        choices = [self._choice(choice) for choice in answer.choices]
        return msgspec.json.encode(self._object(answer, choices, usage=_usage(answer.usage or Counts())))

    def event(self, data: bytes) -> bytes:
        """The event as this API has it."""
        return b"".join(self._event(event) for event in self._events.feed(data))

    def error_event(self, error: SciBoxError) -> bytes:
        """An error in OpenAI's shape; no `[DONE]` follows it."""
        return errors.event(error)

    def _event(self, data: bytes) -> bytes:
        if data == b"[DONE]":
            return self._last_event() + sse.DONE
        answer = self._last = _read(data)
        self._usage = answer.usage or self._usage
        if not answer.choices:
            return b""
        choices = [self._choice(choice) for choice in answer.choices]
        more: dict[str, Any] = {"usage": None} if self._wants_usage else {}
        return sse.render(msgspec.json.encode(self._object(answer, choices, **more)))

    def _last_event(self) -> bytes:
        if not self._wants_usage or self._usage is None:
            return b""
        return sse.render(msgspec.json.encode(self._object(self._last, [], usage=_usage(self._usage))))

    def _object(self, answer: _Answer, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": answer.created,
            "model": answer.model,
            "choices": choices,
            "system_fingerprint": answer.system_fingerprint,
            **more,
        }

    def _choice(self, choice: _Choice) -> dict[str, Any]:
        index = choice.index
        echoed = self._echoed.pop(index, "")
        text = choice.text or ""
        begins_at = self._told.get(index, 0) + len(echoed)
        self._told[index] = begins_at + len(text)
        return {
            "index": index,
            "text": echoed + text,
            "logprobs": self._told_logprobs(choice.logprobs, begins_at),
            "finish_reason": choice.finish_reason,
        }

    def _told_logprobs(self, given: _Logprobs | None, begins_at: int) -> dict[str, Any] | None:
        if given is None or self._logprobs is None:
            return None
        if given.content is None:
            if given.tokens is None:
                return None
            fields = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
            return {name: getattr(given, name) for name in fields}
        content = [token for token in given.content if token.token]  # llama-server's for the end has none
        offsets, at = [], begins_at
        for token in content:
            offsets.append(at)
            at += len(token.token)
        return {
            "tokens": [token.token for token in content],
            "token_logprobs": [token.logprob for token in content],
            "top_logprobs": [
                {top.token: top.logprob for top in token.top_logprobs[: self._logprobs]} for token in content
            ],
            "text_offset": offsets,
        }


def _usage(counts: Counts) -> dict[str, Any]:
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.prompt + counts.completion,
    }


def _read(data: bytes) -> _Answer:
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamBroken(_UNREADABLE) from None
