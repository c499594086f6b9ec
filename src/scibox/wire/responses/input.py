"""The items of a Responses call's `input`, as messages of a chat call."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from scibox.core.errors import InvalidRequest
from scibox.wire import body, chat
from scibox.wire.paths import Paths


class _Kind(Struct):
    type: str | None = None
    role: str | None = None


class _Part(Struct):
    type: str
    text: str | None = None
    refusal: str | None = None


class _Message(Struct):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[_Part]


class _FunctionCall(Struct):
    call_id: str
    name: str
    arguments: str


class _Output(Struct):
    call_id: str
    output: str | list[_Part]


class _Text(Struct):
    text: str


class _Reasoning(Struct):
    content: list[_Text] | None = None
    summary: list[_Text] | None = None


_kinds = msgspec.json.Decoder(_Kind)
_messages = msgspec.json.Decoder(_Message)
_calls = msgspec.json.Decoder(_FunctionCall)
_outputs = msgspec.json.Decoder(_Output)
_reasonings = msgspec.json.Decoder(_Reasoning)


class Turns:
    """Collects the messages. What the model said in one turn (reasoning, text, calls) becomes one message."""

    def __init__(self, paths: Paths) -> None:
        self.messages: list[dict[str, Any]] = []
        self._paths = paths
        self._reasoning = ""  # of the turn whose other items are still to come
        self._call_ids: set[str] = set()

    def add(self, message: dict[str, Any], where: str) -> None:
        """One message, whose content stands at `where`."""
        self._paths.note(f"messages[{len(self.messages)}]", where)
        if where in {"instructions", "input"}:
            self._paths.note(f"messages[{len(self.messages)}].content", where)
        self.messages.append(message)

    def take(self, where: str, item: Raw) -> None:
        """One item of the input."""
        kind = body.decode_at(where, item, _kinds)
        match kind.type or ("message" if kind.role else None):
            case "message":
                self._message(where, body.decode_at(where, item, _messages))
            case "function_call":
                self._function_call(where, body.decode_at(where, item, _calls))
            case "function_call_output":
                self._output(where, body.decode_at(where, item, _outputs))
            case "reasoning":
                thought = body.decode_at(where, item, _reasonings)
                self._reasoning += "".join(part.text for part in thought.content or thought.summary or [])
            case "item_reference":
                raise InvalidRequest(
                    f"'{where}' refers to an item, but items are not kept here; send the item itself.",
                    param=where,
                    code="unsupported_item",
                )
            case None:
                raise InvalidRequest(f"Missing field '{where}.type'.", param=f"{where}.type")
            case other:
                raise InvalidRequest(
                    f"'{where}' is of the type '{other[:80]}', which this server does not have; it takes "
                    "message, function_call, function_call_output and reasoning.",
                    param=f"{where}.type",
                    code="unsupported_item",
                )

    def _message(self, where: str, message: _Message) -> None:
        told: dict[str, Any] = {"role": message.role, "content": _content(where, message.content)}
        if message.role == "assistant":
            told |= self._taken_reasoning()
        self.add(told, where)

    def _function_call(self, where: str, call: _FunctionCall) -> None:
        self._call_ids.add(call.call_id)
        told = {
            "id": call.call_id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.add({"role": "assistant", "content": None, **self._taken_reasoning()}, where)
        calls = self.messages[-1].setdefault("tool_calls", [])
        place = f"messages[{len(self.messages) - 1}].tool_calls[{len(calls)}]"
        self._paths.note(place, where)
        self._paths.note(f"{place}.function", where)
        self._paths.note(f"{place}.id", f"{where}.call_id")
        calls.append(told)

    def _output(self, where: str, output: _Output) -> None:
        if output.call_id not in self._call_ids:
            raise InvalidRequest(
                f"'{where}.call_id' answers a call that is not in 'input' before it; send that too.",
                param=f"{where}.call_id",
            )
        content = _content(where, output.output, "output")
        self.add({"role": "tool", "tool_call_id": output.call_id, "content": content}, where)
        self._paths.note(f"messages[{len(self.messages) - 1}].content", f"{where}.output")

    def _taken_reasoning(self) -> dict[str, str]:
        taken, self._reasoning = self._reasoning, ""
        return {"reasoning_content": taken} if taken else {}


def _content(where: str, content: str | list[_Part], name: str = "content") -> str | list[dict[str, str]]:
    """Chat's content: a text, or several."""
    if isinstance(content, str):
        return content
    if not content:
        raise InvalidRequest(f"'{where}.{name}' is empty; give at least one part.", param=f"{where}.{name}")
    texts = [_text(f"{where}.{name}[{index}]", part) for index, part in enumerate(content)]
    return chat.parts(texts)


def _text(where: str, part: _Part) -> str:
    text = part.refusal if part.type == "refusal" else part.text
    if part.type not in {"input_text", "output_text", "text", "refusal"}:
        raise InvalidRequest(
            f"'{where}' is of the type '{part.type[:80]}'; the models here read text only.",
            param=f"{where}.type",
            code="unsupported_content",
        )
    if text is None:
        name = "refusal" if part.type == "refusal" else "text"
        raise InvalidRequest(f"Missing field '{where}.{name}'.", param=f"{where}.{name}")
    return text
