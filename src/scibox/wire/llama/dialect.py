"""A chat call in llama-server's words, and what of them must be undone in its answer.

What llama-server lacks, the gateway does: calls of tools are described in the prompt and forced by grammar
(its own `tool_choice` is not enforced, and a template without tools drops them), answers are constrained by
llguidance (its own conversion of schemas drops keywords in silence). Measured in docs/engines.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import Raw

from scibox.core.errors import InvalidRequest
from scibox.core.types import Call
from scibox.wire import chat
from scibox.wire.constraints import bounds, grammar, schemas
from scibox.wire.constraints.asked import FIELDS as CONSTRAINING
from scibox.wire.constraints.asked import Choice, Constraint, Grammar, Json, constraint
from scibox.wire.target import Target

from . import dialogue
from .offers import Offer, instructions, offer

_OFFERING = ("tools", "tool_choice", "parallel_tool_calls")
_NATIVE_SEEDS = 2**32 - 1  # seeds are 32 bits there, and the last of them means "any"


@dataclass(frozen=True, slots=True)
class Undo:
    """What of our own words stands in llama-server's answer.

    `prefix`: the text that was continued, which a whole answer begins with again. `calls`: whether calls of
    tools stand in the text, and whether nothing else does. `top_logprobs`: how many alternatives were wanted.
    `is_bound`: a fixed form or a beginning leaves no room for reasoning. `tells_stop`: which stop sequence
    matched is to be told.
    """

    prefix: str = ""
    calls: Literal["none", "some", "all"] = "none"
    top_logprobs: int | None = None
    is_bound: bool = False
    tells_stop: bool = False


def render(call: Call, target: Target) -> tuple[dict[str, bytes], Undo]:
    """The fields of the request, and how to read its answer; `InvalidRequest` for what cannot be had."""
    fields = chat.outgoing(call, target.model)
    fields.pop("n", None)  # one choice each: `router/choices.py` asks for the others
    found = constraint(call.fields)
    path, limit = found or ("", None)
    if limit:
        _bound(path, limit)
    offered = offer(call.fields)
    _refuse_mixtures(call.fields, limit, offered)
    for name in CONSTRAINING:
        fields.pop(name, None)
    # The template's own form of calls, which only the engine knows, cannot be forced, nor text beside it.
    has_tools, is_hermes = target.has_tools, target.is_hermes
    is_native = has_tools and not is_hermes and offered is not None and not offered.must and limit is None
    if not is_native:
        for name in _OFFERING:
            fields.pop(name, None)
    ours = None if is_native else offered
    if ours and is_hermes:  # the template describes them, in the form that we read
        _add_variables(fields, tools=[Raw(tool.whole) for tool in ours.tools])
    told = instructions(ours) if ours and not is_hermes else None
    fields["messages"], prefix = dialogue.render(fields["messages"], has_tools=has_tools, instructions=told)
    if ours:
        fields["grammar"] = _enforced(_calls(ours, limit), "tools")
    elif limit:
        fields["grammar"] = _enforced(grammar.of(limit), path)
    _continue(fields, prefix)
    is_bound = bool(prefix or limit or (ours and ours.must))
    if is_bound or fields.get("reasoning_effort") == b'"none"':  # templates without reasoning ignore it
        _add_variables(fields, enable_thinking=False)
    top = _logprobs(fields)
    _seed(fields)
    calls: Literal["none", "some", "all"] = "none" if ours is None else "all" if ours.must else "some"
    if call.wants_stop:
        fields["verbose"] = b"true"
    return fields, Undo(prefix, calls, top, is_bound, call.wants_stop)


def completion(fields: dict[str, bytes]) -> dict[str, bytes]:
    """The fields of a call of the older completions."""
    found = constraint(fields)
    fields = {name: raw for name, raw in fields.items() if name not in CONSTRAINING and name != "n"}
    if found:
        path, limit = found
        _bound(path, limit)
        _refuse_mixtures(fields, limit, None)
        fields["grammar"] = _enforced(grammar.of(limit), path)
    if fields.get("logprobs") == b"0":
        fields["logprobs"] = b"1"  # with 0 it gives none; the reply leaves the others out
    _seed(fields)
    return fields


def _bound(path: str, limit: Constraint) -> None:
    """Refuse what cannot be enforced; a call may have come through a door that does not look."""
    bounds.bound(path, limit)
    if isinstance(limit, Grammar):  # in the dialect of this engine
        schemas.check_grammar(limit.text, path)


def _calls(offered: Offer, limit: Constraint | None) -> str:
    tools = [(tool.name, tool.parameters) for tool in offered.tools]
    if offered.must:
        return grammar.calls(tools, most=offered.most)
    otherwise = grammar.rules("answer", limit) if limit else ""
    return grammar.calls(tools, most=offered.most, otherwise=otherwise)


def _refuse_mixtures(fields: dict[str, bytes], limit: Constraint | None, offered: Offer | None) -> None:
    """What would make an answer that is not what both of its fields ask for."""
    has_stop = fields.get("stop", b"null") not in {b"null", b"[]"}
    has_logprobs = fields.get("logprobs", b"null") == b"true"
    if has_stop and (isinstance(limit, Json | Choice) or (offered and offered.must)):
        raise InvalidRequest(
            "'stop' would cut an answer whose form is fixed, and which ends by itself; remove 'stop'.",
            param="stop",
        )
    if has_logprobs and offered:
        raise InvalidRequest(
            "This model gives 'logprobs' of text only, not of tool calls; remove it or 'tools'.",
            param="logprobs",
            code="unsupported_parameter",
        )
    if has_logprobs and has_stop:
        raise InvalidRequest(
            "This model cannot give 'logprobs' together with 'stop'; remove one of them.",
            param="logprobs",
            code="unsupported_parameter",
        )


def _add_variables(fields: dict[str, bytes], **more: object) -> None:
    """Give the chat template variables, over those of the caller."""
    given: dict[str, Any] = msgspec.json.decode(fields.get("chat_template_kwargs", b"null")) or {}
    fields["chat_template_kwargs"] = msgspec.json.encode(given | more)


def _continue(fields: dict[str, bytes], prefix: str) -> None:
    """A last message of the assistant's is always continued there, whatever these two say."""
    asked = fields.pop("continue_final_message", b"null")
    opens = fields.get("add_generation_prompt", b"null")
    if asked == b"true" and not prefix:
        raise InvalidRequest(
            "'continue_final_message' needs a last message of role assistant, with the text to continue.",
            param="continue_final_message",
        )
    if prefix and (asked == b"false" or opens == b"true"):
        name = "continue_final_message" if asked == b"false" else "add_generation_prompt"
        raise InvalidRequest(
            "This model continues a last message of role assistant; end with another role for a new one.",
            param=name,
        )
    if prefix:
        fields.pop("add_generation_prompt", None)


def _logprobs(fields: dict[str, bytes]) -> int | None:
    """How many alternatives are wanted; llama-server gives nothing for 0, and 20 where none are named."""
    top = fields.pop("top_logprobs", b"null")
    if fields.get("logprobs", b"null") != b"true":
        fields.pop("logprobs", None)
        return None
    wanted = 0 if top == b"null" else msgspec.json.decode(top, type=int)
    fields["top_logprobs"] = b"%d" % max(1, wanted)
    return wanted


def _seed(fields: dict[str, bytes]) -> None:
    """A seed of its kind, and what makes it give the same text again."""
    if fields.get("seed", b"null") != b"null":
        fields["seed"] = b"%d" % (msgspec.json.decode(fields["seed"], type=int) % _NATIVE_SEEDS)
        # A prompt that is computed in other pieces gives other last digits, and soon another text.
        fields["cache_prompt"] = b"false"


def _enforced(text: str, param: str) -> bytes:
    """A grammar that compiles: one that does not would be ignored, and nobody would notice."""
    if not grammar.compiles(text):
        raise InvalidRequest(
            f"'{param}' cannot be enforced while decoding; say it in a simpler way.",
            param=param,
            code="unsupported_schema",
        )
    return msgspec.json.encode(text)
