"""Long prompts are refused before the engine works on them, as far as their length can be known.

Texts to embed are measured in `lengths.py`.
"""

from __future__ import annotations

from scibox.core.errors import ContextTooLong, SciBoxError
from scibox.core.fit import Fit, chat_overhead, fit
from scibox.core.types import Call
from scibox.wire import chat

from .replica import Replica
from .tokenizer import Tokenizer, of


async def refuse_too_long(tokenizer: Tokenizer, call: Call, replica: Replica) -> None:
    """Raise `ContextTooLong` for a chat that cannot fit; count it only where the bounds do not tell.

    Counting runs in the engine's HTTP thread and takes no slot.
    """
    if call.kind != "chat":
        return
    match _fit(call, replica):
        case Fit.TOO_LONG:
            raise _too_long(call, replica, None)
        case Fit.UNKNOWN if replica.counts:
            count = await _count(tokenizer, call, replica)
            if replica.context is not None and count >= replica.context:
                raise _too_long(call, replica, count)
        case _:
            return


def _fit(call: Call, replica: Replica) -> Fit:
    """What the bounds say; a chat is read for the second one only where the first does not tell."""
    overhead = chat_overhead(call.items)
    found = fit(call.text_bytes, call.solid_bytes, replica.context, overhead)
    if found is not Fit.UNKNOWN or call.solid_bytes:
        return found
    return fit(call.text_bytes, chat.least_bytes(call), replica.context, overhead)


async def _count(tokenizer: Tokenizer, call: Call, replica: Replica) -> int:
    """LLM tokens of the prompt; 0 where that cannot be learned: the engine itself will say."""
    try:
        return (await tokenizer.tokens(of(call), replica)).count
    except SciBoxError:
        return 0


def _too_long(call: Call, replica: Replica, count: int | None) -> ContextTooLong:
    length = f"{count} LLM tokens" if count else f"{call.text_bytes} bytes"
    return ContextTooLong(
        f"The text in 'messages' is too long: it has {length}, the model's context is "
        f"{replica.context} LLM tokens. Shorten it or split it.",
        param="messages",
    )
