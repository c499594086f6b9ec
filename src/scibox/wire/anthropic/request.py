"""The records of `POST /v1/messages`: Anthropic's API reference, "Create a Message"."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from scibox.wire.chat import Count, Stop

MIN_BUDGET = 1024  # LLM tokens; Anthropic's own


class Thinking(Struct):
    """Whether to reason. A budget cannot be enforced; `max_tokens` bounds reasoning and answer together."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Meta(ge=MIN_BUDGET)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class MessagesTool(Struct):
    """A tool that the client runs."""

    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class MessagesToolChoice(Struct):
    """Which tools the model may or must use."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class OutputFormat(Struct):
    """A schema that the answer must keep."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Struct):
    """How the answer looks and how much effort goes into it."""

    effort: str | None = None
    format: OutputFormat | None = None


class MessagesMetadata(Struct):
    """About the request."""

    user_id: str | None = None


class MessageParam(Struct):
    """One message of the dialogue."""

    role: Literal["user", "assistant", "system"]
    content: Annotated[
        str | list[dict[str, Any]],
        Meta(description="A text, or blocks: text, tool_use, tool_result, thinking."),
    ]


Model = Annotated[
    str, Meta(min_length=1, max_length=256, description="Honoured. A name from `GET /v1/models`.")
]
Dialogue = Annotated[
    list[MessageParam],
    Meta(
        min_length=1,
        description="Honoured. Blocks of text, tool_use, tool_result and thinking; images and documents are "
        "refused. A last message of the assistant's is continued.",
    ),
]
System = Annotated[str | list[dict[str, Any]] | None, Meta(description="Honoured. A text or text blocks.")]
Thought = Annotated[
    Thinking | None,
    Meta(
        description="Passed on. As `enable_thinking` to chat templates, of vLLM and llama.cpp. The budget is "
        "checked, but `max_tokens` is what bounds. Thinking blocks come only where it is on."
    ),
]
Tools = Annotated[
    list[MessagesTool] | None,
    Meta(description="Honoured. Tools with an `input_schema`; Anthropic's own are refused by name."),
]
Choice = Annotated[
    MessagesToolChoice | None,
    Meta(description="Honoured. auto, any, tool, none; `disable_parallel_tool_use`."),
]
Output = Annotated[
    OutputConfig | None, Meta(description="Honoured. `format`: a JSON schema; `effort` is passed on.")
]
Cache = Annotated[dict[str, Any] | None, Meta(description="No effect. Prompts are cached where that helps.")]


class MessagesCountRequest(Struct):
    """Count the LLM tokens of a Message."""

    model: Model
    messages: Dialogue
    system: System = None
    thinking: Thought = None
    tools: Tools = None
    tool_choice: Choice = None
    output_config: Output = None
    cache_control: Cache = None


class MessagesRequest(Struct):
    """Create a Message. The description of each field begins with what is done with it."""

    model: Model
    messages: Dialogue
    max_tokens: Annotated[
        Count, Meta(description="Honoured. LLM tokens to generate at most, reasoning included.")
    ]
    system: System = None
    stop_sequences: Annotated[
        Annotated[list[Stop], Meta(max_length=4)] | None,
        Meta(description="Honoured. Up to 4. Which of them matched is told where the engine tells it."),
    ] = None
    stream: Annotated[bool | None, Meta(description="Honoured. Answer as server-sent events.")] = None
    temperature: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None, Meta(description="Honoured. 0 to 1.")
    ] = None
    top_p: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None, Meta(description="Honoured. Over 0, up to 1.")
    ] = None
    top_k: Annotated[
        Annotated[int, Meta(ge=0, le=2**31 - 1)] | None,
        Meta(description="Honoured. By vLLM and llama.cpp; refused for other servers."),
    ] = None
    thinking: Thought = None
    tools: Tools = None
    tool_choice: Choice = None
    output_config: Output = None
    metadata: Annotated[
        MessagesMetadata | None, Meta(description="No effect. Calls are accounted to the key.")
    ] = None
    service_tier: Annotated[
        Literal["auto", "standard_only"] | None, Meta(description="No effect. There is one tier.")
    ] = None
    speed: Annotated[Literal["standard"] | None, Meta(description="Refused. `standard` may stand.")] = None
    cache_control: Cache = None
    container: Annotated[Any, Meta(description="Refused. There are no containers here.")] = None
    mcp_servers: Annotated[Any, Meta(description="Refused. MCP servers are not called from here.")] = None
    context_management: Annotated[Any, Meta(description="Refused. The dialogue is not edited.")] = None
    inference_geo: Annotated[Any, Meta(description="Refused. The answer is computed here.")] = None
