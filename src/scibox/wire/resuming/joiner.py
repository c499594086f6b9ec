"""Makes the events of a replica that goes on with an answer look like those of the one that began it."""

from __future__ import annotations

from typing import Any

import msgspec

from scibox.core.errors import UpstreamBroken
from scibox.wire.llama.dialect import Undo
from scibox.wire.llama.tidy import Tidy

from .order import Rest

COMMENT = b": resumed on another replica\n\n"
COMMENT_OF_SAME = b": resumed on the same replica\n\n"
# An engine that repeats what it continues says it at once; a short text may be what really follows.
LEAST_ECHO = 16

Json = dict[str, Any]  # Any: a decoded answer of a replica
_decoder = msgspec.json.Decoder(Json)
_BROKEN = "The model server that went on with the answer could not be understood; try again in a few seconds."
_ENVELOPE = ("id", "created", "model", "system_fingerprint")


class Joiner:
    """One id, one role, one end, and one usage, for what `rest` asked for.

    `tokens` are those of `rest.sent`, `counted` what the other replica counts them as in its prompt. Where
    the answer `is_complete`, `tokens` are those of all that was said, and only its end and its usage are
    taken. `echoes`: the replica may begin with the text that it was given.
    """

    def __init__(
        self, rest: Rest, tokens: int, counted: int, *, is_complete: bool, echoes: bool, undo: Undo | None
    ) -> None:
        self._rest = rest
        self._tokens = tokens
        self._counted = counted
        self._is_complete = is_complete
        self._tidy = None if undo is None else Tidy(undo)
        given = rest.own + rest.sent
        self._echo = given if echoes and len(given) >= LEAST_ECHO else ""
        self._overlap = rest.overlap
        self._held = ""

    def event(self, data: bytes) -> bytes | None:
        """The data as it joins what was said; None where nothing of it is new."""
        try:
            if self._tidy is not None:
                [data] = self._tidy.event(data)
            event = _decoder.decode(data)
            if event.get("error") is not None or "choices" not in event:
                return data  # for the reader to judge
            event["choices"] = [one for one in map(self._choice, event["choices"] or []) if one is not None]
            usage = event.get("usage")
            if usage is not None and self._rest.said.has_usage:
                usage = event["usage"] = None
            if usage is not None:
                event["usage"] = self._usage(usage)
            if not event["choices"] and usage is None:
                return None
            return msgspec.json.encode(self._in_envelope(event))
        except (
            msgspec.MsgspecError,
            UnicodeDecodeError,
            RecursionError,
            LookupError,
            TypeError,
            AttributeError,
        ):
            raise UpstreamBroken(_BROKEN) from None

    def _in_envelope(self, event: Json) -> Json:
        first = self._rest.said.envelope
        if not first:
            return event
        return {name: value for name, value in event.items() if name not in _ENVELOPE} | dict(first)

    def _choice(self, choice: Json) -> Json | None:
        """The choice with what is new of it; None where that is nothing."""
        ended = choice.get("finish_reason") is not None
        is_chat = choice.get("text") is None
        delta: Json = (choice.get("delta") or {}) if is_chat else choice
        if is_chat and any(delta.get(name) for name in ("tool_calls", "reasoning_content", "reasoning")):
            raise UpstreamBroken(_BROKEN)  # what it says is not what was continued
        if self._rest.said.envelope:
            delta.pop("role", None)
        name = "content" if is_chat else "text"
        text = self._new(delta.get(name) or "", ended=ended)
        if not text and (not ended or self._rest.said.has_ended):
            return None if self._rest.said.envelope or not delta.get("role") else choice
        if is_chat and not text:
            delta.pop(name, None)
        else:
            delta[name] = text
        return {**choice, "delta": delta} if is_chat else choice

    def _new(self, text: str, *, ended: bool) -> str:
        """What of these signs has not been said yet; held back while they may be a repetition."""
        if self._is_complete:
            return ""
        self._held += text
        if self._echo:
            if self._held.startswith(self._echo):
                self._held = self._held[len(self._echo) :]
            elif self._echo.startswith(self._held) and not ended:
                return ""
            self._echo = ""
        if self._overlap:
            if self._held.startswith(self._overlap):
                self._held = self._held[len(self._overlap) :]
            elif self._overlap.startswith(self._held) and not ended:
                return ""
            else:
                self._held = _beyond(self._overlap, self._held)
            self._overlap = ""
        new, self._held = self._held, ""
        return new

    def _usage(self, usage: Json) -> Json:
        """The prompt once, and all that was said."""
        prompt = max(0, (usage.get("prompt_tokens") or 0) - self._counted)
        own = 0 if self._is_complete else usage.get("completion_tokens") or 0
        completion = self._tokens + own
        told = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict) and details.get("cached_tokens"):
            told["prompt_tokens_details"] = {
                **details,
                "cached_tokens": min(details["cached_tokens"], prompt),
            }
        return {**usage, **told}


def _beyond(overlap: str, text: str) -> str:
    """What follows `overlap` where `text` begins otherwise: white space is not said again."""
    same = next((at for at, sign in enumerate(text) if overlap[at : at + 1] != sign), len(text))
    rest = text[same:]
    return rest.lstrip() if overlap[-1:].isspace() else rest
