"""What replicas answer: chunks of a stream, whole bodies, errors; touched only where they must change.

Per streamed event this costs a few searches in a buffer; JSON is decoded only for the rare event that
carries usage or an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec
from msgspec import Struct

from scibox.core.errors import (
    ContextTooLong,
    InvalidRequest,
    SciBoxError,
    UpstreamBroken,
    UpstreamMisconfigured,
    UpstreamUnavailable,
)
from scibox.core.types import Chunk, Usage

from . import sse
from .called import Calls
from .orders import Reading
from .tidy import Tidy


class _Usage(Struct):
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0


class _Error(Struct):
    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class _Answer(Struct):
    usage: _Usage | None = None
    error: _Error | str | None = None
    choices: list[msgspec.Raw] | None = None
    data: list[msgspec.Raw] | None = None


# llama-server's words for an embedding input over its batch, which `engines/llama.py` makes the context.
_LLAMA_TOO_LONG = "is too large to process"
_answers = msgspec.json.Decoder(_Answer)
_BROKEN = "The model server's answer could not be read; try again in a few seconds."
_CUT = "The model server broke off in the middle of the answer; what came so far is not complete. Try again."


class Filter(Protocol):
    """Changes answers on their way; one object for one answer."""

    def event(self, data: bytes) -> list[bytes]:
        """What goes on in place of an event's data: the same bytes, others, several events or none.

        Nothing may be held back past the event that carries the finish reason.
        """

    def whole(self, body: bytes) -> bytes:
        """A non-streamed answer's body, changed where it must be."""


class Stream:
    """A streamed answer on its way: bytes of a replica in, chunks for the client out.

    Only a stream that the replica ended itself with `[DONE]` ends so for the client.
    """

    def __init__(self, reading: Reading) -> None:
        self._events = sse.EventSplitter()
        self._wants_usage = reading.wants_usage
        self._filters = filters(reading)
        self.finished = False

    def feed(self, received: bytes) -> Iterator[Chunk]:
        """Chunks completed by these bytes, one whole event each; good ones come before an error is raised."""
        for data in self._events.feed(received):
            if data == b"[DONE]":
                self.finished = True
                yield Chunk(sse.DONE)
                return
            yield from self._chunks(data)

    def close(self) -> None:
        """The replica closed the connection; an error unless it had finished."""
        if not self.finished:
            raise UpstreamBroken(_CUT, code="upstream_broke_off")

    def _chunks(self, data: bytes) -> Iterator[Chunk]:
        if not (data.startswith(b"{") and data.endswith(b"}")):
            raise UpstreamBroken(_BROKEN)
        if b"\n" in data:  # legal JSON over several data lines; clients read one line
            data = data.replace(b"\n", b" ")
        usage = None
        if b'"usage"' in data or b'"error"' in data:
            answer = _decode(data)
            if answer.error is not None:
                raise _in_stream(answer.error)
            if answer.usage is not None:
                usage = _usage(answer.usage)
                if not answer.choices and not self._wants_usage:
                    yield Chunk(b"", usage)
                    return
        for kept in _through(self._filters, data):
            yield Chunk(sse.render(kept), usage)
            usage = None
        if usage is not None:
            yield Chunk(b"", usage)


def filters(reading: Reading) -> list[Filter]:
    """What stands between a replica's words and the client's, in the order that an answer passes it."""
    undo = reading.undo
    if undo is None:
        return []
    return [Tidy(undo), Calls(is_forced=undo.calls == "all")] if undo.calls != "none" else [Tidy(undo)]


def _through(stages: list[Filter], data: bytes) -> list[bytes]:
    events = [data]
    for stage in stages:
        events = [kept for event in events for kept in stage.event(event)]
    return events


def whole(body: bytes, reading: Reading) -> Chunk:
    """A non-streamed answer, checked to be one."""
    answer = _decode(body)
    if answer.error is not None or (answer.choices is None and answer.data is None):
        raise UpstreamBroken(_BROKEN)
    for stage in filters(reading):
        body = stage.whole(body)
    return Chunk(body, _usage(answer.usage) if answer.usage else Usage())


def refusal(status: int, body: bytes) -> SciBoxError:
    """An error answer of a replica in our words. A fault of ours is never 401, 403 or 404 to the caller."""
    try:
        error = _answers.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = None
    message, param, code = _parts(error)
    if _LLAMA_TOO_LONG in message:  # its status is 500
        return ContextTooLong(
            "A text is longer than the model's context; shorten it or split it.", param="input"
        )
    if status in (400, 413, 422):
        if _is_about_context(message, code):
            return ContextTooLong(f"{message} Shorten the input.", param=param or "messages")
        return InvalidRequest(message or "The model server refused the request.", param=param)
    if status in (401, 403, 404):
        return UpstreamMisconfigured(
            "The model server refused the gateway; tell the operator to check its upstream key and name.",
            retry_after_s=30,
        )
    if status in (429, 503):
        return UpstreamUnavailable(
            "The model server is busy; try again.", code="upstream_busy", retry_after_s=2
        )
    return UpstreamBroken(f"The model server failed ({status}); try again in a few seconds.")


def _decode(data: bytes) -> _Answer:
    try:
        return _answers.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamBroken(_BROKEN) from None


def _in_stream(error: _Error | str) -> SciBoxError:
    message, _, code = _parts(error)
    if _is_about_context(message, code):
        return ContextTooLong(f"{message} Shorten the input.", param="messages")
    return UpstreamBroken(f"The model server failed in the middle of the answer: {message or 'no reason.'}")


def _parts(error: _Error | str | None) -> tuple[str, str | None, str]:
    if isinstance(error, _Error):
        message, param, code = error.message, error.param, f"{error.code} {error.type}"
    else:
        message, param, code = error or "", None, ""
    message = message.strip()
    return (message if not message or message.endswith((".", "!", "?")) else f"{message}."), param, code


def _is_about_context(message: str, code: str) -> bool:
    """llama-server: type `exceed_context_size_error`; vLLM: "maximum context length"; ours: our code."""
    return (
        "exceed_context_size" in code
        or "context_length_exceeded" in code
        or "maximum context length" in message
        or "longer than the maximum model length" in message
    )


def _usage(usage: _Usage) -> Usage:
    return Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0)
