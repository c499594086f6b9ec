"""The records of `POST /v1/responses`: OpenAI's API reference, "Create a model response"."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from scibox.wire.chat import Count

Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
]


class ResponsesReasoning(Struct):
    """How much to reason, and how the reasoning is told."""

    effort: str | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class ResponsesFormat(Struct):
    """`text`, `json_object`, or `json_schema` with a name and a schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponsesText(Struct):
    """What the text of the answer looks like."""

    format: ResponsesFormat | None = None
    verbosity: str | None = None


class ResponsesTool(Struct):
    """A function that the model may call."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponsesToolChoice(Struct):
    """One function, or some of them."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[dict[str, Any]] | None = None


class ResponsesStreamOptions(Struct):
    """Options of a streamed answer."""

    include_obfuscation: bool | None = None


class ResponsesRequest(Struct):
    """Create a response. The description of each field begins with what is done with it."""

    model: Annotated[
        str, Meta(min_length=1, max_length=256, description="Honoured. A name from `GET /v1/models`.")
    ]
    input: Annotated[
        str | list[dict[str, Any]],
        Meta(
            description="Honoured. A text, or the dialogue so far: messages of texts, function_call, "
            "function_call_output, reasoning. Other items, images and files are refused."
        ),
    ]
    instructions: Annotated[str | None, Meta(description="Honoured. A system message before all others.")] = (
        None
    )
    max_output_tokens: Annotated[
        Count | None, Meta(description="Honoured. LLM tokens to generate at most, reasoning included.")
    ] = None
    temperature: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | None, Meta(description="Honoured. 0 to 2.")
    ] = None
    top_p: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None, Meta(description="Honoured. Over 0, up to 1.")
    ] = None
    top_logprobs: Annotated[
        Annotated[int, Meta(ge=0, le=20)] | None, Meta(description="Honoured. 0 to 20.")
    ] = None
    tools: Annotated[
        list[ResponsesTool] | None,
        Meta(description="Honoured. Functions; built-in, MCP and custom tools are refused by name."),
    ] = None
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | ResponsesToolChoice | None,
        Meta(description="Honoured. none, auto, required, a function, or `allowed_tools`."),
    ] = None
    parallel_tool_calls: Annotated[
        bool | None, Meta(description="Honoured. With false, one call at most.")
    ] = None
    max_tool_calls: Annotated[
        Count | None, Meta(description="No effect. It counts calls of built-in tools: there are none.")
    ] = None
    text: Annotated[
        ResponsesText | None,
        Meta(description="Honoured. `format` as in chat's `response_format`; `verbosity` is passed on."),
    ] = None
    reasoning: Annotated[
        ResponsesReasoning | None,
        Meta(
            description="Passed on. `effort` is the model's; with `summary` the reasoning text itself is "
            "told in summary parts, else as reasoning text."
        ),
    ] = None
    include: Annotated[
        list[Includable] | None,
        Meta(
            description="Honoured. `message.output_text.logprobs`; the others are accepted, and there is "
            "nothing that they would add."
        ),
    ] = None
    truncation: Annotated[
        Literal["auto", "disabled"] | None,
        Meta(description="Refused. Nothing is dropped from `input`: `auto` is 400, `disabled` may stand."),
    ] = None
    stream: Annotated[bool | None, Meta(description="Honoured. Answer as server-sent events.")] = None
    stream_options: Annotated[
        ResponsesStreamOptions | None,
        Meta(description="No effect. Nothing is ever added to events, so nothing has to be left out."),
    ] = None
    store: Annotated[
        bool | None, Meta(description="No effect. Nothing is kept, and the response says `false`.")
    ] = None
    metadata: Annotated[
        Annotated[
            dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
            Meta(max_length=16),
        ]
        | None,
        Meta(description="No effect. The response repeats it; it is not kept."),
    ] = None
    user: Annotated[str | None, Meta(description="No effect. Calls are accounted to the key.")] = None
    safety_identifier: Annotated[
        str | None, Meta(description="No effect. Calls are accounted to the key.")
    ] = None
    prompt_cache_key: Annotated[
        str | None, Meta(description="No effect. Prompts are cached where that helps.")
    ] = None
    prompt_cache_retention: Annotated[
        Literal["in_memory", "in-memory", "24h"] | None,
        Meta(description="No effect. As `prompt_cache_key`."),
    ] = None
    prompt_cache_options: Annotated[
        dict[str, Any] | None, Meta(description="No effect. As `prompt_cache_key`.")
    ] = None
    service_tier: Annotated[
        str | None, Meta(description="Honoured. auto, default; flex: other calls come first.")
    ] = None
    background: Annotated[bool | None, Meta(description="Refused. `false` may stand.")] = None
    previous_response_id: Annotated[
        Any, Meta(description="Refused. Responses are not kept: send the whole dialogue.")
    ] = None
    conversation: Annotated[Any, Meta(description="Refused. Conversations are not kept.")] = None
    prompt: Annotated[Any, Meta(description="Refused. Prompts are not kept.")] = None
    context_management: Annotated[Any, Meta(description="Refused. The dialogue is not shortened.")] = None
    moderation: Annotated[Any, Meta(description="Refused. There is no moderation model here.")] = None
