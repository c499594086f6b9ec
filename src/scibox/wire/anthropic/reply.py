"""How a chat answer is told as an Anthropic Message: one object, or a stream of named events.

Source: Anthropic's API reference, "Messages", "Streaming Messages" and "Errors".
"""

from __future__ import annotations

from typing import Any

import msgspec

from scibox.core.errors import SciBoxError
from scibox.wire import sse
from scibox.wire.pieces import Closed, Grown, Opened, Piece, Pieces, Step, read

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class MessagesReply:
    """One Message. `shows_thinking`: whether the client expects thinking blocks."""

    def __init__(self, request_id: str, model: str, *, shows_thinking: bool) -> None:
        self._request_id = request_id
        self._hex = request_id.removeprefix("req_")
        self._model = model
        self._pieces = Pieces(hides_reasoning=not shows_thinking)
        self._events = sse.EventSplitter()
        self._has_begun = False

    def whole(self, body: bytes) -> bytes:
        """The Message of a whole chat answer."""
        self._pieces.add(read(body))
        self._pieces.end()
        blocks = [self._block(piece) for piece in self._pieces.all]
        return msgspec.json.encode(self._message(blocks, **self._ending(), usage=self._usage()))

    def event(self, data: bytes) -> bytes:
        """The events that one event of the chat stream causes."""
        return b"".join(self._event(event) for event in self._events.feed(data))

    def error_event(self, error: SciBoxError) -> bytes:
        """The last event of a stream that failed."""
        return b"event: error\n" + sse.render(render_error(error, self._request_id))

    def _event(self, data: bytes) -> bytes:
        if data == b"[DONE]":  # chat's word for the end; this API has an event for it
            told = b"".join(map(self._step, self._pieces.end()))
            told += _tell("message_delta", delta=self._ending(), usage=self._usage())
            return told + _tell("message_stop")
        steps = self._pieces.add(read(data))
        told = b""
        if not self._has_begun:
            self._has_begun = True
            # How long the prompt was is known at the end: `message_delta` has it.
            begun = self._message(
                [], stop_reason=None, stop_sequence=None, usage={**self._usage(), "output_tokens": 0}
            )
            told = _tell("message_start", message=begun) + _tell("ping")
        return told + b"".join(map(self._step, steps))

    def _step(self, step: Step) -> bytes:
        piece = step.piece
        index = piece.position
        match step:
            case Opened():
                return _tell(
                    "content_block_start", index=index, content_block=self._block(piece, is_empty=True)
                )
            case Grown():
                kind, field = _DELTAS[piece.kind]
                return _tell("content_block_delta", index=index, delta={"type": kind, field: step.text})
            case Closed():
                return _tell("content_block_stop", index=index)

    def _block(self, piece: Piece, *, is_empty: bool = False) -> dict[str, Any]:
        text = "" if is_empty else piece.text
        match piece.kind:
            case "reasoning":
                return {"type": "thinking", "thinking": text, "signature": ""}
            case "tool":
                call_id = piece.call_id or f"toolu_{self._hex}{piece.position:02d}"
                return {"type": "tool_use", "id": call_id, "name": piece.name, "input": _input(text)}
            case _:
                return {"type": "text", "text": text}

    def _ending(self) -> dict[str, Any]:
        reason, sequence = _STOP_REASONS.get(self._pieces.finish_reason or "stop", "end_turn"), None
        if reason == "end_turn" and isinstance(self._pieces.stop_reason, str):
            reason, sequence = "stop_sequence", self._pieces.stop_reason
        return {"stop_reason": reason, "stop_sequence": sequence}

    def _usage(self) -> dict[str, int]:
        counts = self._pieces.usage
        return {
            "input_tokens": counts.prompt - counts.cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": counts.cached,
            "output_tokens": counts.completion,
        }

    def _message(self, content: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": f"msg_{self._hex}",
            "type": "message",
            "role": "assistant",
            "model": self._pieces.model or self._model,
            "content": content,
            **more,
        }


_DELTAS = {
    "text": ("text_delta", "text"),
    "refusal": ("text_delta", "text"),
    "reasoning": ("thinking_delta", "thinking"),
    "tool": ("input_json_delta", "partial_json"),
}


def render_error(error: SciBoxError, request_id: str) -> bytes:
    """`{"type": "error", "error": {"type", "message"}, "request_id"}`."""
    usual = "invalid_request_error" if error.status < 500 else "api_error"
    told = {"type": _ERROR_TYPES.get(error.status, usual), "message": error.message}
    return msgspec.json.encode({"type": "error", "error": told, "request_id": request_id})


def _input(arguments: str) -> dict[str, Any]:
    """A tool call's arguments; those that were cut in the middle cannot be read, and are left out."""
    try:
        return msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {}


def _tell(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\n" + sse.render(msgspec.json.encode({"type": kind, **fields}))
