"""`POST /v1/completions`, the older API: the request as clients send it and as replicas get it.

Source: OpenAI's API reference, "Create completion". It goes to the replica's own `/completions`, without a
chat template. What llama-server ignores there in silence (`echo`, `best_of`, `suffix`; docs/engines.md) is
done here or refused. `completions_reply.py` tells the answer.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from scibox.core.errors import InvalidRequest, SciBoxError
from scibox.core.types import Call, Dialect
from scibox.wire import body, chat, errors, extras
from scibox.wire.chat import Penalty, Stop, StreamOptions
from scibox.wire.face import Asked
from scibox.wire.llama import dialect as llama
from scibox.wire.paths import Paths
from scibox.wire.target import Target

from .reply import CompletionsReply

PATH = "/completions"
DEFAULT_MAX_TOKENS = 16  # OpenAI's
NAMES = {"messages": "prompt", "max_completion_tokens": "max_tokens"}
MAX_PROMPTS = 128
MAX_CHOICES = 512  # of all prompts together: each is an answer of its own


class CompletionRequest(Struct):
    """Create a completion. The description of each field begins with what is done with it."""

    model: Annotated[
        str, Meta(min_length=1, max_length=256, description="Honoured. A name from `GET /v1/models`.")
    ]
    prompt: Annotated[
        str | list[str | int | list[int]],
        Meta(description="Honoured. A text, or a list of up to 128. LLM token ids are refused."),
    ]
    suffix: Annotated[
        str | None, Meta(description="Refused. Passed on to servers that are neither vLLM nor llama.cpp.")
    ] = None
    max_tokens: Annotated[
        Annotated[int, Meta(ge=0, le=2**31 - 1)] | None,
        Meta(description="Honoured. 16 where it is not given; 0 only with `echo`, and not by llama.cpp."),
    ] = None
    n: Annotated[
        Annotated[int, Meta(ge=1, le=128)] | None,
        Meta(description="Honoured. 1 to 128 for each prompt, 512 in all."),
    ] = None
    best_of: Annotated[
        Annotated[int, Meta(ge=1, le=128)] | None,
        Meta(description="Refused. Passed on to servers that are neither vLLM nor llama.cpp; `n` may stand."),
    ] = None
    echo: Annotated[bool | None, Meta(description="Honoured. Together with `logprobs` not by llama.cpp.")] = (
        None
    )
    logprobs: Annotated[
        Annotated[int, Meta(ge=0, le=5)] | None,
        Meta(description="Honoured. 0 to 5. By llama.cpp not together with `stop`."),
    ] = None
    stop: Annotated[
        Stop | Annotated[list[Stop], Meta(max_length=4)] | None,
        Meta(description="Honoured. A text, or up to four."),
    ] = None
    temperature: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | None, Meta(description="Honoured. 0 to 2.")
    ] = None
    top_p: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None, Meta(description="Honoured. Over 0, up to 1.")
    ] = None
    seed: Annotated[
        Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None,
        Meta(description="Honoured. Choice i of a prompt has the seed plus i."),
    ] = None
    frequency_penalty: Annotated[Penalty | None, Meta(description="Honoured. -2 to 2.")] = None
    presence_penalty: Annotated[Penalty | None, Meta(description="Honoured. -2 to 2.")] = None
    logit_bias: Annotated[
        dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None,
        Meta(description="Honoured. The model's own LLM token ids, as strings, to -100..100."),
    ] = None
    stream: Annotated[bool | None, Meta(description="Honoured. Answer as server-sent events.")] = None
    stream_options: Annotated[
        StreamOptions | None, Meta(description="Honoured. `include_usage`: one more event with the usage.")
    ] = None
    user: Annotated[str | None, Meta(description="No effect. Calls are accounted to the key.")] = None


KNOWN = frozenset(CompletionRequest.__struct_fields__)
_decoder = msgspec.json.Decoder(CompletionRequest)
_prompts = msgspec.json.Decoder(list[Raw])


class Completions:
    """The face of the older completions API."""

    def parse(self, request_id: str, raw: bytes) -> Asked:
        """Bytes to a call that goes to the replica's own `/completions`."""
        request, fields = body.decode(raw, _decoder)
        body.refuse_unknown(fields, KNOWN | extras.NAMES)
        extras.check(fields, is_chat=False)
        prompts = _texts(request.prompt)
        _check(request, len(prompts))
        choices = request.n or 1
        # Echoing is ours, unless the prompt's own log-probabilities are wanted: only the replica has those.
        echoes = bool(request.echo) and request.logprobs is None
        if echoes:
            del fields["echo"]
        if request.best_of == choices:
            del fields["best_of"]
        if request.suffix == "":
            del fields["suffix"]
        if len(prompts) == 1:
            fields["prompt"] = msgspec.json.encode(prompts[0])
        if request.max_tokens is None:
            fields["max_tokens"] = b"%d" % DEFAULT_MAX_TOKENS
        options = request.stream_options
        sizes = [len(text.encode()) for text in prompts]
        call = Call(
            request_id=request_id,
            kind="chat",
            model=request.model,
            path=PATH,
            fields={name: value for name, value in fields.items() if value != b"null"},
            stream=bool(request.stream),
            wants_usage=bool(options and options.include_usage),
            text_bytes=max(sizes),
            solid_bytes=max(1, *(chat.solid_bytes(text) for text in prompts)),  # 0 would say: not known
            items=0,
            n=len(prompts) * choices,
            prompts=len(prompts),
            max_tokens=DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens,
        )
        echoed = [text for text in prompts for _ in range(choices)] if echoes else []
        reply = CompletionsReply(request_id, echoed, request.logprobs, wants_usage=call.wants_usage)
        return Asked(call, reply, Paths(NAMES))

    def error(self, error: SciBoxError, request_id: str) -> bytes:
        """OpenAI's shape."""
        return errors.render(error)


def prompt(call: Call) -> str:
    """The longest text that a call goes on from."""
    if call.prompts == 1:
        return msgspec.json.decode(call.fields["prompt"], type=str)
    return max(msgspec.json.decode(call.fields["prompt"], type=list[str]), key=len)


def by_prompt(call: Call) -> tuple[Call, ...]:
    """The same call once for each of its prompts."""
    if call.prompts == 1:
        return (call,)
    choices = call.n // call.prompts
    return tuple(
        replace(call, fields=call.fields | {"prompt": bytes(prompt)}, n=choices, prompts=1)
        for prompt in _prompts.decode(call.fields["prompt"])
    )


def outgoing(call: Call, target: Target) -> dict[str, bytes]:
    """The fields for a replica; usage is always asked for, to account."""
    fields = dict(call.fields)
    if target.dialect != "openai":
        _refuse_lacking(fields, target.dialect)
    if target.dialect == "llama":
        fields = llama.completion(fields)
    fields["model"] = msgspec.json.encode(target.model)
    if call.stream:
        fields["stream_options"] = b'{"include_usage":true}'
    return fields


def _refuse_lacking(fields: dict[str, bytes], dialect: Dialect) -> None:
    """What replicas of this dialect would ignore in silence."""
    is_llama, stops = dialect == "llama", fields.get("stop", b"[]") != b"[]"
    lacks: list[tuple[str, bool, str]] = [
        ("suffix", "suffix" in fields, "it cannot insert text; leave it out"),
        ("best_of", "best_of" in fields, "ask for 'n' choices and choose among them yourself"),
        (
            "echo",
            is_llama and fields.get("echo") == b"true",
            "it has no log-probabilities of a prompt; leave out 'echo' or 'logprobs'",
        ),
        ("max_tokens", is_llama and fields["max_tokens"] == b"0", "it writes at least one"),
        ("logprobs", is_llama and "logprobs" in fields and stops, "not together with 'stop'; leave out one"),
    ]
    for name, is_wanted, reason in lacks:
        if is_wanted:
            message = f"'{name}' is not supported by the engine of this model: {reason}."
            raise InvalidRequest(message, param=name, code="unsupported_parameter")


def _check(request: CompletionRequest, prompts: int) -> None:
    choices = request.n or 1
    if prompts * choices > MAX_CHOICES:
        message = f"{prompts} prompts of {choices} choices are more than {MAX_CHOICES} answers; split them."
        raise InvalidRequest(message, param="n")
    if request.best_of is not None and request.best_of < choices:
        raise InvalidRequest("'best_of' must be at least 'n'.", param="best_of")
    if request.best_of is not None and request.best_of > choices and request.stream:
        raise InvalidRequest("'best_of' cannot be streamed.", param="best_of")
    if request.max_tokens == 0 and not request.echo:
        raise InvalidRequest("'max_tokens' must be at least 1, except with 'echo'.", param="max_tokens")
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest("'stream_options' needs 'stream': true.", param="stream_options")


def _texts(value: str | list[str | int | list[int]]) -> list[str]:
    items: list[Any] = [value] if isinstance(value, str) else value
    if not items:
        raise InvalidRequest("'prompt' is empty; give at least one text.", param="prompt")
    if len(items) > MAX_PROMPTS and isinstance(items[0], str):
        raise InvalidRequest(
            f"'prompt' has {len(items)} texts; send at most {MAX_PROMPTS} in one call.", param="prompt"
        )
    for index, item in enumerate(items):
        where = "prompt" if isinstance(value, str) else f"prompt[{index}]"
        if not isinstance(item, str):
            raise InvalidRequest(
                f"'{where}' holds LLM token ids; which vocabulary they are of is not known, so send texts.",
                param=where,
                code="token_ids_not_supported",
            )
        if not item:
            raise InvalidRequest(f"'{where}' is empty; give a text to go on from.", param=where)
    return items
