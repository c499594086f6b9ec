"""What must be known of a replica to write to it and to read it, learnt when a call first needs it."""

from __future__ import annotations

from msgspec.structs import replace

from scibox.core.errors import SciBoxError, UpstreamLost, UpstreamUnavailable
from scibox.core.types import Call, Thinking
from scibox.upstream.client import Client
from scibox.wire import extras
from scibox.wire.orders import Target
from scibox.wire.parting import OPEN

from .discovery import ask_template
from .health import FAILURES, examine
from .replica import Replica
from .tokenizer import Tokenizer

MAX_LEARNT = 256  # sets of template variables; a caller can think of any number of them
_ANY_DIALOGUE = b'[{"role":"user","content":"Hello"}]'


async def learn(client: Client, tokenizer: Tokenizer, call: Call, replica: Replica) -> Target:
    """The target of this call."""
    if call.kind != "chat":
        return replica.target
    if replica.dialect is None and extras.given(call.fields):
        await examine(client, replica, FAILURES)
        if replica.dialect is None:
            raise UpstreamUnavailable(
                "The model server cannot be asked now what it understands; try again in a few seconds.",
                retry_after_s=2,
            )
    if replica.dialect == "llama" and replica.has_tools is None and _speaks_of_tools(call):
        await ask_template(client, replica)
    thinking = replica.thinking or await _read_template(tokenizer, call, replica)
    return replace(replica.target, thinking=thinking)


def _speaks_of_tools(call: Call) -> bool:
    """Whether it offers tools, or its messages hold calls or their results."""
    return "tools" in call.fields or b'"tool' in call.fields.get("messages", b"")


async def _read_template(tokenizer: Tokenizer, call: Call, replica: Replica) -> Thinking:
    """Whether the prompt ends with an open block of reasoning, by the variables that the caller gives."""
    variables = call.fields.get("chat_template_kwargs", b"null")
    if variables not in replica.opens:
        fields = {"messages": _ANY_DIALOGUE, "chat_template_kwargs": variables}
        if variables == b"null":
            del fields["chat_template_kwargs"]
        try:
            prompt = await tokenizer.prompt(replace(call, fields=fields), replica)
        except (UpstreamUnavailable, UpstreamLost):
            raise  # it is being restarted: waited for
        except SciBoxError:
            return "auto"  # it will say itself what it does not like
        if len(replica.opens) >= MAX_LEARNT:
            replica.opens.clear()
        replica.opens[variables] = prompt.rstrip().endswith(OPEN)
    return "opened" if replica.opens[variables] else "auto"
