"""`POST /v1/chat/completions`: the request as clients send it and as replicas get it.

Fields and ranges: OpenAI's API reference, "Create chat completion"; `extras.py` has what vLLM and llama.cpp
add to them. The description of each field begins with what is done with it
(`wire/document/parameters.py`): the page of the API is compared with it.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from scibox.core.errors import InvalidRequest
from scibox.core.types import Call

from . import body, extras, formats, messages, tools
from .body import Strict
from .constraints import bounds
from .messages import Message
from .tools import ToolChoice, Tools

Penalty = Annotated[float, Meta(ge=-2, le=2)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Stop = Annotated[str, Meta(min_length=1, max_length=512)]
Label = Annotated[str, Meta(max_length=512)]


class StreamOptions(Strict, frozen=True):
    """Options of a streamed answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class PromptCacheOptions(Strict, frozen=True):
    """How OpenAI caches prompts."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: Label | None = None


class Prediction(Strict, frozen=True):
    """Text that the answer will resemble."""

    type: Literal["content"]
    content: messages.Content


class ChatRequest(Struct):
    """Create a chat completion."""

    model: Annotated[
        str, Meta(min_length=1, max_length=256, description="Honoured. A name from `GET /v1/models`.")
    ]
    messages: Annotated[
        list[Message],
        Meta(
            min_length=1, description="Honoured. The dialogue so far; text only, no images, sound or files."
        ),
    ]
    max_tokens: Annotated[Count | None, Meta(description="Honoured. LLM tokens to generate at most.")] = None
    max_completion_tokens: Annotated[
        Count | None, Meta(description="Honoured. The newer name of `max_tokens`; both may stand if equal.")
    ] = None
    temperature: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | None,
        Meta(description="Honoured. 0 to 2; with 0 the same call gives the same text."),
    ] = None
    top_p: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None, Meta(description="Honoured. Over 0, up to 1.")
    ] = None
    n: Annotated[
        Annotated[int, Meta(ge=1, le=128)] | None, Meta(description="Honoured. 1 to 128 answers.")
    ] = None
    stop: Annotated[
        Stop | Annotated[list[Stop], Meta(min_length=1, max_length=4)] | None,
        Meta(description="Honoured. A text, or one to four, of up to 512 characters each."),
    ] = None
    seed: Annotated[
        Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None,
        Meta(description="Honoured. 64 bits, signed."),
    ] = None
    frequency_penalty: Annotated[Penalty | None, Meta(description="Honoured. -2 to 2.")] = None
    presence_penalty: Annotated[Penalty | None, Meta(description="Honoured. -2 to 2.")] = None
    logit_bias: Annotated[
        Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)] | None,
        Meta(description="Honoured. The model's own LLM token ids, as strings, to -100..100; up to 1,024."),
    ] = None
    logprobs: Annotated[
        bool | None,
        Meta(
            description="Honoured. By llama.cpp not together with `stop` or tools, and without the pieces of "
            "a character that several LLM tokens make."
        ),
    ] = None
    top_logprobs: Annotated[
        Annotated[int, Meta(ge=0, le=20)] | None, Meta(description="Honoured. 0 to 20; needs `logprobs`.")
    ] = None
    stream: Annotated[bool | None, Meta(description="Honoured. Answer as server-sent events.")] = None
    stream_options: Annotated[
        StreamOptions | None,
        Meta(
            description="Honoured. `include_usage`: one more event with the usage. `include_obfuscation` has "
            "no effect: nothing is ever added to events. Needs `stream`."
        ),
    ] = None
    response_format: Annotated[
        formats.ResponseFormat | None,
        Meta(
            description="Honoured. text, json_object, json_schema; enforced while decoding, `strict` or not. "
            "A schema that cannot be enforced is refused, naming the keyword."
        ),
    ] = None
    tools: Annotated[
        Tools | None,
        Meta(description="Honoured. Functions, up to 128; other kinds of tools are refused."),
    ] = None
    tool_choice: Annotated[
        ToolChoice | None,
        Meta(
            description="Honoured. none, auto, required, or a function by name; `allowed_tools` is refused."
        ),
    ] = None
    parallel_tool_calls: Annotated[
        bool | None,
        Meta(
            description="Honoured. With false, one call at most; where the gateway forces a call (llama.cpp) "
            "it is one unless this is true."
        ),
    ] = None
    reasoning_effort: Annotated[
        Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None,
        Meta(description="Passed on. What it means is the model's; a model that does not reason ignores it."),
    ] = None
    verbosity: Annotated[
        Literal["low", "medium", "high"] | None,
        Meta(description="Passed on. Models that know it are OpenAI's; others ignore it."),
    ] = None
    user: Annotated[Label | None, Meta(description="No effect. Calls are accounted to the key.")] = None
    metadata: Annotated[
        Annotated[
            dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
            Meta(max_length=16),
        ]
        | None,
        Meta(description="No effect. Checked (16 pairs, 64 and 512 characters), not kept."),
    ] = None
    store: Annotated[
        Literal[False] | None, Meta(description="Refused. No answers are kept; false may stand.")
    ] = None
    service_tier: Annotated[
        Literal["auto", "default", "flex"] | None,
        Meta(description="Honoured. auto, default; flex: other calls come first, as before a batch."),
    ] = None
    prompt_cache_key: Annotated[
        Label | None, Meta(description="No effect. Prompts are cached where that helps.")
    ] = None
    prompt_cache_retention: Annotated[
        Literal["in_memory", "24h"] | None, Meta(description="No effect. As `prompt_cache_key`.")
    ] = None
    prompt_cache_options: Annotated[
        PromptCacheOptions | None, Meta(description="No effect. As `prompt_cache_key`.")
    ] = None
    safety_identifier: Annotated[
        Label | None, Meta(description="No effect. Calls are accounted to the key.")
    ] = None
    prediction: Annotated[
        Prediction | None, Meta(description="No effect. It could only make the answer come sooner.")
    ] = None
    modalities: Annotated[
        Annotated[list[Literal["text"]], Meta(max_length=1)] | None,
        Meta(description='Refused. Models here answer with text; ["text"] may stand.'),
    ] = None
    audio: Annotated[None, Meta(description="Refused. Models here answer with text.")] = None
    web_search_options: Annotated[None, Meta(description="Refused. There is no search here.")] = None
    moderation: Annotated[None, Meta(description="Refused. There is no moderation model here.")] = None
    functions: Annotated[None, Meta(description="Refused. The older name of `tools`.")] = None
    function_call: Annotated[None, Meta(description="Refused. The older name of `tool_choice`.")] = None


PATH = "/chat/completions"
KNOWN = frozenset(ChatRequest.__struct_fields__)
_ACCEPTED = KNOWN | extras.NAMES
# What concerns OpenAI's own service, and what has been checked to ask for nothing.
_KEPT_HERE = frozenset(
    {
        *("store", "service_tier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
        *("safety_identifier", "metadata", "prediction", "modalities", "audio", "web_search_options"),
        *("moderation", "functions", "function_call"),
    }
)
_SAY_INSTEAD = {
    "store": "Answers are not stored here; leave 'store' out or send false.",
    "service_tier": '\'service_tier\' is "auto", "default" or "flex" here (other calls come first).',
    "modalities": "Models here answer with text only; send [\"text\"] or leave 'modalities' out.",
    "audio": "Models here answer with text only; leave 'audio' out.",
    "web_search_options": "There is no web search here; leave 'web_search_options' out.",
    "moderation": "There is no moderation model here; leave 'moderation' out.",
    "functions": "'functions' is the older name of 'tools', which is supported: "
    '[{"type": "function", "function": {...}}].',
    "function_call": "'function_call' is the older name of 'tool_choice', which is supported.",
}
_PART = re.compile(r"^(messages\[\d+\]\.content\[\d+\])\.type$")
_TOOL = re.compile(r"^(?:tools\[\d+\]|tool_choice|messages\[\d+\]\.tool_calls\[\d+\])\.type$")
_WHITE = b" \t\n\r\v\f"
_decoder = msgspec.json.Decoder(ChatRequest)
_messages = msgspec.json.Decoder(list[Message])


def parse(request_id: str, raw: bytes) -> Call:
    """Bytes to a call; `InvalidRequest` names the field at fault."""
    try:
        request, fields = body.decode(raw, _decoder)
    except InvalidRequest as error:
        raise _in_other_words(error) from None
    body.refuse_unknown(fields, _ACCEPTED)
    messages.check(request.messages)
    _check(request)
    tools.check(request.tools, request.tool_choice)
    extras.check(fields)
    bounds.check(fields)
    options = request.stream_options
    return Call(
        request_id=request_id,
        kind="chat",
        model=request.model,
        path=PATH,
        fields=fields,
        stream=bool(request.stream),
        wants_usage=bool(options and options.include_usage),
        text_bytes=messages.most_bytes(fields["messages"], request.messages) + len(fields.get("tools", b"")),
        items=len(request.messages),
        n=request.n or 1,
        is_background=request.service_tier == "flex",
        max_tokens=request.max_completion_tokens or request.max_tokens,
    )


def render(call: Call, model: str, *, has_newer_limit: bool = False) -> bytes:
    """The body for a replica that knows the model as `model`.

    `has_newer_limit`: OpenAI's models that reason refuse `max_tokens`; all of them take the newer name.
    """
    fields = outgoing(call, model)
    if has_newer_limit and (limit := fields.pop("max_tokens", None)) is not None:
        fields["max_completion_tokens"] = limit
    return body.encode(fields)


def outgoing(call: Call, model: str) -> dict[str, bytes]:
    """The fields for a replica that knows the model as `model`; usage is always asked for, to account."""
    fields = {name: raw for name, raw in call.fields.items() if name not in _KEPT_HERE and raw != b"null"}
    fields["model"] = msgspec.json.encode(model)
    limit = fields.pop("max_completion_tokens", None)
    if limit is not None:
        fields["max_tokens"] = limit
    if call.stream:
        fields["stream_options"] = b'{"include_usage":true}'
    else:
        fields.pop("stream_options", None)
    return fields


def parts(texts: list[str]) -> str | list[dict[str, str]]:
    """The content of a message that has these texts."""
    return texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]


def least_bytes(call: Call) -> int:
    """UTF-8 bytes of what a call's messages say without white space; for calls that may not fit.

    0 for messages that a face has put into words which chat completions do not have.
    """
    try:
        return solid_bytes(messages.text(_messages.decode(call.fields["messages"])))
    except msgspec.ValidationError:
        return 0


def solid_bytes(text: str) -> int:
    """UTF-8 bytes of a text without ASCII white space."""
    return len(text.encode().translate(None, _WHITE))


def _check(request: ChatRequest) -> None:
    """What one field asks of another."""
    if request.top_logprobs is not None and not request.logprobs:
        raise InvalidRequest("'top_logprobs' needs 'logprobs': true.", param="top_logprobs")
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest("'stream_options' needs 'stream': true.", param="stream_options")
    newer = request.max_completion_tokens
    if newer is not None and request.max_tokens not in {None, newer}:
        raise InvalidRequest(
            "'max_tokens' and 'max_completion_tokens' differ; send one of them.",
            param="max_completion_tokens",
        )
    for name in request.logit_bias or ():
        if not (name.isascii() and name.isdigit() and len(name) <= 9):
            raise InvalidRequest(
                f"'logit_bias' has the key '{name[:80]}'; keys are the model's LLM token ids, as digits.",
                param="logit_bias",
            )


def _in_other_words(error: InvalidRequest) -> InvalidRequest:
    """A sentence that helps more than the type that was expected."""
    param = error.param or ""
    part = _PART.match(param)
    if part:
        said = (
            f"'{part[1]}' is not text: this service's models take text only. Send parts of "
            '{"type": "text", "text": ...}.'
        )
    elif _TOOL.match(param):
        said = f'\'{param}\' is not supported: functions are the only tools here. Send "type": "function".'
    else:
        said = _SAY_INSTEAD.get(param.partition(".")[0].partition("[")[0], "")
    return InvalidRequest(said, param=param, code="unsupported_value") if said else error
