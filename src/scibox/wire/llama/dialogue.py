"""The messages of a chat as llama-server's templates can show them."""

from __future__ import annotations

from itertools import groupby
from typing import TypeAlias, cast

import msgspec

from scibox.wire import messages
from scibox.wire.messages import (
    AssistantMessage,
    DeveloperMessage,
    FunctionMessage,
    Message,
    RefusalPart,
    SystemMessage,
    ToolMessage,
    UserMessage,
)

from .offers import told_call, told_result

Shown: TypeAlias = dict[str, object]  # a message as it is sent

_decoder = msgspec.json.Decoder(list[Message])


def render(raw: bytes, *, has_tools: bool, instructions: str | None) -> tuple[bytes, str]:
    """The messages, and the text of a last one that the model is to continue.

    Roles, parts and calls become what the template knows; `instructions` join the system message.
    """
    given = _decoder.decode(raw)
    last = given[-1]
    prefix = _text(last) if isinstance(last, AssistantMessage) and not _calls(last) else ""
    # Clients send answers back with every field that they read; llama-server fails at some nulls (500).
    if instructions is None and b"null" not in raw and all(_is_plain(message) for message in given):
        return raw, prefix  # a prompt is not encoded again without need
    shown: list[Shown] = []
    for are_results, group in groupby(given, lambda one: isinstance(one, ToolMessage | FunctionMessage)):
        if are_results and not has_tools:  # in one message: many templates want the roles to alternate
            results = "\n".join(told_result(_text(message)) for message in group)
            shown.append({"role": "user", "content": results})
        else:
            shown.extend(_shown(message, has_tools=has_tools) for message in group)
    if instructions is not None:
        _instruct(shown, instructions)
    return msgspec.json.encode(shown), prefix


def _is_plain(message: Message) -> bool:
    return (
        isinstance(message, SystemMessage | UserMessage | AssistantMessage)
        and isinstance(message.content, str)
        and not (isinstance(message, AssistantMessage) and _calls(message))
    )


def _shown(message: Message, *, has_tools: bool) -> Shown:
    """A message in words the template knows."""
    text = _text(message)
    told = cast("Shown", msgspec.to_builtins(message))
    fields = {name: value for name, value in told.items() if value is not None}
    role = {"developer": "system", "function": "tool"}.get(str(fields["role"]), fields["role"])
    if isinstance(message, AssistantMessage) and not has_tools:
        calls = (told_call(called.name, called.arguments) for called in _calls(message))
        text = "\n".join(filter(None, [text, *calls]))
        fields.pop("tool_calls", None)
        fields.pop("function_call", None)
    return {**fields, "role": role, "content": text}


def _instruct(shown: list[Shown], instructions: str) -> None:
    first = shown[0]
    if first["role"] == "system":
        shown[0] = {**first, "content": f"{first['content']}\n\n{instructions}".strip()}
    else:
        shown.insert(0, {"role": "system", "content": instructions})


def _calls(message: AssistantMessage) -> list[messages.CalledFunction]:
    made = [call.function for call in message.tool_calls or ()]
    return made if message.function_call is None else [*made, message.function_call]


def _text(message: Message | DeveloperMessage) -> str:
    """The text of a message; parts are joined by line feeds, as llama-server and vLLM do."""
    content = message.content
    if content is None:
        return (isinstance(message, AssistantMessage) and message.refusal) or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.refusal if isinstance(part, RefusalPart) else part.text for part in content)
