"""The messages of an Anthropic call and their blocks, as messages of a chat call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw, Struct

from scibox.core.errors import InvalidRequest
from scibox.wire import body, chat
from scibox.wire.paths import Paths

Blocks = str | list[Raw]


class _Kind(Struct):
    type: str


class _Text(Struct):
    text: str


class _Thinking(Struct):
    thinking: str


class _ToolUse(Struct):
    id: str
    name: str
    input: dict[str, Any]


class _ToolResult(Struct):
    tool_use_id: str
    content: str | list[Raw] | None = None
    is_error: bool | None = None


_contents = msgspec.json.Decoder(Blocks)
_kinds = msgspec.json.Decoder(_Kind)
_texts = msgspec.json.Decoder(_Text)
_thinkings = msgspec.json.Decoder(_Thinking)
_tool_uses = msgspec.json.Decoder(_ToolUse)
_tool_results = msgspec.json.Decoder(_ToolResult)


class Turns:
    """Collects the messages of the chat call."""

    def __init__(self, paths: Paths) -> None:
        self.messages: list[dict[str, Any]] = []
        self._paths = paths
        self._tool_use_ids: set[str] = set()

    def take(self, where: str, role: str, content: Raw) -> None:
        """One message; its content stands at `where`."""
        blocks = body.decode_at(where, content, _contents)
        if isinstance(blocks, str):
            self._add(where, {"role": role, "content": blocks})
            return
        if not blocks:
            raise InvalidRequest(f"'{where}' is empty; give at least one block.", param=where)
        turn: dict[str, Any] = {"role": role, "content": []}
        for index, block in enumerate(blocks):
            self._block(f"{where}[{index}]", block, turn)
        texts = turn["content"]
        if texts or role != "user":  # a user message of tool results alone has become tool messages
            turn["content"] = chat.parts(texts) if texts else (None if "tool_calls" in turn else "")
            self._add(where, turn)

    def _block(self, where: str, block: Raw, turn: dict[str, Any]) -> None:
        kind, role = body.decode_at(where, block, _kinds).type, turn["role"]
        match kind, role:
            case "text", _:
                turn["content"].append(body.decode_at(where, block, _texts).text)
            case "tool_use", "assistant":
                self._tool_use(where, block, turn)
            case "tool_result", "user":
                self._tool_result(where, body.decode_at(where, block, _tool_results))
            case "thinking", "assistant":
                thought = body.decode_at(where, block, _thinkings).thinking
                turn["reasoning_content"] = turn.get("reasoning_content", "") + thought
            case "redacted_thinking", "assistant":
                return  # holds nothing that a model here could read
            case (("tool_use" | "tool_result" | "thinking" | "redacted_thinking"), _):
                other = "user" if kind == "tool_result" else "assistant"
                raise InvalidRequest(
                    f"'{where}' is a {kind} block, which belongs into a message of the {other}'s.",
                    param=where,
                )
            case _:
                raise InvalidRequest(
                    f"'{where}' is of the type '{kind[:80]}', which this server does not have; it takes "
                    "text, tool_use, tool_result and thinking.",
                    param=f"{where}.type",
                    code="unsupported_content",
                )

    def _tool_use(self, where: str, block: Raw, turn: dict[str, Any]) -> None:
        use = body.decode_at(where, block, _tool_uses)
        self._tool_use_ids.add(use.id)
        calls = turn.setdefault("tool_calls", [])
        place = f"messages[{len(self.messages)}].tool_calls[{len(calls)}]"
        self._paths.note(place, where)
        self._paths.note(f"{place}.function", where)
        self._paths.note(f"{place}.function.arguments", f"{where}.input")
        arguments = msgspec.json.encode(use.input).decode()
        calls.append(
            {"id": use.id, "type": "function", "function": {"name": use.name, "arguments": arguments}}
        )

    def _tool_result(self, where: str, result: _ToolResult) -> None:
        if result.tool_use_id not in self._tool_use_ids:
            raise InvalidRequest(
                f"'{where}.tool_use_id' answers a tool_use that is not in the messages before it.",
                param=f"{where}.tool_use_id",
            )
        content = result.content or ""
        texts = [content] if isinstance(content, str) else list(_texts_of(where, content))
        if result.is_error:  # chat has no other way to say it
            texts[0] = f"Error: {texts[0]}"
        told = {"role": "tool", "tool_call_id": result.tool_use_id, "content": chat.parts(texts)}
        self._add(where, told)

    def _add(self, where: str, message: dict[str, Any]) -> None:
        place = f"messages[{len(self.messages)}]"
        self._paths.note(place, where.removesuffix(".content"))
        self._paths.note(f"{place}.content", where)
        self.messages.append(message)


def _texts_of(where: str, blocks: list[Raw]) -> Iterator[str]:
    for index, block in enumerate(blocks):
        at = f"{where}.content[{index}]"
        kind = body.decode_at(at, block, _kinds).type
        if kind != "text":
            raise InvalidRequest(
                f"'{at}' is of the type '{kind[:80]}'; the models here read text only.",
                param=f"{at}.type",
                code="unsupported_content",
            )
        yield body.decode_at(at, block, _texts).text
