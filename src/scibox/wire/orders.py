"""What a replica is sent for a call, and how its answer is to be read: `order` joins the two.

A call is in OpenAI's words. A replica that lacks something (llama.cpp does not force a tool call) is sent
other words for it, and the `Reading` says how to undo that in the answer, so that the client never sees it.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from scibox.core.types import Call, Dialect, Thinking

from . import body, chat, embeddings, extras, reasoning
from .completions import face as completions
from .constraints.asked import Grammar, constraint
from .llama import dialect as llama
from .target import Target

__all__ = ["Order", "Reading", "Target", "order", "split"]


class Reading(Struct, frozen=True):
    """How the answer to one order is read (`wire/answers.py`)."""

    wants_usage: bool = True
    thinking: Thinking = "none"
    choices: int = 1
    is_text: bool = True  # words, not vectors
    is_chat: bool = False  # in messages
    has_stop_words: bool = False
    undo: llama.Undo | None = None  # of llama-server's answers
    grammar: str = ""  # that llama-server was given, and may have given up on


class Order(Struct, frozen=True):
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
    if call.kind != "chat":
        return Order(call.path, embeddings.render(call, target.model), Reading(is_text=False))
    call = _thinking(call, target.dialect)
    reading = Reading(
        wants_usage=call.wants_usage,
        thinking=reasoning.expected(call, target.thinking, target.model),
        choices=call.n,
        is_chat=call.path == chat.PATH,
        has_stop_words=_asks(call, "stop") or _asks(call, "stop_token_ids"),
    )
    call = replace(call, fields=extras.render(call.fields, target.dialect, call.model))
    if call.path == completions.PATH:
        fields = completions.outgoing(call, target)
        return Order(call.path, body.encode(fields), replace(reading, grammar=_grammar(call, target, fields)))
    if target.dialect != "llama":
        return Order(call.path, chat.render(call, target.model), reading)
    fields, undo = llama.render(call, target)
    # Its own separation shows a tag that the budget cut, and knows no block that the template opened.
    fields["reasoning_format"] = b'"none"'
    thinking: Thinking = "none" if undo.is_bound else reading.thinking
    reading = replace(reading, thinking=thinking, undo=undo, grammar=_grammar(call, target, fields))
    return Order(call.path, body.encode(fields), reading)


def _asks(call: Call, name: str) -> bool:
    return call.fields.get(name, b"null") != b"null"


def _grammar(call: Call, target: Target, fields: dict[str, bytes]) -> str:
    """The grammar that the answer must keep to, not a caller's own: that may count LLM tokens."""
    if target.dialect != "llama" or "grammar" not in fields:
        return ""
    found = constraint(call.fields)
    if found and isinstance(found[1], Grammar):
        return ""
    return msgspec.json.decode(fields["grammar"], type=str)


def split(call: Call) -> tuple[Call, ...]:
    """The same call once for each of its choices; with a seed, choice i has the seed plus i."""
    return tuple(one for part in completions.by_prompt(call) for one in _choices(part))


def _choices(call: Call) -> Iterator[Call]:
    if call.n == 1:
        yield call
        return
    fields = {name: raw for name, raw in call.fields.items() if name != "n"}
    seed = fields.get("seed", b"null")
    for index in range(call.n):
        own = {} if seed == b"null" else {"seed": b"%d" % (msgspec.json.decode(seed, type=int) + index)}
        yield replace(call, fields=fields | own, n=1)
