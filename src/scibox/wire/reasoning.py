"""Reasoning text: always in `reasoning_content`, never in `content`, streamed or not.

Models write it between `<think>` and `</think>` before their answer (`parting.py`). Upstreams that separate
it themselves name it `reasoning_content` or, as newer vLLM does, `reasoning`: theirs passes on, under the
former name too.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from msgspec import Raw

from scibox.core.errors import UpstreamBroken
from scibox.core.types import Call, Thinking

from . import extras
from .parting import Parting, part

T = TypeVar("T")
Fields = dict[str, Raw]

# Models whose template opens the block itself: DeepSeek-R1 and what was distilled from it, QwQ, GLM-Z1, and
# by custom what is called "thinking" (Qwen3-...-Thinking-2507, Kimi-K2-Thinking).
_OPENERS = re.compile(r"deepseek-r1|\bqwq|glm-z1|[-_]thinking\b", re.IGNORECASE)
_object = msgspec.json.Decoder(Fields)
_objects = msgspec.json.Decoder(list[Fields])
_words = msgspec.json.Decoder(str)
_whole_number = msgspec.json.Decoder(int)
_anything = msgspec.json.Decoder()
# Without any of these nothing in an answer is to be parted or renamed; `<` may be written as `\u003c`.
MARKS = (b"<", b"\\u003", b'"reasoning"')
_NOTHING = (b"null", b"[]", b"{}")
# A delta of plain text, nearly every one; it cannot stand inside a string, where quotes are escaped.
_PLAIN = re.compile(rb'"delta":\{"content":"([^"\\<]*[^"\\<\s])"\}')
# vLLM's `include_reasoning` hides what it separates itself.
_SWITCHES = {"include_reasoning": b"false", "continue_final_message": b"true", "reasoning_effort": b'"none"'}
_FREE = (b"null", b'"auto"', b'"none"')  # `tool_choice` that forces nothing
_BROKEN = "The model server's answer could not be read; try again in a few seconds."


def expected(call: Call, thinking: Thinking, model: str) -> Thinking:
    """Where reasoning text will stand in the answer to this call, of a replica that knows the model so.

    A call that turns thinking off or continues a message, and one whose answer is constrained from its first
    character on, has no block that the template opened. Legacy completions are the model's own text: not
    parted.
    """
    if call.path != "/chat/completions":
        return "none"
    if thinking == "auto" and _OPENERS.search(model):
        thinking = "opened"
    if thinking == "opened" and (_turns_off(call) or _is_structured(call)):
        return "auto"
    return thinking


def _turns_off(call: Call) -> bool:
    """The switches that models and engines document."""
    if any(call.fields.get(name) == off for name, off in _SWITCHES.items()):
        return True
    options = _anything.decode(call.fields.get("chat_template_kwargs", b"null"))
    return isinstance(options, dict) and False in (options.get("enable_thinking"), options.get("thinking"))


def _is_structured(call: Call) -> bool:
    wanted = _anything.decode(call.fields.get("response_format", b"null"))
    is_text = not isinstance(wanted, dict) or wanted.get("type") == "text"
    must_call = call.fields.get("tool_choice", b"null") not in _FREE
    return must_call or not is_text or not extras.STRUCTURES.isdisjoint(extras.given(call.fields))


class Reasoning:
    """The filter: JSON is decoded until the content of every choice has begun, and not after."""

    def __init__(self, thinking: Thinking, choices: int, has_stop_words: bool) -> None:
        self._thinking = thinking
        self._has_stop_words = has_stop_words
        self._partings: dict[int, Parting] = {}
        self._is_alone = choices == 1
        self._undecided = choices
        self._names_it = False  # the upstream's field is `reasoning`

    def event(self, data: bytes) -> list[bytes]:
        """The event, with its text parted; nothing where all of it is held back."""
        if not self._undecided and not (self._names_it and b'"reasoning"' in data):
            return [data]
        if self._is_alone and (renamed := self._renamed(data)):
            return [renamed]
        event = _read(_object, data)
        if _is_empty(event, "choices"):
            return [data]
        before = _read(_objects, event["choices"])
        after = [self._choice(choice) for choice in before]
        if all(new is old for new, old in zip(after, before, strict=True)):
            return [data]
        kept = [choice for choice in after if choice]
        if not kept and _is_empty(event, "usage"):
            return []
        event["choices"] = _raw(kept)
        return [msgspec.json.encode(event)]

    def whole(self, body: bytes) -> bytes:
        """The body, with the text of every choice parted."""
        answer = _read(_object, body)
        choices = _read(_objects, answer["choices"])
        parted = [self._parted(choice) for choice in choices]
        if all(new is old for new, old in zip(parted, choices, strict=True)):
            return body
        answer["choices"] = _raw(parted)
        return msgspec.json.encode(answer)

    def _renamed(self, data: bytes) -> bytes | None:
        """An event amid reasoning that needs but another name for its text; None where it may need more."""
        parting = self._partings.get(0)
        if parting is None or not parting.is_amid or b'"finish_reason":null' not in data:
            return None
        found = _PLAIN.search(data)
        if found is None:
            return None
        parting.feed(found[1].decode("utf-8", "replace"))
        return b'%b"delta":{"reasoning_content":"%b"}%b' % (
            data[: found.start()],
            found[1],
            data[found.end() :],
        )

    def _choice(self, choice: Fields) -> Fields:
        """A streamed choice with its text parted: the same object if nothing changes, empty if held back."""
        index = _read(_whole_number, choice["index"]) if "index" in choice else 0
        parting = self._partings.setdefault(index, Parting(self._thinking == "opened"))
        was_decided = parting.is_decided
        delta = _fields(choice, "delta")
        is_named = self._name(delta)
        if _text(delta, "reasoning_content"):
            parting.pass_on()
        text = _text(delta, "content")
        reasoning, content = parting.feed(text)
        if not _is_empty(delta, "tool_calls"):
            content += parting.settle()
        if reason := _text(choice, "finish_reason"):
            last_reasoning, last_content = parting.end(reason, self._has_stop_words)
            reasoning, content = reasoning + last_reasoning, content + last_content
        self._undecided -= parting.is_decided and not was_decided
        if not is_named and not reasoning and content == text:
            return choice
        _write(delta, reasoning, content)
        if not delta and all(name in ("index", "delta") or _is_empty(choice, name) for name in choice):
            return {}
        return {**choice, "delta": _raw(delta)}

    def _parted(self, choice: Fields) -> Fields:
        """A whole choice with its message's text parted; the same object where nothing changes."""
        message = _fields(choice, "message")
        is_named = self._name(message)
        text = _text(message, "content")
        reasoning, content = "", text
        if text and not _text(message, "reasoning_content"):
            reason = _text(choice, "finish_reason") or "stop"
            reasoning, content = part(text, reason, self._thinking, self._has_stop_words)
        if not is_named and not reasoning and content == text:
            return choice
        if reasoning:
            message["reasoning_content"] = _raw(reasoning)
        if content != text:
            message["content"] = _raw(content or ("" if _is_empty(message, "tool_calls") else None))
        return {**choice, "message": _raw(message)}

    def _name(self, fields: Fields) -> bool:
        """Give vLLM's `reasoning` under our name too; whether that was needed."""
        if not _text(fields, "reasoning") or _text(fields, "reasoning_content"):
            return False
        self._names_it = True
        fields["reasoning_content"] = fields["reasoning"]
        return True


def _write(delta: Fields, reasoning: str, content: str) -> None:
    """The first delta, the one with the role, always has content; others only where there is some."""
    if reasoning:
        delta["reasoning_content"] = _raw(reasoning)
    if content or "role" in delta:
        delta["content"] = _raw(content)
    else:
        delta.pop("content", None)


def _read(decoder: msgspec.json.Decoder[T], data: bytes | Raw) -> T:
    """A replica's JSON, or `UpstreamBroken`."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamBroken(_BROKEN) from None


def _fields(outer: Fields, name: str) -> Fields:
    return {} if _is_empty(outer, name) else _read(_object, outer[name])


def _is_empty(fields: Fields, name: str) -> bool:
    return name not in fields or bytes(fields[name]) in _NOTHING


def _text(fields: Fields, name: str) -> str:
    """A field's text; empty where it is missing, null or a list of parts."""
    is_text = name in fields and bytes(fields[name]).startswith(b'"')
    return _read(_words, fields[name]) if is_text else ""


def _raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))
