"""`POST /v1/responses`: the request, as a chat call. The answer is told by `responses_reply.py`.

Source: OpenAI's API reference, "Create a model response". Nothing is kept between calls: what asks for
that is refused, and `store` is answered with false.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from scibox.core.errors import InvalidRequest, SciBoxError
from scibox.wire import body, chat, errors, extras
from scibox.wire.face import Asked
from scibox.wire.paths import Paths

from .input import Turns
from .reply import Echo, ResponsesReply
from .request import ResponsesFormat, ResponsesReasoning, ResponsesRequest, ResponsesText, ResponsesToolChoice

# What chat calls otherwise. `messages[i]` is noted for each call.
NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "response_format.json_schema": "text.format",
    "verbosity": "text.verbosity",
    "tool_choice.function": "tool_choice",
    "logprobs": "include",
    "prompt": "input",
}
_NOT_KEPT = "Responses are not kept here: send the whole dialogue in 'input'."
REFUSED = {
    "previous_response_id": _NOT_KEPT,
    "conversation": _NOT_KEPT,
    "prompt": "Stored prompts are not kept here: send 'instructions' and 'input'.",
    "background": "Answers are not made in the background: leave it out, and stream a long answer.",
    "context_management": "The dialogue is not shortened here: shorten 'input' yourself.",
    "moderation": "Nothing moderates here: leave it out.",
}


class _Items(Struct):
    input: str | list[Raw]


KNOWN = frozenset(ResponsesRequest.__struct_fields__)
# Passed to chat under the same name and with the same meaning.
_SAME = ("model", "temperature", "top_p", "parallel_tool_calls", "stream", "metadata", "user")
_SAME_TOO = ("safety_identifier", "prompt_cache_key", "service_tier")
_decoder = msgspec.json.Decoder(ResponsesRequest)
_items = msgspec.json.Decoder(_Items)


class Responses:
    """The face of the Responses API."""

    def parse(self, request_id: str, raw: bytes) -> Asked:
        """Bytes to a chat call."""
        request, fields = body.decode(raw, _decoder)
        body.refuse_unknown(fields, KNOWN | extras.NAMES, NAMES)
        _refuse_kept(request)
        paths = Paths(NAMES)
        translated = _translate(request, raw, fields, paths)
        try:
            call = chat.parse(request_id, body.encode(translated))
        except InvalidRequest as error:
            raise paths.tell(error) from None
        reply = ResponsesReply(request_id, _echo(request), as_summary=_wants_summary(request))
        return Asked(call, reply, paths)

    def error(self, error: SciBoxError, request_id: str) -> bytes:
        """OpenAI's shape, with this API's names."""
        return errors.render(error)


def _wants_summary(request: ResponsesRequest) -> bool:
    """Whether the reasoning is to be told as a summary."""
    options = request.reasoning
    return options is not None and (options.summary or options.generate_summary) is not None


def _refuse_kept(request: ResponsesRequest) -> None:
    for name, reason in REFUSED.items():
        if getattr(request, name) not in (None, False):
            raise InvalidRequest(
                f"'{name}' is not supported. {reason}", param=name, code="unsupported_parameter"
            )
    if request.truncation == "auto":
        raise InvalidRequest(
            "'truncation': 'auto' is not supported: shorten 'input' yourself when it does not fit.",
            param="truncation",
            code="unsupported_parameter",
        )


def _translate(
    request: ResponsesRequest, raw: bytes, fields: dict[str, bytes], paths: Paths
) -> dict[str, bytes]:
    """The fields of the chat call; `paths` learns where they stood."""
    told = {name: fields[name] for name in (*_SAME, *_SAME_TOO) if fields.get(name, b"null") != b"null"}
    told |= {name: value for name, value in fields.items() if name in extras.NAMES}
    own: dict[str, Any] = {
        "messages": _messages(request, raw, paths),
        "max_completion_tokens": request.max_output_tokens,
        "reasoning_effort": request.reasoning.effort if request.reasoning else None,
        "response_format": _format(request.text.format if request.text else None),
        "verbosity": request.text.verbosity if request.text else None,
        **_tools(request, paths),
    }
    if "message.output_text.logprobs" in (request.include or ()) or request.top_logprobs:
        own |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
    if request.stream:
        own["stream_options"] = {"include_usage": True}
    encode = msgspec.json.encode
    return told | {name: encode(value) for name, value in own.items() if value is not None}


def _messages(request: ResponsesRequest, raw: bytes, paths: Paths) -> list[dict[str, Any]]:
    turns = Turns(paths)
    if request.instructions:
        turns.add({"role": "system", "content": request.instructions}, "instructions")
    items = _items.decode(raw).input
    if isinstance(items, str):
        turns.add({"role": "user", "content": items}, "input")
    else:
        if not items:
            raise InvalidRequest("'input' is empty; give a text or at least one item.", param="input")
        for index, item in enumerate(items):
            turns.take(f"input[{index}]", item)
    return turns.messages


def _format(wanted: ResponsesFormat | None) -> dict[str, Any] | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "json_object"}
    if wanted.name is None or wanted.schema is None:
        missing = "name" if wanted.name is None else "schema"
        raise InvalidRequest(f"Missing field 'text.format.{missing}'.", param=f"text.format.{missing}")
    named = {"name": wanted.name, "schema": wanted.schema}
    more = {"description": wanted.description, "strict": wanted.strict}
    given = {name: value for name, value in more.items() if value is not None}
    return {"type": "json_schema", "json_schema": {**named, **given}}


def _tools(request: ResponsesRequest, paths: Paths) -> dict[str, Any]:
    """`tools` and `tool_choice` of chat."""
    allowed, choice = _choice(request)
    tools: list[dict[str, Any]] = []
    names: set[str] = set()
    for index, tool in enumerate(request.tools or []):
        where = f"tools[{index}]"
        if tool.type != "function":
            raise InvalidRequest(
                f"'{where}' is the built-in tool '{tool.type[:80]}', which this server does not have; "
                "only tools of type 'function' work here.",
                param=f"{where}.type",
                code="unsupported_tool",
            )
        if tool.name is None:
            raise InvalidRequest(f"Missing field '{where}.name'.", param=f"{where}.name")
        if allowed is not None and tool.name not in allowed:
            continue
        paths.note(f"tools[{len(tools)}]", where)
        paths.note(f"tools[{len(tools)}].function", where)
        more = {"description": tool.description, "parameters": tool.parameters, "strict": tool.strict}
        given = {name: value for name, value in more.items() if value is not None}
        names.add(tool.name)
        tools.append({"type": "function", "function": {"name": tool.name, **given}})
    for name in allowed or ():
        if name not in names:
            raise _no_such_tool(name, "tool_choice.tools")
    return {"tools": tools or None, "tool_choice": choice}


def _choice(request: ResponsesRequest) -> tuple[list[str] | None, str | dict[str, Any] | None]:
    """The names of the tools that may be used (None: all), and chat's `tool_choice`."""
    choice = request.tool_choice
    if not isinstance(choice, ResponsesToolChoice):
        return None, choice
    if choice.type == "function":
        if choice.name is None:
            raise InvalidRequest("Missing field 'tool_choice.name'.", param="tool_choice.name")
        if choice.name not in [tool.name for tool in request.tools or []]:
            raise _no_such_tool(choice.name, "tool_choice.name")
        return None, {"type": "function", "function": {"name": choice.name}}
    if choice.type == "allowed_tools":
        names = [str(tool.get("name")) for tool in choice.tools or []]
        if not names:
            raise InvalidRequest("'tool_choice.tools' is empty; name a tool.", param="tool_choice.tools")
        return names, choice.mode or "auto"
    raise InvalidRequest(
        f"'tool_choice.type' '{choice.type[:80]}' is not supported: use 'function' or 'allowed_tools'.",
        param="tool_choice.type",
        code="unsupported_tool",
    )


def _no_such_tool(name: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"'{param}' names '{name[:80]}', which is not in 'tools'.", param=param)


def _echo(request: ResponsesRequest) -> Echo:
    """What the response repeats of its request."""
    options, text = request.reasoning or ResponsesReasoning(), request.text or ResponsesText()
    choice = request.tool_choice
    return Echo(
        model=request.model,
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        metadata=request.metadata or {},
        parallel_tool_calls=request.parallel_tool_calls is not False,
        prompt_cache_key=request.prompt_cache_key,
        reasoning={"effort": options.effort, "summary": options.summary or options.generate_summary},
        safety_identifier=request.safety_identifier,
        temperature=request.temperature,
        text={
            "format": _set_fields(text.format or ResponsesFormat("text")),
            "verbosity": text.verbosity or "medium",
        },
        tool_choice=_set_fields(choice) if isinstance(choice, ResponsesToolChoice) else choice or "auto",
        tools=[msgspec.to_builtins(tool) for tool in request.tools or []],
        top_logprobs=request.top_logprobs or 0,
        top_p=request.top_p,
        user=request.user,
    )


def _set_fields(record: Struct) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(record).items() if value is not None}
