"""`POST /v1/chat/completions`: the request as clients send it and as replicas get it.

Fields and ranges: OpenAI's API reference, "Create chat completion"; extras: the sampling parameters that
vLLM's and llama-server's documents add to it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from scibox.core.errors import InvalidRequest
from scibox.core.types import Call

from . import body

Number = Annotated[float, Meta(ge=-2, le=2)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Stop = Annotated[str, Meta(min_length=1)]


class TextPart(Struct, tag_field="type", tag="text"):
    """A text part of a message."""

    text: str


class Message(Struct):
    """One message of the dialogue."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    function_call: dict[str, Any] | None = None
    reasoning_content: str | None = None
    refusal: str | None = None


class StreamOptions(Struct):
    """Options of a streamed answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(Struct):
    """Create a chat completion."""

    model: Annotated[str, Meta(min_length=1, max_length=256, description="A name from `GET /v1/models`.")]
    messages: Annotated[list[Message], Meta(min_length=1, description="The dialogue so far.")]
    max_tokens: Annotated[Count | None, Meta(description="LLM tokens to generate at most.")] = None
    max_completion_tokens: Annotated[Count | None, Meta(description="The newer name of `max_tokens`.")] = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=4)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    frequency_penalty: Number | None = None
    presence_penalty: Number | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    stream: Annotated[bool | None, Meta(description="Answer as server-sent events.")] = None
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    verbosity: str | None = None


KNOWN = frozenset(ChatRequest.__struct_fields__)
# Sampling and template parameters that vLLM or llama-server document; nothing that routes or names a URL.
EXTRAS = frozenset(
    {
        *("top_k", "min_p", "typical_p", "repetition_penalty", "repeat_penalty", "repeat_last_n"),
        *("mirostat", "mirostat_tau", "mirostat_eta", "dry_multiplier", "xtc_probability", "xtc_threshold"),
        *("dynatemp_range", "dynatemp_exponent", "length_penalty", "min_tokens", "ignore_eos"),
        *("stop_token_ids", "include_stop_str_in_output", "skip_special_tokens"),
        *("spaces_between_special_tokens", "chat_template_kwargs", "add_generation_prompt"),
        *("continue_final_message", "reasoning_format", "cache_prompt", "priority"),
        *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs"),
        *("grammar", "json_schema"),
    }
)
_BOOKKEEPING = frozenset({"store", "service_tier", "prompt_cache_key", "safety_identifier", "metadata"})
_decoder = msgspec.json.Decoder(ChatRequest)


def parse(request_id: str, raw: bytes) -> Call:
    """Bytes to a call; `InvalidRequest` names the field at fault."""
    request, fields = body.decode(raw, _decoder)
    body.refuse_unknown(fields, KNOWN | EXTRAS)
    for index, message in enumerate(request.messages):
        _check_message(index, message)
    if request.top_logprobs is not None and not request.logprobs:
        raise InvalidRequest("'top_logprobs' needs 'logprobs': true.", param="top_logprobs")
    texts = [text for message in request.messages for text in _texts(message)]
    sizes = [len(text) if text.isascii() else len(text.encode()) for text in texts]
    options = request.stream_options
    if options is not None and not request.stream:
        raise InvalidRequest("'stream_options' needs 'stream': true.", param="stream_options")
    return Call(
        request_id=request_id,
        kind="chat",
        model=request.model,
        path="/chat/completions",
        fields=fields,
        stream=bool(request.stream),
        wants_usage=bool(options and options.include_usage),
        text_bytes=sum(sizes),
        solid_bytes=sum(solid_bytes(text) for text in texts),
        items=len(request.messages),
    )


def render(call: Call, model: str) -> bytes:
    """The body for a replica that knows the model as `model`; usage is always asked for, to account."""
    fields = {name: raw for name, raw in call.fields.items() if name not in _BOOKKEEPING}
    fields["model"] = msgspec.json.encode(model)
    limit = fields.pop("max_completion_tokens", b"null")
    if limit != b"null":
        fields["max_tokens"] = limit
    if call.stream:
        fields["stream_options"] = b'{"include_usage":true}'
    return body.encode(fields)


def solid_bytes(text: str) -> int:
    """UTF-8 bytes of a text without ASCII white space."""
    return len(text.encode().translate(None, b" \t\n\r\v\f"))


def _texts(message: Message) -> list[str]:
    if message.content is None:
        return []
    return [message.content] if isinstance(message.content, str) else [part.text for part in message.content]


def _check_message(index: int, message: Message) -> None:
    where = f"messages[{index}]"
    if message.content is None and not (
        message.role == "assistant" and (message.tool_calls or message.function_call)
    ):
        raise InvalidRequest(
            f"'{where}.content' is missing; give the text of the {message.role} message.",
            param=f"{where}.content",
        )
    if message.role == "tool" and not message.tool_call_id:
        raise InvalidRequest(
            f"'{where}.tool_call_id' is missing; name the tool call that this answers.",
            param=f"{where}.tool_call_id",
        )
