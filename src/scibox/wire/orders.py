"""What a replica is sent for a call, and how its answer is to be read: `order` joins the two.

A call is in OpenAI's words. A replica that lacks something (llama.cpp does not force a tool call) is sent
other words for it, and the `Reading` says how to undo that in the answer, so that the client never sees it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from scibox.core.types import Call, Dialect, Thinking

from . import body, chat, embeddings, llama


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
    undo: llama.Undo | None = None  # of llama-server's answers


@dataclass(frozen=True, slots=True)
class Order:
    """One request to a replica: the path below its prefix, the body, and how to read the answer."""

    path: str
    body: bytes
    reading: Reading


def order(call: Call, target: Target) -> Order:
    """The request for this replica."""
    if call.kind == "embedding":
        return Order(call.path, embeddings.render(call, target.model), Reading())
    if target.dialect == "llama" and call.path == chat.PATH:
        fields, undo = llama.render(call, target.model, has_tools=target.has_tools)
        return Order(call.path, body.encode(fields), Reading(call.wants_usage, target.thinking, undo))
    reading = Reading(wants_usage=call.wants_usage, thinking=target.thinking)
    return Order(call.path, chat.render(call, target.model), reading)


def split(call: Call) -> tuple[Call, ...]:
    """The same call once for each of its choices; with a seed, choice i has the seed plus i."""
    if call.n == 1:
        return (call,)
    fields = {name: raw for name, raw in call.fields.items() if name != "n"}
    seed = fields.get("seed", b"null")
    calls = []
    for index in range(call.n):
        own = {} if seed == b"null" else {"seed": b"%d" % (msgspec.json.decode(seed, type=int) + index)}
        calls.append(replace(call, fields=fields | own, n=1))
    return tuple(calls)
