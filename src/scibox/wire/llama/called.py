"""Calls that a model writes as text, in the form of `grammar.calls`, told as OpenAI's `tool_calls`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from scibox.wire.constraints.grammar import CALL_BEGINS, CALL_ENDS

_MARK = "<tool_call>"
_NAME_OPENS = CALL_BEGINS + '{"name": "'
_REST_OF_NAME = re.compile(r'((?:[^"\\]|\\.)*)"', re.DOTALL)
_ARGUMENTS_OPEN = ', "arguments": '
_CLOSES = "}" + CALL_ENDS
_STRUCTURE = re.compile(r'["\\{}\[\]]')

Json = dict[str, Any]  # Any: a decoded answer of a replica


@dataclass(frozen=True, slots=True)
class Text:
    """Words for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Begun:
    """A call begins."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of a call's arguments."""

    index: int
    text: str


Piece = Text | Begun | Arguments


@dataclass(slots=True)
class CallReader:
    """Tells calls from words, in any split of the text; what is not yet clear is held back.

    The grammar fixes every sign around names and arguments, so there is one way to read them; text that
    only looks like a call at first stays text.
    """

    count: int = 0
    _held: str = ""
    _space: str = ""  # before what may be a call
    _in: Literal["text", "name", "between", "arguments", "tail"] = "text"
    _depth: int = 0
    _in_string: bool = False
    _escaped: bool = False
    _pieces: list[Piece] = field(default_factory=list)

    def feed(self, text: str) -> list[Piece]:
        """What these signs make clear."""
        self._held += text
        while self._step():
            pass
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> list[Piece]:
        """What is left at the end: white space beside calls and a call cut within its name say nothing."""
        held, self._held = self._held, ""
        if self._in != "text" or not held or (self.count and not held.strip()):
            return []
        return [Text(held)]

    def _step(self) -> bool:
        """One step on; whether another may follow."""
        match self._in:
            case "text":
                return self._read_text()
            case "name":
                return self._read_name()
            case "between":
                return self._skip(_ARGUMENTS_OPEN, then="arguments")
            case "arguments":
                return self._read_arguments()
            case "tail":
                return self._skip(_CLOSES, then="text")

    def _read_text(self) -> bool:
        before, mark, _ = self._held.partition(_MARK)
        if mark:
            clear = before.rstrip()
            self._say(clear)
            self._space = before[len(clear) :]
            self._held = self._held[len(before) :]
            self._in = "name"
            return True
        # White space goes with what follows it, the beginning of a mark may become one.
        cut = next(size for size in range(len(_MARK) - 1, -1, -1) if self._held.endswith(_MARK[:size]))
        clear = self._held[: len(self._held) - cut].rstrip()
        self._say(clear)
        self._held = self._held[len(clear) :]
        return False

    def _read_name(self) -> bool:
        held = self._held
        if not held.startswith(_NAME_OPENS):
            if _NAME_OPENS.startswith(held):
                return False
            self._say(self._space + _MARK)  # no call of ours
            self._held, self._in = held[len(_MARK) :], "text"
            return True
        rest = _REST_OF_NAME.match(held, len(_NAME_OPENS))
        if rest is None:
            return False
        self._pieces.append(Begun(self.count, msgspec.json.decode(f'"{rest[1]}"')))
        self.count += 1
        self._held, self._in = held[rest.end() :], "between"
        return True

    def _skip(self, signs: str, *, then: Literal["arguments", "text"]) -> bool:
        if len(self._held) < len(signs):
            return False
        self._held, self._in = self._held[len(signs) :], then
        return True

    def _read_arguments(self) -> bool:
        if not self._held:
            return False
        end = self._end_of_arguments()
        text, self._held = (self._held, "") if end is None else (self._held[:end], self._held[end:])
        self._pieces.append(Arguments(self.count - 1, text))
        if end is not None:
            self._in = "tail"
        return end is not None

    def _end_of_arguments(self) -> int | None:
        """Where the object of the arguments ends; depth and quotes are remembered from piece to piece."""
        at = 0
        if self._escaped:  # by a backslash at the end of the last piece
            at, self._escaped = 1, False
        while (found := _STRUCTURE.search(self._held, at)) is not None:
            at = found.end()
            sign = found[0]
            if self._in_string:
                if sign == "\\":
                    self._escaped = at == len(self._held)
                    at += 1
                elif sign == '"':
                    self._in_string = False
            elif sign == '"':
                self._in_string = True
            elif sign in "{[":
                self._depth += 1
            elif sign in "}]":
                self._depth -= 1
                if not self._depth:
                    return at
        return None

    def _say(self, text: str) -> None:
        if text:
            self._pieces.append(Text(text))


class Calls:
    """A `Filter` (wire/answers.py): calls out of the text, into `tool_calls`."""

    def __init__(self, *, is_forced: bool) -> None:
        self._is_forced = is_forced  # what is no call is the beginning of one
        self._reader = CallReader()

    def event(self, data: bytes) -> list[bytes]:
        """The event, or several or none in its place."""
        chunk: Json = msgspec.json.decode(data)
        if not chunk["choices"]:
            return [data]
        choice = chunk["choices"][0]  # there is one: n is split
        delta, ended = choice["delta"], choice.get("finish_reason")
        text = delta.pop("content", None)
        if "role" in delta:
            delta["content"] = None if text is None else ""
        pieces = self._reader.feed(text or "")
        if ended:
            pieces += self._reader.finish()
            if ended == "stop" and self._reader.count:
                choice["finish_reason"] = "tool_calls"
        told = [_delta(chunk, piece) for piece in pieces if not self._is_noise(piece)]
        if not (delta or ended):
            return told
        own = msgspec.json.encode(chunk)
        return [*told, own] if ended else [own, *told]

    def whole(self, body: bytes) -> bytes:
        """The body with its calls told."""
        answer: Json = msgspec.json.decode(body)
        for choice in answer["choices"]:
            message = choice["message"]
            reader = CallReader()
            pieces = reader.feed(message.get("content") or "") + reader.finish()
            words = [piece for piece in pieces if isinstance(piece, Text) and not self._is_forced]
            text = "".join(piece.text for piece in words)
            message["content"] = text if text or not reader.count else None
            if reader.count:
                message["tool_calls"] = _told(answer["id"], pieces)
                if choice["finish_reason"] == "stop":
                    choice["finish_reason"] = "tool_calls"
        return msgspec.json.encode(answer)

    def _is_noise(self, piece: Piece) -> bool:
        return self._is_forced and isinstance(piece, Text)


def _delta(chunk: Json, piece: Piece) -> bytes:
    """An event like `chunk` with the piece as its delta."""
    match piece:
        case Text(text):
            delta: Json = {"content": text}
        case Begun(index, name):
            call = {"index": index, **_call(chunk["id"], index, name, "")}
            delta = {"tool_calls": [call]}
        case Arguments(index, text):
            delta = {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
    choice = {"index": chunk["choices"][0]["index"], "delta": delta, "finish_reason": None}
    return msgspec.json.encode({**chunk, "choices": [choice]})


def _told(answer_id: str, pieces: list[Piece]) -> list[Json]:
    calls = []
    for piece in pieces:
        if isinstance(piece, Begun):
            of_it = (
                more.text for more in pieces if isinstance(more, Arguments) and more.index == piece.index
            )
            calls.append(_call(answer_id, piece.index, piece.name, "".join(of_it)))
    return calls


def _call(answer_id: str, index: int, name: str, arguments: str) -> Json:
    """A call; its id is made of the answer's, which is random."""
    made = hashlib.blake2b(f"{answer_id}:{index}".encode(), digest_size=12).hexdigest()
    return {"id": f"call_{made}", "type": "function", "function": {"name": name, "arguments": arguments}}
