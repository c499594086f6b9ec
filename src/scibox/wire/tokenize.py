"""`POST /tokenize` and `/detokenize`: vLLM's shapes, for every replica that has a tokenizer of its own.

Source: vLLM's documents, "Tokenizer API". The dialects of replicas are two: vLLM's, which is the same, and
llama-server's (`/apply-template`, `/tokenize` with `content`, `/detokenize`), which our children speak too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from scibox.core.errors import BodyTooLarge, InvalidRequest, UpstreamBroken
from scibox.core.types import Call

from . import body, chat
from .llama import dialect as llama
from .messages import AssistantMessage, Message
from .target import Target

# Splitting runs in an engine's own threads beside its work: a text ten times any context is enough.
MAX_TEXT_BYTES = 2 * 2**20
# What of a dialogue changes the text that the chat template makes of it.
TEMPLATE_FIELDS = ("messages", "tools", "chat_template_kwargs", "add_generation_prompt")
_FOR_PROMPT = frozenset({"model", "prompt", "add_special_tokens", "return_token_strs"})
_FOR_MESSAGES = frozenset(
    {"model", "add_special_tokens", "return_token_strs", "continue_final_message", *TEMPLATE_FIELDS}
)

Name = Annotated[
    str, Meta(min_length=1, max_length=256, description="Honoured. A name from `GET /v1/models`.")
]
Id = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class TokenizeRequest(Struct):
    """A text, or a dialogue as the model's chat template writes it, to LLM tokens."""

    model: Name
    prompt: Annotated[str | None, Meta(description="Honoured. The text; or give `messages`.")] = None
    messages: Annotated[
        Annotated[list[dict[str, Any]], Meta(min_length=1)] | None,
        Meta(description="Honoured. A dialogue; or give `prompt`."),
    ] = None
    add_special_tokens: Annotated[
        bool | None,
        Meta(description="Honoured. Add what the model wants at the start and the end; of a `prompt`."),
    ] = None
    return_token_strs: Annotated[
        bool | None, Meta(description="Honoured. The text of each LLM token too.")
    ] = None
    add_generation_prompt: Annotated[
        bool | None, Meta(description="Honoured. End where the answer begins.")
    ] = None
    continue_final_message: Annotated[
        bool | None, Meta(description="Honoured. Leave the last message, the assistant's, open.")
    ] = None
    chat_template_kwargs: Annotated[
        dict[str, Any] | None, Meta(description="Passed on. Variables of the chat template.")
    ] = None
    tools: Annotated[
        list[dict[str, Any]] | None, Meta(description="Honoured. As in chat; they are part of the prompt.")
    ] = None


class Tokens(Struct):
    """LLM tokens of a text, in order; `token_strs` where it was asked for."""

    count: int
    max_model_len: int | None
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(Struct):
    """LLM token ids of this model's own vocabulary to text."""

    model: Name
    tokens: Annotated[list[Id], Meta(max_length=1_000_000, description="Honoured. Up to a million ids.")]


class Text(Struct):
    """The text of some LLM tokens."""

    prompt: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to split: the text of `prompt`, or of the dialogue in `call`."""

    model: str
    prompt: str
    call: Call | None
    adds_special: bool
    wants_texts: bool


class _Piece(Struct):
    id: int
    piece: str | list[int] = ""


class _LlamaTokens(Struct):
    tokens: list[int | _Piece]


class _LlamaText(Struct):
    content: str


_tokenize = msgspec.json.Decoder(TokenizeRequest)
_detokenize = msgspec.json.Decoder(DetokenizeRequest)


def parse(request_id: str, raw: bytes) -> Wanted:
    """Bytes to what is to be split; a dialogue is checked as chat completions check it."""
    request, fields = body.decode(raw, _tokenize)
    if (request.prompt is None) == (request.messages is None):
        raise InvalidRequest("Give either 'prompt' or 'messages'.", param="prompt")
    call = None
    if request.messages is None:
        body.refuse_unknown(fields, _FOR_PROMPT)
    else:
        body.refuse_unknown(fields, _FOR_MESSAGES)
        kept = {name: raw for name, raw in fields.items() if name in {"model", *TEMPLATE_FIELDS}}
        call = chat.parse(request_id, body.encode(kept))
        if request.continue_final_message and request.messages[-1].get("role") != "assistant":
            raise InvalidRequest(
                "'continue_final_message' needs a last message of the assistant.",
                param="continue_final_message",
            )
    prompt = request.prompt or ""
    _refuse_long(call.text_bytes if call else len(prompt.encode()))
    special = call is None if request.add_special_tokens is None else request.add_special_tokens
    return Wanted(request.model, prompt, call, special, bool(request.return_token_strs))


def parse_ids(request_id: str, raw: bytes) -> DetokenizeRequest:
    """Bytes to the ids that are to be joined."""
    request, fields = body.decode(raw, _detokenize)
    body.refuse_unknown(fields, frozenset(DetokenizeRequest.__struct_fields__))
    return request


def render(tokens: Tokens) -> bytes:
    """The answer to `/tokenize`."""
    return msgspec.json.encode(tokens)


def render_text(text: str) -> bytes:
    """The answer to `/detokenize`."""
    return msgspec.json.encode(Text(text))


# To replicas


def template_order(call: Call, target: Target) -> bytes:
    """A body for llama-server's `/apply-template`: the messages as the call itself would be sent."""
    fields = call.fields
    if target.dialect == "llama":
        fields, _ = llama.render(call, target)
    return body.encode({name: fields[name] for name in TEMPLATE_FIELDS if name in fields})


def llama_order(text: str, *, special: bool, texts: bool) -> bytes:
    """A body for llama-server's `/tokenize`."""
    return msgspec.json.encode(
        {"content": text, "add_special": special, "parse_special": True, "with_pieces": texts}
    )


def vllm_order(wanted: Wanted, model: str) -> bytes:
    """A body for vLLM's `/tokenize`."""
    fields = {"model": msgspec.json.encode(model)}
    if wanted.call is None:
        fields["prompt"] = msgspec.json.encode(wanted.prompt)
    else:
        given = wanted.call.fields
        fields |= {name: given[name] for name in TEMPLATE_FIELDS if name in given}
        if _is_continued(given["messages"]):  # as llama-server does it without being told
            fields |= {"continue_final_message": b"true", "add_generation_prompt": b"false"}
    fields["add_special_tokens"] = msgspec.json.encode(wanted.adds_special)
    fields["return_token_strs"] = msgspec.json.encode(wanted.wants_texts)
    return body.encode(fields)


def read_llama(answer: bytes, context: int | None, *, texts: bool) -> Tokens:
    """What llama-server's `/tokenize` answered."""
    items = _read(answer, _LlamaTokens).tokens
    ids = [item.id if isinstance(item, _Piece) else item for item in items]
    strings = [_string(item.piece) for item in items if isinstance(item, _Piece)] if texts else None
    return Tokens(len(ids), context, ids, strings)


def read_vllm(answer: bytes) -> Tokens:
    """What vLLM's `/tokenize` answered."""
    return _read(answer, Tokens)


def read_prompt(answer: bytes) -> str:
    """The text in what `/apply-template`, or vLLM's `/detokenize`, answered."""
    return _read(answer, Text).prompt


def read_content(answer: bytes) -> str:
    """The text in what llama-server's `/detokenize` answered."""
    return _read(answer, _LlamaText).content


def ids_order(ids: Sequence[int], model: str) -> bytes:
    """A body for `/detokenize`, of both dialects."""
    return msgspec.json.encode({"model": model, "tokens": ids})


def _read(answer: bytes, shape: type[body.T]) -> body.T:
    try:
        return msgspec.json.decode(answer, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamBroken("The model server's tokenizer gave no answer that could be read.") from None


def _string(piece: str | list[int]) -> str:
    """A piece that is no whole character is written byte by byte, as SentencePiece does: `<0xE2>`."""
    return piece if isinstance(piece, str) else "".join(f"<0x{byte:02X}>" for byte in piece)


def _is_continued(messages: bytes) -> bool:
    last = msgspec.json.decode(messages, type=list[Message])[-1]
    return isinstance(last, AssistantMessage) and not last.tool_calls


def _refuse_long(text_bytes: int) -> None:
    if text_bytes > MAX_TEXT_BYTES:
        raise BodyTooLarge(f"The text has more than {MAX_TEXT_BYTES} bytes; split it in several calls.")
