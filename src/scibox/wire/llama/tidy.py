"""llama-server's answers without its own ways: no null for text, no timings, no echo, logprobs as asked for.

An event of a stream that needs nothing costs two searches in a buffer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .dialect import Undo

# None of these can stand inside a JSON string, where quotes are escaped.
_OPENING = b'"delta":{"role":"assistant","content":null}'
_OPENED = b'"delta":{"role":"assistant","content":""}'
_TIMINGS = b',"timings":{'
_LOGPROBS = b'"logprobs":{'
_VERBOSE = b'"__verbose":{'
_NULL_TEXT = b'"content":null'
_CALLS = b'"tool_calls":['

Json = dict[str, Any]  # Any: a decoded answer of a replica


class Tidy:
    """A `Filter` (wire/answers.py) of what llama-server says."""

    def __init__(self, undo: Undo) -> None:
        self._undo = undo
        self._is_opening = True

    def event(self, data: bytes) -> list[bytes]:
        """The event, tidied."""
        if self._is_opening:
            self._is_opening = False
            if self._undo.calls != "all":
                data = data.replace(_OPENING, _OPENED)
        data = _without_timings(data)
        if self._undo.tells_stop and _VERBOSE in data:
            data = _with_stop(data)
        if self._undo.top_logprobs is not None and _LOGPROBS in data:
            chunk: Json = msgspec.json.decode(data)
            for choice in chunk["choices"]:
                _trim_logprobs(choice, self._undo.top_logprobs)
            return [msgspec.json.encode(chunk)]
        return [data]

    def whole(self, body: bytes) -> bytes:
        """The body, tidied."""
        body = _without_timings(body)
        undo = self._undo
        if undo.tells_stop and _VERBOSE in body:
            body = _with_stop(body)
        is_null = _NULL_TEXT in body and _CALLS not in body
        if not (undo.prefix or is_null or undo.top_logprobs is not None):
            return body
        answer: Json = msgspec.json.decode(body)
        for choice in answer["choices"]:
            message = choice["message"]
            if is_null:
                message["content"] = message.get("content") or ""
            if undo.prefix and message.get("content"):
                message["content"] = message["content"].removeprefix(undo.prefix)
            if undo.top_logprobs is not None:
                _trim_logprobs(choice, undo.top_logprobs)
        return msgspec.json.encode(answer)


def _with_stop(data: bytes) -> bytes:
    """Which stop sequence matched, as vLLM tells it, in place of all that llama-server tells of the call."""
    answer: Json = msgspec.json.decode(data)
    told: Json = answer.pop("__verbose")
    if told.get("stop_type") == "word":
        answer["choices"][0]["stop_reason"] = told["stopping_word"]
    return msgspec.json.encode(answer)


def _without_timings(data: bytes) -> bytes:
    """Without llama-server's `timings`, a flat object of numbers."""
    start = data.find(_TIMINGS)
    if start < 0:
        return data
    end = data.find(b"}", start)
    return data[:start] + data[end + 1 :]


def _trim_logprobs(choice: Json, top: int) -> None:
    """OpenAI's fields, as many alternatives as wanted, and no entry for the end of the answer."""
    logprobs = choice.get("logprobs")
    if logprobs is None:
        return
    entries = [entry for entry in logprobs["content"] if entry["bytes"]]
    choice["logprobs"] = {
        "content": [
            {**_entry(entry), "top_logprobs": [_entry(other) for other in entry["top_logprobs"][:top]]}
            for entry in entries
        ],
        "refusal": None,
    }


def _entry(entry: Json) -> Json:
    return {name: entry[name] for name in ("token", "bytes", "logprob")}
