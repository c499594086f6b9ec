"""The messages of a chat: one record for each role, with what OpenAI's reference allows it.

Calls that assistant messages hold and tool messages answer are checked here too: a chat template that is
handed arguments which are no JSON fails inside the engine.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from scibox.core.errors import InvalidRequest

from .body import Strict

# `{"role":"user","content":""}`: of this, nothing is said; no message is shorter.
LEAST_MESSAGE_BYTES = 28
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Id = Annotated[str, Meta(min_length=1, max_length=256)]


class TextPart(Strict, frozen=True):
    """A text part of a message."""

    type: Literal["text"]
    text: str


class SaidPart(Strict, frozen=True, tag_field="type", tag="text"):
    """Text that the model answered earlier."""

    text: str


class RefusalPart(Strict, frozen=True, tag_field="type", tag="refusal"):
    """A refusal that the model answered earlier."""

    refusal: str


Content: TypeAlias = str | Annotated[list[TextPart], Meta(min_length=1)]
AssistantContent: TypeAlias = str | Annotated[list[SaidPart | RefusalPart], Meta(min_length=1)]


class CalledFunction(Strict, frozen=True):
    """Which function was called, and with what: `arguments` is a JSON object in a string."""

    name: Name
    arguments: str


class ToolCall(Strict, frozen=True):
    """A tool call that the model made earlier."""

    id: Id
    type: Literal["function"]
    function: CalledFunction
    index: int | None = None  # left over from a stream's deltas


class SystemMessage(Strict, frozen=True, tag_field="role", tag="system"):
    """Instructions."""

    content: Content
    name: Name | None = None


class DeveloperMessage(Strict, frozen=True, tag_field="role", tag="developer"):
    """Instructions, as newer clients send them."""

    content: Content
    name: Name | None = None


class UserMessage(Strict, frozen=True, tag_field="role", tag="user"):
    """What the user says."""

    content: Content
    name: Name | None = None


class AssistantMessage(Strict, frozen=True, tag_field="role", tag="assistant"):
    """What the model said; as the last message, it is continued."""

    content: AssistantContent | None = None
    name: Name | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: CalledFunction | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    annotations: Annotated[list[None], Meta(max_length=0)] | None = None
    audio: None = None


class ToolMessage(Strict, frozen=True, tag_field="role", tag="tool"):
    """The result of the tool call that `tool_call_id` names."""

    content: Content
    tool_call_id: Id
    name: Name | None = None


class FunctionMessage(Strict, frozen=True, tag_field="role", tag="function"):
    """The result of a call of `function_call`, the older kind."""

    content: Content
    name: Name


Message: TypeAlias = (
    SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage
)


def check(messages: list[Message]) -> None:
    """Raise `InvalidRequest` where messages lack something or do not fit each other."""
    called: set[str] = set()
    for index, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            _check_assistant(message, f"messages[{index}]", called)
        elif isinstance(message, ToolMessage) and message.tool_call_id not in called:
            where = f"messages[{index}].tool_call_id"
            raise InvalidRequest(
                f"'{where}' is '{message.tool_call_id[:80]}'; no earlier assistant message made that call.",
                param=where,
            )


def text(messages: list[Message]) -> str:
    """The text of the messages in one piece, without names and calls."""
    texts: list[str] = []
    for message in messages:
        content = message.content
        if isinstance(content, str):
            texts.append(content)
        elif content is not None:
            texts += [part.refusal if isinstance(part, RefusalPart) else part.text for part in content]
    return "".join(texts)


def most_bytes(raw: bytes, messages: list[Message]) -> int:
    """UTF-8 bytes of everything that is said in messages, at most; `raw` is their JSON.

    JSON never writes a character in fewer bytes than UTF-8. Only where it writes them in six (`\\u0434`) is a
    closer look worth while. (Looking for one byte first is ten times faster than for two.)
    """
    is_escaped = b"\\" in raw and b"\\u" in raw
    said = len(msgspec.json.encode(messages)) if is_escaped else len(raw)
    return said - LEAST_MESSAGE_BYTES * len(messages)


def _check_assistant(message: AssistantMessage, where: str, called: set[str]) -> None:
    calls = message.tool_calls or ()
    if message.content is None and not (calls or message.function_call or message.refusal):
        raise InvalidRequest(
            f"'{where}.content' is missing; give the text of the assistant message.",
            param=f"{where}.content",
        )
    for index, call in enumerate(calls):
        called.add(call.id)
        _check_arguments(call.function, f"{where}.tool_calls[{index}].function")
    if message.function_call is not None:
        _check_arguments(message.function_call, f"{where}.function_call")


def _check_arguments(called: CalledFunction, where: str) -> None:
    """The arguments are a JSON object, as chat templates expect."""
    try:
        is_object = isinstance(msgspec.json.decode(called.arguments), dict)
    except (msgspec.DecodeError, RecursionError):
        is_object = False
    if not is_object:
        raise InvalidRequest(
            f"'{where}.arguments' must be a JSON object in a string, such as \"{{}}\".",
            param=f"{where}.arguments",
        )
