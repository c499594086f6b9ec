"""`POST /v1/messages`, Anthropic's Messages API, as a chat call; `anthropic_reply.py` tells its answer.

Source: Anthropic's API reference, "Create a Message" and "Errors".
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from scibox.core.errors import InvalidRequest, SciBoxError
from scibox.core.types import Call
from scibox.wire import body, chat, extras
from scibox.wire.face import Asked
from scibox.wire.paths import Paths

from .blocks import Turns
from .reply import MessagesReply, render_error
from .request import MessagesCountRequest, MessagesRequest, MessagesToolChoice, Thinking

# What chat calls otherwise. `messages[i]` is noted for each call.
NAMES = {
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "tool_choice.function": "tool_choice",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "reasoning_effort": "output_config.effort",
    "response_format": "output_config.format",
    "response_format.json_schema": "output_config.format",
    "user": "metadata.user_id",
    "prompt": "messages",
}
REFUSED = {
    "container": "There are no containers here: leave it out.",
    "mcp_servers": "MCP servers are not called from here: call them, and send their tools in 'tools'.",
    "context_management": "The dialogue is not edited here: shorten 'messages' yourself.",
    "inference_geo": "The answer is computed where this server stands: leave it out.",
}


class _RawMessage(Struct):
    role: str
    content: Raw


class _RawBody(Struct):
    messages: list[_RawMessage]
    system: Raw = Raw(b"null")


_decoder = msgspec.json.Decoder(MessagesRequest)
_count_decoder = msgspec.json.Decoder(MessagesCountRequest)
_raw_decoder = msgspec.json.Decoder(_RawBody)
KNOWN = frozenset(MessagesRequest.__struct_fields__)
COUNT_KNOWN = frozenset(MessagesCountRequest.__struct_fields__)


class Messages:
    """The face of Anthropic's Messages API."""

    def parse(self, request_id: str, raw: bytes) -> Asked:
        """Bytes to a chat call."""
        request, fields = body.decode(raw, _decoder)
        body.refuse_unknown(fields, KNOWN | extras.NAMES, NAMES)
        for name, reason in REFUSED.items():
            if getattr(request, name) is not None:
                raise InvalidRequest(
                    f"'{name}' is not supported. {reason}", param=name, code="unsupported_parameter"
                )
        _check_thinking(request)
        paths = Paths(NAMES)
        dialogue = _dialogue(raw, paths)
        translated = _shared(request, dialogue, paths) | _own(request, fields)
        call = replace(
            _chat(request_id, translated, paths),
            wants_stop=bool(request.stop_sequences),
            thinks=None if request.thinking is None else request.thinking.type != "disabled",
        )
        return Asked(
            call, MessagesReply(request_id, request.model, shows_thinking=_shows(request.thinking)), paths
        )

    def error(self, error: SciBoxError, request_id: str) -> bytes:
        """Anthropic's shape."""
        return render_error(error, request_id)


def parse_count(request_id: str, raw: bytes) -> Call:
    """The body of `POST /v1/messages/count_tokens` as a chat call that is only counted."""
    request, fields = body.decode(raw, _count_decoder)
    body.refuse_unknown(fields, COUNT_KNOWN)
    paths = Paths(NAMES)
    return _chat(request_id, _shared(request, _dialogue(raw, paths), paths), paths)


def render_count(count: int) -> bytes:
    """How many LLM tokens a dialogue has."""
    return msgspec.json.encode({"input_tokens": count})


def _chat(request_id: str, fields: dict[str, Any], paths: Paths) -> Call:
    encoded = {name: msgspec.json.encode(value) for name, value in fields.items() if value is not None}
    try:
        return chat.parse(request_id, body.encode(encoded))
    except InvalidRequest as error:
        raise paths.tell(error) from None


def _shared(request: MessagesRequest | MessagesCountRequest, dialogue: Turns, paths: Paths) -> dict[str, Any]:
    """The fields of a chat call that counting needs too."""
    effort, wanted = None, None
    if request.output_config is not None:
        effort, wanted = request.output_config.effort, request.output_config.format
    return {
        "model": request.model,
        "messages": dialogue.messages,
        "reasoning_effort": effort,
        "response_format": wanted
        and {
            "type": "json_schema",
            "json_schema": {"name": "output", "schema": wanted.schema, "strict": True},
        },
        **_tools(request, paths),
    }


def _own(request: MessagesRequest, fields: dict[str, bytes]) -> dict[str, Any]:
    """The fields of a chat call that say how to answer."""
    return {
        **{name: Raw(value) for name, value in fields.items() if name in extras.NAMES},
        "max_completion_tokens": request.max_tokens,
        "stop": request.stop_sequences or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stream": request.stream,
        "stream_options": {"include_usage": True} if request.stream else None,
        "user": request.metadata and request.metadata.user_id,
    }


def _dialogue(raw: bytes, paths: Paths) -> Turns:
    dialogue = Turns(paths)
    read = _raw_decoder.decode(raw)
    if bytes(read.system) != b"null":
        dialogue.take("system", "system", read.system)
    for index, message in enumerate(read.messages):
        dialogue.take(f"messages[{index}].content", message.role, message.content)
    return dialogue


def _check_thinking(request: MessagesRequest) -> None:
    thinking = request.thinking
    if thinking is None or thinking.type != "enabled":
        return
    if thinking.budget_tokens is None:
        raise InvalidRequest("Missing field 'thinking.budget_tokens'.", param="thinking.budget_tokens")
    if thinking.budget_tokens >= request.max_tokens:
        raise InvalidRequest(
            "'thinking.budget_tokens' must be less than 'max_tokens', the bound of reasoning and answer.",
            param="thinking.budget_tokens",
        )


def _shows(thinking: Thinking | None) -> bool:
    """Whether the answer holds thinking blocks: only who asked for them expects them."""
    return thinking is not None and thinking.type != "disabled" and thinking.display != "omitted"


def _tools(request: MessagesRequest | MessagesCountRequest, paths: Paths) -> dict[str, Any]:
    """Chat's `tools`, `tool_choice` and `parallel_tool_calls`."""
    tools = []
    for index, tool in enumerate(request.tools or []):
        where = f"tools[{index}]"
        if tool.type not in (None, "custom"):
            raise InvalidRequest(
                f"'{where}' is the server tool '{tool.type[:80]}', which this server does not have; "
                "only tools with an 'input_schema' work here.",
                param=f"{where}.type",
                code="unsupported_tool",
            )
        for name in ("name", "input_schema"):
            if getattr(tool, name) is None:
                raise InvalidRequest(f"Missing field '{where}.{name}'.", param=f"{where}.{name}")
        paths.note(where, where)
        paths.note(f"{where}.function", where)
        paths.note(f"{where}.function.parameters", f"{where}.input_schema")
        more = {"description": tool.description, "strict": tool.strict}
        given = {name: value for name, value in more.items() if value is not None}
        function = {"name": tool.name, "parameters": tool.input_schema, **given}
        tools.append({"type": "function", "function": function})
    return {
        "tools": tools or None,
        **_choice(request.tool_choice, {tool.name for tool in request.tools or []}),
    }


def _choice(choice: MessagesToolChoice | None, names: set[str | None]) -> dict[str, Any]:
    if choice is None:
        return {}
    told: str | dict[str, Any] = {"auto": "auto", "any": "required", "none": "none", "tool": "required"}[
        choice.type
    ]
    if choice.type == "tool":
        if choice.name is None:
            raise InvalidRequest("Missing field 'tool_choice.name'.", param="tool_choice.name")
        if choice.name not in names:
            raise InvalidRequest(
                f"'tool_choice.name' is '{choice.name[:80]}', which is not in 'tools'.",
                param="tool_choice.name",
            )
        told = {"type": "function", "function": {"name": choice.name}}
    if not names:
        if choice.type in {"auto", "none"}:
            return {}
        raise InvalidRequest("'tool_choice' asks for a tool, but 'tools' has none.", param="tool_choice")
    parallel = choice.disable_parallel_tool_use
    return {"tool_choice": told, "parallel_tool_calls": None if parallel is None else not parallel}
