"""What replicas answer: chunks of a stream, whole bodies, errors; touched only where they must change.

Per streamed event this costs a few searches in a buffer; JSON is decoded only for the first event, for the
rare one that carries usage or an error, and until the answer itself has begun (`reasoning.py`).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import Protocol

import msgspec
from msgspec import Struct

from scibox.core.errors import (
    ContextTooLong,
    InvalidRequest,
    SciBoxError,
    UpstreamBroken,
    UpstreamBusy,
    UpstreamMisconfigured,
    UpstreamUnavailable,
)
from scibox.core.streams import Course
from scibox.core.types import Chunk, Ending, Usage

from . import sse
from .clean import Clean
from .constraints.guard import Guard
from .llama.called import Calls
from .llama.tidy import Tidy
from .named import Named
from .orders import Reading
from .reasoning import MARKS, Reasoning
from .resuming.joiner import Joiner
from .resuming.memory import Memory, Said
from .shape import Shape, is_said


class _PromptDetails(Struct):
    cached_tokens: int | None = 0


class _CompletionDetails(Struct):
    reasoning_tokens: int | None = 0


class _Usage(Struct):
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Error(Struct):
    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class _Choice(Struct):
    """Of a stream, a whole chat answer, or legacy completions."""

    index: int = 0
    delta: dict[str, msgspec.Raw] | None = None
    message: dict[str, msgspec.Raw] | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Answer(Struct):
    usage: _Usage | None = None
    error: _Error | str | None = None
    choices: list[_Choice] | None = None
    data: list[msgspec.Raw] | None = None
    results: list[msgspec.Raw] | None = None  # of a rerank model


# llama-server's words for an embedding input over its batch, which `engines/llama.py` makes the context.
_LLAMA_TOO_LONG = "is too large to process"
# A stream without any finish reason was cut, whatever its end says. The last reason comes in one of the last
# events, before usage and what some servers add.
_FINAL_EVENTS = 8
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
# A piece of text, of reasoning or of a call's arguments; the role and the reason for the end are none.
_SAYS = re.compile(rb'"(?:content|reasoning_content|reasoning|text|arguments|name)"\s*:\s*"(?!")')
_answers = msgspec.json.Decoder(_Answer)
_errors = msgspec.json.Decoder(_Error)
_BROKEN = "The model server's answer could not be read; try again in a few seconds."
# What a filter meets in an answer of another shape than the replica's own documents give it.
_UNREADABLE = (
    msgspec.MsgspecError,
    UnicodeDecodeError,
    RecursionError,
    LookupError,
    TypeError,
    AttributeError,
)
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

    Only a stream that the replica ended itself with `[DONE]` ends so for the client. With a `memory` of what
    was said, another replica may go on where this one broke off.
    """

    def __init__(self, reading: Reading, memory: Memory | None = None) -> None:
        self.course = Course()
        self._memory = memory
        self._joiner: Joiner | None = None
        self._events = sse.EventSplitter()
        self._wants_usage = reading.wants_usage
        self._filters = filters(reading)
        self._has_begun = False
        self._deltas = 0  # that the replica has said and no chunk has told yet
        self._last: deque[bytes] = deque(maxlen=_FINAL_EVENTS)
        self._usage_beside = b""  # an event that had choices and usage in one, where none has usage alone

    @property
    def finished(self) -> bool:
        """Whether the answer is whole."""
        return self.course.is_whole

    def said(self) -> Said | None:
        """What another replica would go on from; None where none can."""
        return None if self._memory is None else self._memory.said()

    def join(self, joiner: Joiner) -> None:
        """From now on another replica speaks: through the same filters, as if it had been one."""
        self._joiner = joiner
        self._events = sse.EventSplitter()
        self._has_begun = False

    def feed(self, received: bytes) -> Iterator[Chunk]:
        """Chunks completed by these bytes, one whole event each; good ones come before an error is raised."""
        for data in self._events.feed(received):
            if data == b"[DONE]":
                if not any(_FINISHED.search(last) for last in self._last):
                    raise UpstreamBroken(_CUT, code="upstream_broke_off")
                self.course.begin()
                self.course.end(Ending.FINISHED)
                if self._wants_usage and self._usage_beside:
                    yield Chunk(sse.render(_usage_alone(self._usage_beside)))
                yield Chunk(sse.DONE, is_last=True)
                return
            joined = data if self._joiner is None else self._joined(data)
            if joined is not None:
                yield from self._chunks(joined)

    def close(self) -> None:
        """The replica closed the connection; an error unless it had finished."""
        if not self.finished:
            raise UpstreamBroken(_CUT, code="upstream_broke_off")

    def _joined(self, data: bytes) -> bytes | None:
        """An event of another replica as it joins what was said; None where nothing of it is new."""
        assert self._joiner is not None
        _refuse_bad_utf8(data)
        return self._joiner.event(data)

    def _chunks(self, data: bytes) -> list[Chunk]:
        if not (data.startswith(b"{") and data.endswith(b"}")):
            raise UpstreamBroken(_BROKEN)
        _refuse_bad_utf8(data)
        if b"\n" in data:  # legal JSON over several data lines; clients read one line
            data = data.replace(b"\n", b" ")
        usage = None
        if not self._has_begun or _is_unusual(data):
            self._has_begun = True
            answer = _decode(data)
            if answer.error is not None:
                raise _in_stream(answer.error)
            if answer.choices is None and answer.usage is None:
                raise UpstreamBroken(_BROKEN)
            self.course.begin()
            usage = _usage(answer.usage) if answer.usage else None
            if usage:
                self._usage_beside = data if answer.choices else b""
            if not answer.choices and not (usage and self._wants_usage):
                return [Chunk(b"", usage)] if usage else []
        if self._memory is not None:
            self._memory.add(data)
        self._last.append(data)
        self._deltas += _SAYS.search(data) is not None
        chunks: list[Chunk] = []
        for kept in _through(self._filters, data):
            chunks.append(Chunk(sse.render(kept), usage, deltas=self._deltas))
            usage, self._deltas = None, 0
        if usage is not None:
            chunks.append(Chunk(b"", usage))
        return chunks


def _usage_alone(data: bytes) -> bytes:
    """The event in which OpenAI's clients look for usage: it has no choices."""
    event = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({**event, "choices": []})


def _is_unusual(data: bytes) -> bool:
    """Whether an event is more than a piece of text: then it is worth decoding."""
    return (
        b'"error"' in data
        or (b'"usage"' in data and b'"usage":null' not in data)
        or (b'"delta"' not in data and b'"text"' not in data)
    )


def filters(reading: Reading) -> list[Filter]:
    """What stands between a replica's words and the client's, in the order that an answer passes it."""
    undo = reading.undo
    stages: list[Filter] = [] if undo is None else [Tidy(undo)]
    if reading.grammar:
        stages.append(Guard(reading.grammar, has_stop_words=reading.has_stop_words))
    if reading.is_text:
        stages.append(Clean())
    if reading.is_chat and undo is None:
        stages.append(Shape())
    if reading.thinking != "none":
        stages.append(Reasoning(reading.thinking, reading.choices, reading.has_stop_words))
    if undo is not None and undo.calls != "none":
        stages.append(Calls(is_forced=undo.calls == "all"))
    if reading.named:
        stages.append(Named(reading.named))
    return stages


def _through(stages: list[Filter], data: bytes) -> list[bytes]:
    events = [data]
    try:
        for stage in stages:
            if len(events) == 1:  # nearly always, and then twice as fast
                events = stage.event(events[0])
            else:
                events = [kept for event in events for kept in stage.event(event)]
    except _UNREADABLE:
        raise UpstreamBroken(_BROKEN) from None
    return events


def _refuse_bad_utf8(data: bytes) -> None:
    """The decoder of JSON skips strings that nobody asks for; the client's would stumble over them."""
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            raise UpstreamBroken(_BROKEN) from None


def whole(body: bytes, reading: Reading) -> Chunk:
    """A non-streamed answer, checked to be one."""
    _refuse_bad_utf8(body)
    answer = _decode(body)
    if answer.error is not None or not (answer.choices if reading.is_text else answer.data or answer.results):
        raise UpstreamBroken(_BROKEN)
    if any(choice.message is None and choice.text is None for choice in answer.choices or ()):
        raise UpstreamBroken(_BROKEN)
    if not _is_plain(body, answer, reading):
        try:
            for stage in filters(reading):
                body = stage.whole(body)
        except _UNREADABLE:
            raise UpstreamBroken(_BROKEN) from None
    return Chunk(body, _usage(answer.usage) if answer.usage else Usage(), is_last=True)


def _is_plain(body: bytes, answer: _Answer, reading: Reading) -> bool:
    """Whether no filter would change an answer of a server that speaks OpenAI's words: nearly always."""
    return (
        reading.undo is None
        and not reading.grammar
        and not reading.named
        and reading.thinking != "opened"
        and body.isascii()
        and not any(mark in body for mark in (b"\\u", *MARKS))
        and (not reading.is_chat or all(is_said(choice.message) for choice in answer.choices or ()))
    )


def refusal(status: int, body: bytes, opens_in_s: float | None = None) -> SciBoxError:
    """An error answer of a replica in our words. A fault of ours is never 401, 403 or 404 to the caller.

    `opens_in_s`: of its `Retry-After`. A 503 without one may mean anything, not only that it is busy.
    """
    message, param, code = _parts(_error(body))
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
        is_told = status == 429 or opens_in_s is not None
        busy = (UpstreamBusy if is_told else UpstreamUnavailable)(
            "The model server is busy; try again.", code=UpstreamBusy.code, retry_after_s=2
        )
        if isinstance(busy, UpstreamBusy):
            busy.opens_in_s = opens_in_s
        return busy
    return UpstreamBroken(f"The model server failed ({status}); try again in a few seconds.")


def _error(body: bytes) -> _Error | str | None:
    """What an error answer says; older vLLM and what else is made with FastAPI have no `error` around it."""
    try:
        return _answers.decode(body).error or _errors.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


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
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    details = usage.completion_tokens_details
    reasoning = details.reasoning_tokens if details else 0
    numbers = (usage.prompt_tokens, usage.completion_tokens, cached, reasoning)
    return Usage(*(max(0, number or 0) for number in numbers))
