"""What the OpenAPI document says of the Responses API, of Messages and of the older completions."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from scibox.wire.anthropic.request import MessagesCountRequest, MessagesRequest
from scibox.wire.completions.face import CompletionRequest
from scibox.wire.responses.request import ResponsesRequest

Json = dict[str, Any]
RESPONSE_EXAMPLE: Json = {
    "model": "smollm2-135m-instruct",
    "instructions": "You are a friendly assistant.",
    "input": "Name three colours.",
    "max_output_tokens": 64,
}
MESSAGE_EXAMPLE: Json = {
    "model": "smollm2-135m-instruct",
    "max_tokens": 64,
    "system": "You are a friendly assistant.",
    "messages": [{"role": "user", "content": "Name three colours."}],
}
COUNT_EXAMPLE: Json = {name: value for name, value in MESSAGE_EXAMPLE.items() if name != "max_tokens"}
COMPLETION_EXAMPLE: Json = {
    "model": "smollm2-135m-instruct",
    "prompt": "Red, green and",
    "max_tokens": 16,
    "temperature": 0,
}


class ResponseUsage(Struct):
    """LLM tokens of a response."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class Response(Struct):
    """A response. `output` holds reasoning, message and function_call items; nothing of it is kept."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete", "failed", "in_progress"]
    model: str
    output: list[dict[str, Any]]
    store: bool
    error: dict[str, Any] | None = None
    incomplete_details: dict[str, Any] | None = None
    usage: ResponseUsage | None = None


class MessageUsage(Struct):
    """LLM tokens of a Message."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int


class AnthropicMessage(Struct):
    """A Message of Anthropic's API. `content` holds blocks: thinking, text, tool_use."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"] | None
    stop_sequence: str | None
    usage: MessageUsage


class MessageTokens(Struct):
    """How many LLM tokens a dialogue has."""

    input_tokens: int


class MessageErrorBody(Struct):
    """What went wrong."""

    type: str
    message: str


class MessageError(Struct):
    """Every error of Anthropic's API."""

    type: Literal["error"]
    error: MessageErrorBody
    request_id: str | None


class TextChoice(Struct):
    """One text; `finish_reason` is `length` where it was cut."""

    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "content_filter"] | None


class CompletionUsage(Struct):
    """LLM tokens of a completion, of all prompts and choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(Struct):
    """Texts that go on from the prompts, in the order of the prompts."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage | None = None


TYPES = [
    *(CompletionRequest, Completion, ResponsesRequest, Response),
    *(MessagesRequest, AnthropicMessage, MessagesCountRequest, MessageTokens, MessageError),
]
_RESPONSE_EVENTS = (
    'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":4,'
    '"delta":"Red"}\n\n'
)
_MESSAGE_EVENTS = (
    'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    '"delta":{"type":"text_delta","text":"Red"}}\n\n'
)
_COMPLETION_EVENTS = (
    'data: {"object":"text_completion","choices":[{"index":0,"text":" blue","logprobs":null,'
    '"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)


def paths(errors: dict[str, str]) -> Json:
    """Their paths; `errors` are the descriptions of the errors by status."""
    response = _post("Create a response.", "createResponse", "ResponsesRequest", "Response", RESPONSE_EXAMPLE)
    message = _post(
        "Create a Message.", "createMessage", "MessagesRequest", "AnthropicMessage", MESSAGE_EXAMPLE
    )
    count = _post(
        "Count the LLM tokens of a Message.",
        "countTokens",
        "MessagesCountRequest",
        "MessageTokens",
        COUNT_EXAMPLE,
    )
    completion = _post(
        "Create a completion, without a chat template.",
        *("createCompletion", "CompletionRequest", "Completion", COMPLETION_EXAMPLE),
    )
    _stream(response, _RESPONSE_EVENTS)
    _stream(message, _MESSAGE_EVENTS)
    _stream(completion, _COMPLETION_EVENTS)
    for operation, shape in ((response, "Error"), (completion, "Error"), (message, "MessageError")):
        operation["responses"] |= {code: _body(text, shape) for code, text in errors.items()}
    count["responses"] |= {code: _body(errors[code], "MessageError") for code in errors}
    return {
        "/v1/completions": {"post": completion},
        "/v1/responses": {"post": response},
        "/v1/responses/{id}": _not_kept(),
        "/v1/messages": {"post": message},
        "/v1/messages/count_tokens": {"post": count},
    }


def _post(summary: str, operation: str, request: str, answer: str, example: Json) -> Json:
    schema = {"$ref": f"#/components/schemas/{request}"}
    return {
        "operationId": operation,
        "tags": ["Chat"],
        "summary": summary,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": example}},
        },
        "responses": {"200": _body("The answer.", answer)},
    }


def _not_kept() -> Json:
    """Documented, so that whoever looks for it learns that there is nothing to be had."""
    parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    methods = {
        method: {
            "operationId": f"{method}Response",
            "tags": ["Chat"],
            "summary": "Always 404: responses are not kept.",
            "deprecated": True,
            "responses": {
                "401": _body("No key, or a wrong, expired or revoked one.", "Error"),
                "404": _body("Responses are not kept.", "Error"),
            },
        }
        for method in ("get", "delete")
    }
    return {"parameters": [parameter], **methods}


def _stream(operation: Json, example: str) -> None:
    content = operation["responses"]["200"]["content"]
    content["text/event-stream"] = {"schema": {"description": "Server-sent events."}, "example": example}


def _body(description: str, name: str) -> Json:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
