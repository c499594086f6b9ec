"""What a streamed answer has said so far, in the engine's own words, kept so that another engine can go on.

A stream that nothing interrupts pays for this with a list of the events that passed; they are read only at
a break, or when there are many of them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import msgspec
from msgspec import Raw, Struct

MAX_TEXT_BYTES = 64 * 1024  # of one answer; a longer one cannot be gone on with
RAW_BYTES = 16 * 1024  # events that wait to be read: 50 to 100 of them
_PIECES = 8  # the last ones, whose borders are known

Envelope = dict[str, Raw]
_ENVELOPE = ("id", "created", "model", "system_fingerprint")
_NOTHING = (b"", b"null", b"[]", b"{}", b'""')


# Where none of these names stands, an event says no more than text; looked for in many events at once.
_MORE = (b'"reasoning', b'"refusal"', b'"tool_calls"', b'"function_call"')


class _Delta(Struct, gc=False):
    content: str | None = None


class _FullDelta(_Delta, gc=False):
    reasoning_content: Raw = Raw()
    reasoning: Raw = Raw()
    refusal: Raw = Raw()
    tool_calls: Raw = Raw()
    function_call: Raw = Raw()


class _Choice(Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _FullChoice(Struct, gc=False):
    delta: _FullDelta | None = None


class _Event(Struct, gc=False):
    choices: list[_Choice] = []
    usage: Raw = Raw()


class _FullEvent(Struct, gc=False):
    choices: list[_FullChoice] = []


@dataclass(frozen=True, slots=True)
class Said:
    """What an answer of one choice has said: its text, in so many deltas; `pieces` are the last of them.

    `has_ended`: its finish reason has been told; `has_usage`: and so has its usage.
    """

    text: str
    deltas: int
    pieces: tuple[str, ...]
    has_ended: bool
    has_usage: bool
    envelope: Envelope


_events = msgspec.json.Decoder(list[_Event])
_full_events = msgspec.json.Decoder(list[_FullEvent])
_envelopes = msgspec.json.Decoder(Envelope)


class Memory:
    """Of one answer. `max_text_bytes` 0 is for one that can only be asked for again, not continued."""

    __slots__ = (
        "_bytes",
        "_deltas",
        "_envelope",
        "_has_ended",
        "_has_usage",
        "_is_lost",
        "_max",
        "_pieces",
        "_raw",
        "_text",
    )

    def __init__(self, max_text_bytes: int = MAX_TEXT_BYTES) -> None:
        self._max = max_text_bytes
        self._raw: list[bytes] = []
        self._bytes = 0  # of events not read yet
        self._text = ""
        self._pieces: deque[str] = deque(maxlen=_PIECES)
        self._deltas = 0
        self._has_ended = False
        self._has_usage = False
        self._is_lost = False
        self._envelope: Envelope = {}

    def add(self, data: bytes) -> None:
        """An event's data, as the engine sent it."""
        if self._is_lost:
            return
        self._raw.append(data)
        self._bytes += len(data)
        if self._bytes > RAW_BYTES:
            self._read()

    def said(self) -> Said | None:
        """All of it; None where it is too long, or more than the text of one choice."""
        self._read()
        if self._is_lost:
            return None
        pieces = tuple(self._pieces)
        return Said(self._text, self._deltas, pieces, self._has_ended, self._has_usage, self._envelope)

    def _read(self) -> None:
        """All events at once: one by one they would cost four times as much."""
        raw, self._raw, self._bytes = self._raw, [], 0
        if not raw or self._is_lost:
            return
        joined = b"[" + b",".join(raw) + b"]"
        try:
            events = _events.decode(joined)
            if any(name in joined for name in _MORE):
                full = (choice.delta for event in _full_events.decode(joined) for choice in event.choices)
                self._is_lost |= any(map(_says_more, full))
            if not self._envelope:
                told = _envelopes.decode(raw[0])
                self._envelope = {name: Raw(bytes(told[name])) for name in _ENVELOPE if name in told}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._is_lost = True
            return
        self._note(events)
        if self._is_lost or len(self._text.encode("utf-8", "surrogatepass")) > self._max:
            self._is_lost, self._text = True, ""

    def _note(self, events: list[_Event]) -> None:
        choices = [choice for event in events for choice in event.choices]
        said = [one.text or (one.delta and one.delta.content) or "" for one in choices]
        texts = [text for text in said if text]
        self._text += "".join(texts)
        self._pieces.extend(texts)
        self._deltas += len(texts)
        self._is_lost |= any(one.index for one in choices)
        self._has_ended |= any(one.finish_reason is not None for one in choices)
        if not all(event.choices for event in events):
            self._has_usage |= any(not one.choices and bytes(one.usage) not in _NOTHING for one in events)


def _says_more(delta: _FullDelta | None) -> bool:
    """Whether there is more than text: reasoning, or calls, which no engine goes on with."""
    return delta is not None and any(
        bytes(more) not in _NOTHING
        for more in (
            delta.reasoning_content,
            delta.reasoning,
            delta.refusal,
            delta.tool_calls,
            delta.function_call,
        )
    )
