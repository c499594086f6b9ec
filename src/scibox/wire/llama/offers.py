"""The tools that a call offers to the model, and how they are told to a model whose template shows none.

The form is the one most open models were trained on (Nous Research's Hermes, Qwen): calls between
`<tool_call>` and `</tool_call>`, results between `<tool_response>` and `</tool_response>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from scibox.wire.constraints.grammar import CALL_BEGINS, CALL_ENDS, MAX_CALLS
from scibox.wire.tools import NamedChoice, ToolChoice, Tools
from scibox.wire.tools import Tool as Given

_ARGUMENTS = '"arguments": '  # as signs of a template's text; others write parameters in tags


@dataclass(frozen=True, slots=True)
class Tool:
    """A function: its name, the schema of its arguments, and all of it, as JSON."""

    name: str
    parameters: bytes
    function: bytes

    @property
    def whole(self) -> bytes:
        """As OpenAI writes it."""
        return b'{"type":"function","function":' + self.function + b"}"


@dataclass(frozen=True, slots=True)
class Offer:
    """Tools, whether one must be called, and how many calls one answer may have."""

    tools: tuple[Tool, ...]
    must: bool
    most: int


_tools = msgspec.json.Decoder(Tools | None)
_choices = msgspec.json.Decoder(ToolChoice | None)


def offer(fields: Mapping[str, bytes]) -> Offer | None:
    """What a call offers; None without tools and with `tool_choice` none. The fields have been checked."""
    given: list[Given] = _tools.decode(fields.get("tools", b"null")) or []
    choice: ToolChoice | None = _choices.decode(fields.get("tool_choice", b"null"))
    if not given or choice == "none":
        return None
    must = choice == "required"
    parallel = fields.get("parallel_tool_calls", b"null")
    # A small model that must call does not stop by itself: it repeats its call until the answer is cut. So a
    # forced call is one, unless several are asked for; LangChain's standard tests want that too.
    most = MAX_CALLS if parallel == b"true" or (parallel == b"null" and not must) else 1
    if isinstance(choice, NamedChoice):
        named = choice.function.name
        return Offer(tuple(_tool(tool) for tool in given if tool.function.name == named), True, 1)
    return Offer(tuple(_tool(tool) for tool in given), must, most)


def instructions(offered: Offer) -> str:
    """What the model is told of the tools."""
    lines = "\n".join(tool.function.decode() for tool in offered.tools)
    shape = f'{CALL_BEGINS}{{"name": <name>, "arguments": <arguments as JSON>}}{CALL_ENDS}'
    if not offered.must:
        when = "If a function helps to answer, call it in this form; else answer in plain words:"
    elif len(offered.tools) == 1:
        when = f"Call the function {offered.tools[0].name} now, in this form:"
    else:
        when = "Call a function now, in this form:"
    return f"You can call these functions:\n{lines}\n{when}\n{shape}"


def is_hermes(template: str) -> bool:
    """Whether a chat template writes calls in the form that is described here."""
    return CALL_BEGINS.strip() in template and CALL_ENDS.strip() in template and _ARGUMENTS in template


def told_call(name: str, arguments: str) -> str:
    """A call of the dialogue so far, as the model would have written it."""
    return (
        f'{CALL_BEGINS}{{"name": {msgspec.json.encode(name).decode()}, "arguments": {arguments}}}{CALL_ENDS}'
    )


def told_result(text: str) -> str:
    """A tool's result, as a message of the user's."""
    return f"<tool_response>\n{text}\n</tool_response>"


def _tool(tool: Given) -> Tool:
    function = tool.function
    schema: Any = msgspec.json.decode(bytes(function.parameters) or b"null")  # Any: a JSON schema
    # Without parameters there are no arguments; a schema that says only "object" leaves them free.
    parameters = {"type": "object"} | (schema or {"properties": {}})
    told = {"name": function.name, "description": function.description, "parameters": parameters}
    shown = {name: value for name, value in told.items() if value is not None}
    return Tool(function.name, msgspec.json.encode(parameters), msgspec.json.encode(shown))
