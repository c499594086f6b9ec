"""The call that makes another replica go on with an answer, from the text that has been said.

vLLM and SGLang continue a last message of the assistant's that `continue_final_message` names, llama-server
always does; older completions go on from any text. Other servers would begin a new message. Not continued
are answers whose state is more than their text: calls of tools, constraints, log-probabilities, reasoning,
which chat templates take out of a message again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from scibox.core.types import Call, Dialect, Thinking
from scibox.wire import extras
from scibox.wire.completions import face as completions
from scibox.wire.constraints.asked import constraint
from scibox.wire.parting import OPEN

from .memory import MAX_TEXT_BYTES, Said

CONTINUES = frozenset({"vllm", "llama"})  # dialects
_OFF = frozenset(
    {
        *("logprobs", "top_logprobs", "prompt_logprobs", "return_token_ids", "echo", "suffix", "best_of"),
        *("return_tokens_as_token_ids", "thinking_token_budget"),
    }
)
_NO = (b"null", b"false")
_LIMITS = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class Rest:
    """What is asked of the other replica, and how its answer joins what was said.

    `sent` is the text it goes on from, `overlap` what was said beyond it and is to come again first; what
    they are in LLM tokens is known once `sent` has been counted (`Rest.call`).
    """

    said: Said
    sent: str
    overlap: str
    own: str = ""  # the beginning of the answer that the caller wrote itself

    @property
    def sent_deltas(self) -> int:
        """Deltas that `sent` came in; the last of them may be counted too few."""
        left, deltas = len(self.overlap), self.said.deltas
        for piece in reversed(self.said.pieces):
            if left <= 0:
                break
            left, deltas = left - len(piece), deltas - 1
        return max(0, deltas)

    def tokens(self, counted: int | None) -> int:
        """LLM tokens of `sent`. A delta is one or more; a text may be made of more than it is split into."""
        return max(counted or 0, self.sent_deltas) if self.sent else 0

    def all_tokens(self, counted: int | None) -> int:
        """LLM tokens of all that was said."""
        return self.tokens(counted) + self.said.deltas - self.sent_deltas

    def is_complete(self, call: Call, counted: int | None) -> bool:
        """Whether nothing is to be added to the text: only how it ended and what it cost is to be told."""
        limit = _limit(call.fields)
        return self.said.has_ended or (limit is not None and self.tokens(counted) >= limit)

    def call(self, call: Call, counted: int | None) -> Call:
        """The call for the other replica, if `sent` is `counted` LLM tokens there (None: not known)."""
        if not self.sent:
            return call
        tokens = self.tokens(counted)
        fields = dict(call.fields)
        for name in _LIMITS:
            if fields.get(name, b"null") != b"null":
                fields[name] = b"%d" % max(1, msgspec.json.decode(fields[name], type=int) - tokens)
        if fields.get("min_tokens", b"null") != b"null":
            fields["min_tokens"] = b"%d" % max(
                0, msgspec.json.decode(fields["min_tokens"], type=int) - tokens
            )
        if call.path == completions.PATH:
            prompt = msgspec.json.decode(fields["prompt"], type=str)
            fields["prompt"] = msgspec.json.encode(prompt + self.sent)
        else:
            fields["messages"] = _continued(fields["messages"], self.own, self.sent)
            fields |= {"continue_final_message": b"true", "add_generation_prompt": b"false"}
        return replace(call, fields=fields)


def keeps(call: Call) -> int | None:
    """How many bytes of the answer's text are worth keeping; None where nothing helps.

    Any answer of one choice of which nothing has been said can be asked for again.
    """
    if not call.stream or call.kind != "chat" or call.n != 1:
        return None
    return MAX_TEXT_BYTES if _is_plain(call.fields) else 0


def rest(call: Call, said: Said, dialect: Dialect, thinking: Thinking) -> Rest | None:
    """What another replica can be asked for; None where it cannot go on."""
    if not said.text:
        return Rest(said, "", "")
    own = ""
    if call.path != completions.PATH:
        if dialect not in CONTINUES or thinking == "opened" or _may_reason(said.text):
            return None
        continued = _own_beginning(call, dialect)
        if continued is None:
            return None
        own = continued
    cut = _cut(said.text, call.fields)
    return Rest(said, said.text[:cut], said.text[cut:], own)


def _is_plain(fields: Mapping[str, bytes]) -> bool:
    offers = fields.get("tools", b"null") not in (b"null", b"[]") and fields.get("tool_choice") != b'"none"'
    asked = (name for name in _OFF & fields.keys() if fields[name] not in _NO)
    is_constrained = not extras.STRUCTURES.isdisjoint(extras.given(fields)) or constraint(fields) is not None
    return not offers and not is_constrained and not any(True for _ in asked)


def _may_reason(text: str) -> bool:
    begins = text.lstrip()
    return begins.startswith(OPEN) or OPEN.startswith(begins)


def _own_beginning(call: Call, dialect: Dialect) -> str | None:
    """The text of the caller's last message, where the answer continues it; None if it is in parts."""
    last = msgspec.json.decode(call.fields["messages"], type=list[dict[str, Any]])[-1]
    is_continued = dialect == "llama" or call.fields.get("continue_final_message") == b"true"
    if last.get("role") != "assistant" or not is_continued or last.get("tool_calls"):
        return ""
    content = last.get("content")
    return content if isinstance(content, str) else None


def _continued(messages: bytes, own: str, sent: str) -> bytes:
    """The messages with one more, or with more in the last one."""
    if not own:
        message = msgspec.json.encode({"role": "assistant", "content": sent})
        return messages.rstrip()[:-1] + b"," + message + b"]"
    given = msgspec.json.decode(messages, type=list[Raw])
    last: dict[str, Any] = msgspec.json.decode(given[-1])
    given[-1] = Raw(msgspec.json.encode({**last, "content": own + sent}))
    return msgspec.json.encode(given)


def _cut(text: str, fields: Mapping[str, bytes]) -> int:
    """Where the other replica goes on: before white space at the end, and before half a stop sequence.

    Templates trim what they continue; and white space alone is split into other LLM tokens than what it was
    made of, so that with greedy decoding another text would follow (docs/engines.md). A stop sequence is
    looked for only in what a replica says itself.
    """
    stops = msgspec.json.decode(fields.get("stop", b"null"), type=str | list[str] | None) or []
    for stop in [stops] if isinstance(stops, str) else stops:
        for size in range(len(stop) - 1, 0, -1):
            if text.endswith(stop[:size]):
                text = text[: len(text) - size]
                break
    return len(text.rstrip())


def _limit(fields: Mapping[str, bytes]) -> int | None:
    told = [fields[name] for name in _LIMITS if fields.get(name, b"null") != b"null"]
    return min(msgspec.json.decode(raw, type=int) for raw in told) if told else None
