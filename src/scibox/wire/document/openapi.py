"""`GET /openapi.json`: the OpenAPI 3.1 document, made from the same types that check the requests."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from scibox.wire.chat import ChatRequest
from scibox.wire.embeddings import EmbeddingRequest
from scibox.wire.extras import UNDERSTOOD, Extras
from scibox.wire.faces import FACES
from scibox.wire.info import Health, KeyInfo, KeyRevoked, KeyRotated, Model, ModelList, Readiness
from scibox.wire.rerank import Rerank, RerankRequest, ScoreRequest, Scores
from scibox.wire.tokenize import DetokenizeRequest, Text, TokenizeRequest, Tokens
from scibox.wire.waiting import QueueList

from . import admin as openapi_admin
from . import faces as openapi_faces
from . import replicas as openapi_replicas
from . import running as openapi_running
from . import stored as openapi_stored
from . import usage as openapi_usage

CHAT_EXAMPLE = {
    "model": "smollm2-135m-instruct",
    "messages": [
        {"role": "system", "content": "You are a friendly assistant."},
        {"role": "user", "content": "Name three colours."},
    ],
    "temperature": 0.7,
    "max_tokens": 64,
}
EMBEDDING_EXAMPLE = {
    "model": "multilingual-e5-small",
    "input": ["Что такое квантовая запутанность?", "What is quantum entanglement?"],
}
RERANK_EXAMPLE = {
    "model": "multilingual-e5-small",
    "query": "What is the capital of France?",
    "documents": ["Paris is the capital of France.", "Bread is baked in an oven."],
    "top_n": 1,
    "return_documents": True,
}
SCORE_EXAMPLE = {
    "model": "multilingual-e5-small",
    "text_1": "What is the capital of France?",
    "text_2": ["Paris is the capital of France.", "Bread is baked in an oven."],
}

TOKENIZE_EXAMPLE = {"model": "smollm2-135m-instruct", "prompt": "Name three colours."}
DETOKENIZE_EXAMPLE = {"model": "smollm2-135m-instruct", "tokens": [7218, 1296, 4881, 30]}


class Usage(Struct):
    """LLM tokens, as the engine counted them."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class AnswerMessage(Struct):
    """The message that the model wrote."""

    role: Literal["assistant"]
    content: str | None
    reasoning_content: Annotated[str, Meta(description="What a reasoning model wrote before it.")] | None = (
        None
    )


class Choice(Struct):
    """One answer; `finish_reason` is `length` where it was cut."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class ChatCompletion(Struct):
    """A chat completion; `model` names the model that really served."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Vector(Struct):
    """One embedding, in the order of the input; a base64 string where that was asked for."""

    index: int
    object: Literal["embedding"]
    embedding: list[float] | str


class EmbeddingList(Struct):
    """Embeddings."""

    object: Literal["list"]
    model: str
    data: list[Vector]
    usage: Usage


class ErrorBody(Struct):
    """`code` is stable and for programs; `message` says what to do next."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(Struct):
    """Every error."""

    error: ErrorBody


_TYPES = [
    ChatRequest,
    Extras,
    EmbeddingRequest,
    ChatCompletion,
    EmbeddingList,
    RerankRequest,
    Rerank,
    ScoreRequest,
    Scores,
    ModelList,
    Model,
    KeyInfo,
    QueueList,
    KeyRevoked,
    KeyRotated,
    Health,
    Readiness,
    TokenizeRequest,
    Tokens,
    DetokenizeRequest,
    Text,
    *openapi_stored.TYPES,
    *openapi_usage.TYPES,
    *openapi_admin.TYPES,
    *openapi_replicas.TYPES,
    *openapi_running.TYPES,
    Error,
    *openapi_faces.TYPES,
]


def render(version: str) -> bytes:
    """The document as JSON."""
    return msgspec.json.encode(document(version))


def document(version: str) -> dict[str, Any]:  # Any: a JSON document
    """The document."""
    (_, schemas) = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    schemas["ChatRequest"]["properties"] |= _extras(schemas.pop("Extras")["properties"])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SciBox",
            "version": version,
            "description": (
                "One OpenAI-compatible address over your own models. Press **Authorize** and paste your key; "
                "then **Try it out** works on every endpoint. Paths work with and without `/v1`."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [
            {"name": "Models", "description": "What this key may use."},
            {"name": "Chat", "description": "Text models."},
            {"name": "Embeddings", "description": "Vectors for search."},
            {"name": "Files", "description": "What batches read and write; each owner sees its own."},
            {
                "name": "Batches",
                "description": "Many calls in the background, when nobody else needs the models.",
            },
            {"name": openapi_usage.TAG, "description": "What calls cost, and which failed."},
            {"name": "Service", "description": "Free of charge, never limited."},
            {"name": openapi_admin.TAG, "description": "Owners, keys and limits; with an operator's key."},
        ],
        "paths": _repeatable(_paths()),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Your key: `sk-scibox-...`"}
            },
        },
    }


def _extras(properties: dict[str, Any]) -> dict[str, Any]:
    """Parameters beyond OpenAI's, with the engines that understand them."""
    engines = {"vllm": "vLLM", "llama": "llama.cpp"}
    described = {}
    for name, schema in properties.items():
        who = " and ".join(engines[dialect] for dialect, known in UNDERSTOOD.items() if name in known)
        described[name] = {**schema, "description": f"Honoured by {who}; refused where others serve."}
    return described


def _paths() -> dict[str, Any]:
    name = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
        "example": "smollm2-135m-instruct",
    }
    chat = _post("createChatCompletion", "Chat", "ChatRequest", "ChatCompletion", CHAT_EXAMPLE)
    # No schema: OpenAPI 3.1 has none for the events of a stream, and programs read one as each event's.
    chat["responses"]["200"]["content"]["text/event-stream"] = {
        "example": 'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,'
        '"delta":{"content":"Red"},"finish_reason":null}]}\n\ndata: [DONE]\n\n',
    }
    return {
        "/v1/models": {"get": _get("listModels", "Models", "ModelList", "The models of this key.")},
        "/v1/models/{name}": {
            "parameters": [name],
            "get": _get("getModel", "Models", "Model", "One model.", "401", "404"),
        },
        "/v1/chat/completions": {"post": chat},
        **openapi_faces.paths(_ERRORS),
        "/v1/embeddings": {
            "post": _post(
                "createEmbedding", "Embeddings", "EmbeddingRequest", "EmbeddingList", EMBEDDING_EXAMPLE
            )
        },
        "/v1/rerank": {
            "post": _post(
                *("rerank", "Embeddings", "RerankRequest", "Rerank", RERANK_EXAMPLE),
                summary="Rank documents by a query.",
            )
        },
        "/v1/score": {
            "post": _post(
                *("score", "Embeddings", "ScoreRequest", "Scores", SCORE_EXAMPLE),
                summary="Score pairs of texts.",
            )
        },
        "/tokenize": {
            "post": _post(
                *("tokenize", "Service", "TokenizeRequest", "Tokens", TOKENIZE_EXAMPLE),
                summary="A text or a dialogue to LLM tokens.",
            )
        },
        "/detokenize": {
            "post": _post(
                *("detokenize", "Service", "DetokenizeRequest", "Text", DETOKENIZE_EXAMPLE),
                summary="LLM tokens to their text.",
            )
        },
        **openapi_stored.paths(_get, _errors),
        **openapi_usage.paths(_get, openapi_admin.TAG),
        **openapi_admin.paths(_get),
        **openapi_replicas.paths(_get),
        **openapi_running.paths(_get),
        "/v1/key": {
            "get": _get("getKey", "Service", "KeyInfo", "Who am I: the key behind this secret."),
            "delete": _get(
                *("revokeOwnKey", "Service", "KeyRevoked", "Revoke this secret's key, for ever."),
                "401",
                "503",
            ),
        },
        "/v1/key/rotate": {"post": openapi_admin.rotation(_get)},
        "/v1/queue": {
            "get": _get("getQueue", "Service", "QueueList", "The calls of this key's owner that wait or run.")
        },
        "/health": {
            "get": {**_get("getHealth", "Service", "Health", "Whether the service lives."), "security": []}
        },
        "/ready": {"get": _ready()},
    }


def _repeatable(paths: dict[str, Any]) -> dict[str, Any]:
    """With the header that makes repeating a call safe, where calls are made."""
    header = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": (
            "A word of your own for this call, best a new UUID. Sent again with the same body, the call is "
            "not made again: the answer is the first one's. Without effect on streamed calls."
        ),
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    }
    for path in FACES:
        operation = paths[f"/v1{path}"]["post"]
        operation["parameters"] = [header]
        answer = {**operation["responses"]["400"], "description": "That Idempotency-Key had another body."}
        operation["responses"]["422"] = answer
    return paths


_ERRORS = {
    "400": "The input is wrong; `param` names the field.",
    "401": "No key, or a wrong, expired or revoked one.",
    "408": "The body came too slowly.",
    "404": "No such model, file or batch for this key; the message says where to look.",
    "413": "The body is too large.",
    "415": "The body is packed, or not in UTF-8.",
    "429": "A limit, a quota or a full queue; `Retry-After` says when to try again.",
    "502": "The model server failed; try again.",
    "503": "The model server cannot be reached or is busy; `Retry-After` says when to try again.",
    "504": "The model server took too long.",
}
_ALL_ERRORS = {
    **_ERRORS,
    "403": "This key may not do that; the message says who may.",
    "409": "It contradicts what is there; the message says what, and how to go on.",
}


def _get(operation: str, tag: str, answer: str, summary: str, *errors: str) -> dict[str, Any]:
    codes = errors or ("401",)
    return {
        "operationId": operation,
        "tags": [tag],
        "summary": summary,
        "responses": {"200": _body(summary, answer), **_errors(*codes)},
    }


def _ready() -> dict[str, Any]:
    summary = "Whether a call with a good key would be answered now."
    operation = {**_get("getReady", "Service", "Readiness", summary), "security": []}
    operation["responses"] |= {"503": _body("It would not; the reasons say why.", "Readiness")}
    return operation


def _post(
    operation: str, tag: str, request: str, answer: str, example: dict[str, Any], *, summary: str = ""
) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{request}"}
    return {
        "operationId": operation,
        "tags": [tag],
        "summary": summary or {"Chat": "Create a chat completion.", "Embeddings": "Create embeddings."}[tag],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": example}},
        },
        "responses": {"200": _body("The answer.", answer), **_errors(*_ERRORS)},
    }


def _body(description: str, name: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _errors(*codes: str) -> dict[str, Any]:
    return {code: _body(_ALL_ERRORS[code], "Error") for code in codes}
