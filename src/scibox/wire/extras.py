"""Parameters beyond OpenAI's: which there are, their ranges, and what each engine calls them.

Sources: vLLM's page "OpenAI-Compatible Server" (extra parameters), llama.cpp's `tools/server/README.md`. Not
on the list, on purpose, is what a caller must not decide: addresses and routing (`api_base`, `base_url`,
`fallbacks`, `kv_transfer_params`, `vllm_xargs`, which carries it, `mm_processor_kwargs`, `media_io_kwargs`),
the queue (`priority`: fairness is the gateway's), slots and adapters of an engine (`id_slot`, `lora`),
whether a prompt may be left in a cache that others' prompts are in (`cache_prompt`), code for the server
(`chat_template`), other ways to search that multiply the work (`use_beam_search`, and `length_penalty`, which
means nothing without it), and `reasoning_format`: reasoning is always separated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from scibox.core.errors import InvalidRequest
from scibox.core.types import Dialect

from . import body

Share = Annotated[float, Meta(ge=0, le=1)]
Size = Annotated[int, Meta(ge=0, le=2**31 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Penalty = Annotated[float, Meta(gt=0, le=100)]
# llama.cpp allocates a ring of this many entries before it looks at the context; -1 it refuses by now.
Window = Annotated[int, Meta(ge=0, le=65_536)]
Word = Annotated[str, Meta(min_length=1, max_length=1_000)]
Rule = Annotated[str, Meta(min_length=1, max_length=65_536)]
Object = dict[str, Any]  # Any: other people's JSON schemas and template variables


class Extras(Struct):
    """What vLLM, llama.cpp or both understand."""

    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Share | None = None
    repetition_penalty: Penalty | None = None
    repeat_penalty: Penalty | None = None
    ignore_eos: bool | None = None
    chat_template_kwargs: Object | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    min_tokens: Size | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=128)] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    bad_words: Annotated[list[Word], Meta(max_length=128)] | None = None
    allowed_token_ids: Annotated[list[TokenId], Meta(min_length=1, max_length=4_096)] | None = None
    prompt_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    include_reasoning: bool | None = None
    thinking_token_budget: Size | None = None
    add_special_tokens: bool | None = None
    documents: Annotated[list[dict[str, str]], Meta(max_length=1_000)] | None = None
    cache_salt: Annotated[str, Meta(min_length=1, max_length=1_024)] | None = None

    typical_p: Share | None = None
    top_n_sigma: Annotated[float, Meta(ge=-1, le=100)] | None = None
    repeat_last_n: Window | None = None
    dynatemp_range: Annotated[float, Meta(ge=0, le=2)] | None = None
    dynatemp_exponent: Annotated[float, Meta(ge=0, le=10)] | None = None
    mirostat: Annotated[int, Meta(ge=0, le=2)] | None = None
    mirostat_tau: Annotated[float, Meta(ge=0, le=100)] | None = None
    mirostat_eta: Share | None = None
    xtc_probability: Share | None = None
    xtc_threshold: Share | None = None
    dry_multiplier: Annotated[float, Meta(ge=0, le=100)] | None = None
    dry_base: Annotated[float, Meta(ge=1, le=100)] | None = None
    dry_allowed_length: Annotated[int, Meta(ge=0, le=65_536)] | None = None
    dry_penalty_last_n: Window | None = None
    dry_sequence_breakers: (
        Annotated[list[Annotated[str, Meta(min_length=1, max_length=40)]], Meta(min_length=1, max_length=32)]
        | None
    ) = None
    min_keep: Annotated[int, Meta(ge=0, le=1_000)] | None = None

    structured_outputs: Object | None = None
    guided_json: str | Object | None = None
    guided_regex: Rule | None = None
    guided_choice: Annotated[list[Word], Meta(min_length=1, max_length=1_000)] | None = None
    guided_grammar: Rule | None = None
    grammar: Rule | None = None
    json_schema: Object | None = None


NAMES = frozenset(Extras.__struct_fields__)
# Ways to constrain an answer. For llama.cpp `structure` translates them, so they stay as they came.
STRUCTURES = frozenset(
    {"structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"}
    | {"grammar", "json_schema"}
)
_BOTH = frozenset(
    {"top_k", "min_p", "repetition_penalty", "repeat_penalty", "ignore_eos", "chat_template_kwargs"}
    | {"add_generation_prompt", "continue_final_message"}
)
_VLLM = frozenset(
    {"min_tokens", "stop_token_ids", "include_stop_str_in_output", "skip_special_tokens"}
    | {"spaces_between_special_tokens", "bad_words", "allowed_token_ids", "prompt_logprobs"}
    | {"return_token_ids", "return_tokens_as_token_ids", "include_reasoning", "thinking_token_budget"}
    | {"add_special_tokens", "documents", "cache_salt"}
    | {"structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"}
)
_LLAMA = frozenset(NAMES - _VLLM) | STRUCTURES
UNDERSTOOD: Mapping[Dialect, frozenset[str]] = {
    "openai": frozenset(),
    "vllm": _BOTH | _VLLM,
    "llama": _BOTH | _LLAMA,
}
CHAT_ONLY = frozenset(
    {"chat_template_kwargs", "add_generation_prompt", "continue_final_message", "documents"}
    | {"include_reasoning", "thinking_token_budget"}
)
# The same thing under another name.
_RENAMED: Mapping[Dialect, Mapping[str, str]] = {
    "openai": {},
    "vllm": {"repeat_penalty": "repetition_penalty"},
    "llama": {"repetition_penalty": "repeat_penalty"},
}
# vLLM before 0.12 had a parameter for each kind of structure; `structured_outputs` has a field for each.
_GUIDED = {
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
}
_decoder = msgspec.json.Decoder(Extras)


def check(fields: Mapping[str, bytes], *, is_chat: bool = True) -> None:
    """Types and ranges of the extras among the fields of a request; `InvalidRequest` names one at fault."""
    asked = given(fields)
    if not asked:
        return
    extras, _ = body.decode(body.encode({name: fields[name] for name in asked}), _decoder)
    for name in asked:
        if name in CHAT_ONLY and not is_chat:
            message = f"'{name}' is about a dialogue; it belongs to /v1/chat/completions."
            raise InvalidRequest(message, param=name, code="unsupported_parameter")
    if extras.repetition_penalty is not None and extras.repeat_penalty is not None:
        raise InvalidRequest(
            "'repeat_penalty' and 'repetition_penalty' are two names of one thing; give one.",
            param="repeat_penalty",
        )
    if extras.add_generation_prompt and extras.continue_final_message:
        raise InvalidRequest(
            "'continue_final_message' needs 'add_generation_prompt': false.", param="continue_final_message"
        )


def given(fields: Mapping[str, bytes]) -> list[str]:
    """The extras that a request asks for; null asks for nothing."""
    if NAMES.isdisjoint(fields):  # nearly always
        return []
    return [name for name, raw in fields.items() if name in NAMES and raw != b"null"]


def render(fields: Mapping[str, bytes], dialect: Dialect, model: str) -> dict[str, bytes]:
    """The fields as a replica of this dialect understands them.

    One that it does not is refused: engines ignore what they do not know, and nobody would notice.
    """
    if NAMES.isdisjoint(fields):
        return dict(fields)
    asked = given(fields)
    for name in asked:
        if name not in UNDERSTOOD[dialect]:
            raise InvalidRequest(_refusal(name, dialect, model), param=name, code="unsupported_parameter")
    sent = {name: raw for name, raw in fields.items() if name not in NAMES}
    renamed = _RENAMED[dialect]
    sent |= {renamed.get(name, name): fields[name] for name in asked}
    return _structured(sent) if dialect == "vllm" else sent


def _structured(fields: dict[str, bytes]) -> dict[str, bytes]:
    """vLLM's older parameters as the fields of its newer one."""
    guided = [name for name in _GUIDED if name in fields]
    if not guided:
        return fields
    if len(guided) > 1 or "structured_outputs" in fields:
        raise InvalidRequest("Give one constraint, not several.", param=guided[-1])
    [name] = guided
    fields["structured_outputs"] = body.encode({_GUIDED[name]: fields.pop(name)})
    return fields


def _refusal(name: str, dialect: Dialect, model: str) -> str:
    if dialect == "openai":
        return (
            f"'{name}' is not among OpenAI's parameters, and nothing more is known of the server behind "
            f"'{model[:100]}'. Remove it; if it is a vLLM or llama.cpp server, its operator can say so "
            f'(dialect = "vllm" or "llama" in its deployment).'
        )
    return (
        f"'{name}' is not understood by the engine that serves '{model[:100]}'; it understands "
        f"{', '.join(sorted(UNDERSTOOD[dialect]))}."
    )
