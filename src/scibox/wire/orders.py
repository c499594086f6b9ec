"""What a replica is sent for a call, and how its answer is to be read: `order` joins the two.

A call is in OpenAI's words. A replica that lacks something (llama.cpp does not force a tool call) is sent
other words for it, and the `Reading` says how to undo that in the answer, so that the client never sees it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from scibox.core.types import Call, Dialect, Thinking

from . import chat, completions, embeddings, extras, reasoning


@dataclass(frozen=True, slots=True)
class Target:
    """What must be known of a replica to write to it."""

    model: str  # the name it is known by there
    dialect: Dialect = "openai"
    has_tools: bool = True  # its chat template shows tools to the model
    thinking: Thinking = "auto"


@dataclass(frozen=True, slots=True)
class Reading:
    """How the answer to one order is read (`wire/answers.py`)."""

    wants_usage: bool = True
    thinking: Thinking = "none"
    choices: int = 1
    is_text: bool = True  # words, not vectors
    has_stop_words: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """One request to a replica: the path below its prefix, the body, and how to read the answer."""

    path: str
    body: bytes
    reading: Reading


def _thinking(call: Call, dialect: Dialect) -> Call:
    """Tell the chat template whether to reason; other servers have no way in common."""
    if call.thinks is None or dialect == "openai":
        return call
    given = msgspec.json.decode(call.fields.get("chat_template_kwargs", b"null")) or {}
    told = msgspec.json.encode({"enable_thinking": call.thinks, **given})
    return replace(call, fields={**call.fields, "chat_template_kwargs": told})


def order(call: Call, target: Target) -> Order:
    """The request for this replica; `InvalidRequest` names a parameter that it does not understand."""
    if call.kind == "embedding":
        return Order(call.path, embeddings.render(call, target.model), Reading(is_text=False))
    call = _thinking(call, target.dialect)
    fields = extras.render(call.fields, target.dialect, call.model)
    if call.path == completions.PATH:
        body = completions.render(replace(call, fields=fields), target.model, target.dialect)
        return Order(call.path, body, Reading(wants_usage=call.wants_usage, choices=call.n))
    reading = Reading(
        wants_usage=call.wants_usage,
        thinking=reasoning.expected(call, target.thinking, target.model),
        choices=call.n,
        has_stop_words=any(call.fields.get(name, b"null") != b"null" for name in ("stop", "stop_token_ids")),
    )
    if target.dialect == "llama" and call.path == "/chat/completions":
        # Its own separation shows a tag that the budget cut, and knows no block that the template opened.
        fields["reasoning_format"] = b'"none"'
    return Order(call.path, chat.render(replace(call, fields=fields), target.model), reading)
