"""What the fake engine says: pure functions from a decoded body to the bytes of an answer.

The shapes are those of llama-server, so that what is tested against the fake holds for the real one.
One completion token is one chunk; one prompt token is one word.
"""

from __future__ import annotations

import base64
import hashlib
import math
from array import array
from dataclasses import dataclass
from operator import mul
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from scibox.engines.fake_script import Script

WORDS = (
    "red",
    "blue",
    "green",
    "small",
    "large",
    "quick",
    "quiet",
    "bright",
    "early",
    "late",
    "warm",
    "cold",
)
GARBAGE = b'data: {"id": "chatcmpl-\xff\xfe", "choices": [{"delta"\n\n'
HTML = b"<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"
DONE = b"data: [DONE]\n\n"


Delta = dict[str, Any]  # what a chunk adds to the message, as the wire has it


class StreamOptions(msgspec.Struct, frozen=True):
    """OpenAI's `stream_options`."""

    include_usage: bool = False


class ChatBody(msgspec.Struct, frozen=True):
    """The fields of a chat completion that change the fake's answer."""

    messages: list[dict[str, Any]]  # Any: other people's JSON, only `content` is read
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int = 1


class EmbeddingsBody(msgspec.Struct, frozen=True):
    """The fields of an embeddings call that change the fake's answer."""

    input: str | list[str | int | list[int]]
    encoding_format: str = "float"
    dimensions: int | None = None


class TokenizeBody(msgspec.Struct, frozen=True):
    """What llama-server (`content`) and vLLM (the rest) are asked to split."""

    content: str | None = None
    with_pieces: bool = False
    model: str = ""
    prompt: str | None = None
    messages: list[dict[str, Any]] = []
    return_token_strs: bool = False


class RerankBody(msgspec.Struct, frozen=True):
    """A query and what is to be ranked by it."""

    query: str
    documents: list[str]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one answer."""

    prompt_tokens: int
    completion_tokens: int = 0

    def as_json(self) -> dict[str, object]:
        """OpenAI's `usage` object."""
        return {
            "completion_tokens": self.completion_tokens,
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
        }


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole chat answer, before it is cut into chunks or joined into JSON."""

    id: str
    model: str
    created: int
    deltas: tuple[Delta, ...]
    finish_reason: str
    usage: Usage
    choices: int = 1

    def json(self) -> bytes:
        """The body of a non-streaming answer."""
        message = {"role": "assistant", **_joined(self.deltas)}
        return msgspec.json.encode(
            {
                "choices": [
                    {"finish_reason": self.finish_reason, "index": index, "message": message}
                    for index in range(self.choices)
                ],
                **self._envelope("chat.completion"),
                "usage": self.usage.as_json(),
            }
        )

    def opening(self) -> list[bytes]:
        """The events with the role and no text, one per choice."""
        return [self._event(index, {"role": "assistant", "content": None}) for index in range(self.choices)]

    def steps(self) -> list[list[bytes]]:
        """The events of each delta, one per choice."""
        return [[self._event(index, delta) for index in range(self.choices)] for delta in self.deltas]

    def closing(self, include_usage: bool) -> list[bytes]:
        """The events with the finish reason, then the usage if it was asked for, then `[DONE]`."""
        events = [self._event(index, {}, self.finish_reason) for index in range(self.choices)]
        if include_usage:
            usage = {"choices": [], **self._envelope("chat.completion.chunk"), "usage": self.usage.as_json()}
            events.append(b"data: " + msgspec.json.encode(usage) + b"\n\n")
        return [*events, DONE]

    def _event(self, index: int, delta: Delta, finish_reason: str | None = None) -> bytes:
        choice = {"finish_reason": finish_reason, "index": index, "delta": delta}
        chunk = {"choices": [choice], **self._envelope("chat.completion.chunk")}
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

    def _envelope(self, kind: str) -> dict[str, object]:
        return {"created": self.created, "id": self.id, "model": self.model, "object": kind}


def complete(body: ChatBody, script: Script, *, model: str, created: int, number: int) -> Completion:
    """The answer to a chat: what the script says, or words that depend on the prompt alone."""
    prompt = prompt_text(body.messages)
    deltas = _scripted(script, prompt)
    limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    cut = limit is not None and limit < len(deltas)
    deltas = deltas[:limit] if cut else deltas
    return Completion(
        id=f"chatcmpl-fake{number}",
        model=model,
        created=created,
        deltas=deltas,
        finish_reason="length" if cut else "tool_calls" if script.calls else "stop",
        usage=Usage(count_tokens(prompt), len(deltas) * max(1, body.n)),
        choices=max(1, body.n),
    )


def _scripted(script: Script, prompt: str) -> tuple[Delta, ...]:
    """Reasoning, then text, then calls of tools: each delta is one LLM token."""
    chunks = script.chunks
    if chunks is None:
        chunks = () if script.calls else words_about(prompt)
    deltas: list[Delta] = [{"reasoning_content": text} for text in script.reasoning]
    deltas += [{"content": text} for text in chunks]
    for index, (name, arguments) in enumerate(script.calls):
        call = {"index": index, "id": f"call_fake{index}", "type": "function"}
        deltas.append({"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]})
        middle = len(arguments) // 2
        for half in (arguments[:middle], arguments[middle:]):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": half}}]})
    return tuple(deltas)


def _joined(deltas: tuple[Delta, ...]) -> Delta:
    """The message that deltas add up to."""
    texts = {"content": "", "reasoning_content": ""}
    calls: list[dict[str, Any]] = []
    for delta in deltas:
        for name in texts:
            texts[name] += delta.get(name) or ""
        for call in delta.get("tool_calls", []):
            if "id" in call:
                calls.append({**call, "function": dict(call["function"])})
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    message: Delta = {"content": texts["content"] or (None if calls else "")}
    if texts["reasoning_content"]:
        message["reasoning_content"] = texts["reasoning_content"]
    return {**message, "tool_calls": calls} if calls else message


def prompt_text(messages: list[dict[str, Any]]) -> str:
    """The messages as one text in the form of a chat template."""
    lines = [
        f"{message.get('role', 'user')}: {_content_text(message.get('content'))}" for message in messages
    ]
    return "\n".join([*lines, "assistant:"])


def _content_text(content: object) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def words_about(prompt: str, count: int = 12) -> tuple[str, ...]:
    """`count` words, each but the first with a space before it, that depend on `prompt` alone."""
    digest = hashlib.shake_256(prompt.encode("utf-8", "surrogatepass")).digest(count)
    words = [WORDS[byte % len(WORDS)] for byte in digest]
    return (words[0].capitalize(), *(f" {word}" for word in words[1:]))


def count_tokens(text: str) -> int:
    """The fake's tokenizer: one token per word, at least one."""
    return max(1, len(text.split()))


def token_ids(text: str) -> list[int]:
    """One stable id below 32,000 per word."""
    return [
        int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % 32_000 for word in text.split()
    ]


def tokenized(body: object, model: str, context: int) -> bytes:
    """The answer to `/tokenize`: llama-server's to `content`, vLLM's to `prompt` or `messages`."""
    asked = msgspec.convert(body, TokenizeBody)
    if asked.content is not None:
        ids = token_ids(asked.content)
        pieces = [{"id": one, "piece": word} for one, word in zip(ids, asked.content.split(), strict=True)]
        return msgspec.json.encode({"tokens": pieces if asked.with_pieces else ids})
    if asked.model != model:
        raise msgspec.ValidationError(f"the model is {model}")
    text = asked.prompt if asked.prompt is not None else prompt_text(asked.messages)
    words = text.split() if asked.return_token_strs else None
    ids = token_ids(text)
    return msgspec.json.encode(
        {"count": len(ids), "max_model_len": context, "tokens": ids, "token_strs": words}
    )


def detokenized(ids: list[int]) -> bytes:
    """The answer to `/detokenize`, as llama-server and as vLLM name the text: one word for each id."""
    text = " ".join(f"t{one}" for one in ids)
    return msgspec.json.encode({"content": text, "prompt": text})


def vector_of(text: str, dimensions: int) -> array[float]:
    """A unit vector of float32 that depends on `text` alone."""
    raw = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(2 * dimensions)
    values = [int.from_bytes(raw[i : i + 2], "big") - 32_767.5 for i in range(0, len(raw), 2)]
    norm = math.sqrt(sum(value * value for value in values))
    return array("f", (value / norm for value in values))


def rerank(body: RerankBody, *, model: str, dimensions: int) -> tuple[bytes, Usage]:
    """The body of a ranking, in the order of the documents as llama-server has it, and its usage."""
    query = vector_of(body.query, dimensions)
    results = [
        {"index": index, "relevance_score": sum(map(mul, query, vector_of(text, dimensions)))}
        for index, text in enumerate(body.documents)
    ]
    usage = Usage(sum(count_tokens(text) for text in (body.query, *body.documents)))
    counts = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}
    return msgspec.json.encode({"model": model, "object": "list", "usage": counts, "results": results}), usage


def longest(body: EmbeddingsBody) -> int:
    """LLM tokens of the longest text."""
    return max((count_tokens(text) for text in _texts(body.input)), default=0)


def embed(body: EmbeddingsBody, *, model: str, dimensions: int) -> tuple[bytes, Usage]:
    """The body of an embeddings answer and its usage."""
    texts = _texts(body.input)
    vectors = [vector_of(text, body.dimensions or dimensions) for text in texts]
    usage = Usage(sum(count_tokens(text) for text in texts))
    data = [
        {"embedding": _encode(vector, body.encoding_format), "index": index, "object": "embedding"}
        for index, vector in enumerate(vectors)
    ]
    counts = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}
    answer = {"model": model, "object": "list", "usage": counts, "data": data}
    return msgspec.json.encode(answer), usage


def _texts(value: str | list[str | int | list[int]]) -> list[str]:
    if isinstance(value, str):
        return [value]
    if value and all(isinstance(item, int) for item in value):  # one text as token ids
        return [" ".join(str(item) for item in value)]
    return [item if isinstance(item, str) else " ".join(map(str, _ids(item))) for item in value]


def _ids(item: int | list[int]) -> list[int]:
    return item if isinstance(item, list) else [item]


def _encode(vector: array[float], encoding_format: str) -> list[float] | str:
    if encoding_format == "base64":  # little-endian float32, as OpenAI has it
        return base64.b64encode(vector.tobytes()).decode()
    return vector.tolist()


def models_list(name: str, created: int, context: int, owned_by: str) -> bytes:
    """The body of `GET /v1/models`, with the context both as llama-server and as vLLM name it."""
    model = {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": owned_by,
        "meta": {"n_ctx": context},
        "max_model_len": context,
    }
    return msgspec.json.encode({"object": "list", "data": [model]})


def error_json(status: int, message: str, kind: str, **more: object) -> bytes:
    """An error in llama-server's shape: `code` repeats the status."""
    return msgspec.json.encode({"error": {"code": status, "message": message, "type": kind, **more}})
