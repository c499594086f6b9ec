"""How a chat answer is told as a Response: one object, or a stream of named events with sequence numbers.

Source: OpenAI's API reference, "The response object" and "Streaming events".
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from scibox.core.errors import SciBoxError
from scibox.wire import sse
from scibox.wire.pieces import Closed, Grown, Opened, Piece, Pieces, Step, read

_ITEM_PREFIX = {"reasoning": "rs", "text": "msg", "refusal": "msg", "tool": "fc"}


class Echo(Struct):
    """What a response repeats of its request."""

    model: str
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    prompt_cache_key: str | None
    reasoning: dict[str, str | None]
    safety_identifier: str | None
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float | None
    user: str | None


class ResponsesReply:
    """One response. `as_summary`: reasoning is told in summary parts."""

    def __init__(self, request_id: str, echo: Echo, *, as_summary: bool) -> None:
        self._hex = request_id.removeprefix("req_")
        self._echo = msgspec.structs.asdict(echo)
        self._as_summary = as_summary
        self._pieces = Pieces()
        self._events = sse.EventSplitter()
        self._sequence_number = 0
        self._has_begun = False

    def whole(self, body: bytes) -> bytes:
        """The response object of a whole chat answer."""
        self._pieces.add(read(body))
        self._pieces.end()
        return msgspec.json.encode(self._finished())

    def event(self, data: bytes) -> bytes:
        """The events that one event of the chat stream causes."""
        return b"".join(self._event(event) for event in self._events.feed(data))

    def error_event(self, error: SciBoxError) -> bytes:
        """`response.failed`, or `error` where the response has not begun."""
        if not self._has_begun:
            return self._tell("error", code=error.code, message=error.message, param=error.param)
        code = "server_error" if error.status >= 500 else "invalid_prompt"
        failure = {"code": code, "message": error.message, "param": error.param, "type": error.type}
        return self._tell("response.failed", response=self._response("failed", error=failure))

    def _event(self, data: bytes) -> bytes:
        if data == b"[DONE]":  # chat's word for the end; this API has an event for it
            told = b"".join(map(self._step, self._pieces.end()))
            response = self._finished()
            return told + self._tell(f"response.{response['status']}", response=response)
        steps = self._pieces.add(read(data))
        told = b""
        if not self._has_begun:
            self._has_begun = True
            begun = self._response("in_progress")
            told = self._tell("response.created", response=begun)
            told += self._tell("response.in_progress", response=begun)
        return told + b"".join(map(self._step, steps))

    def _step(self, step: Step) -> bytes:
        piece = step.piece
        place: dict[str, Any] = {"item_id": self._id(piece), "output_index": piece.position}
        match step:
            case Opened():
                item = self._item(piece, "in_progress")
                told = self._tell("response.output_item.added", item=item, output_index=piece.position)
                return told + self._open_part(piece, place)
            case Grown():
                more: dict[str, Any] = {"logprobs": step.logprobs} if piece.kind == "text" else {}
                return self._tell(
                    f"{self._stem(piece)}.delta", delta=step.text, **place, **self._at(piece), **more
                )
            case Closed():
                item = self._item(piece, self._item_status(piece))
                told = self._close_part(piece, place)
                return told + self._tell("response.output_item.done", item=item, output_index=piece.position)

    def _open_part(self, piece: Piece, place: dict[str, Any]) -> bytes:
        if piece.kind == "tool":
            return b""
        name = self._part_event(piece)
        return self._tell(f"{name}.added", part=self._part(piece, is_empty=True), **place, **self._at(piece))

    def _close_part(self, piece: Piece, place: dict[str, Any]) -> bytes:
        stem, at = f"{self._stem(piece)}.done", self._at(piece)
        match piece.kind:
            case "tool":
                return self._tell(stem, arguments=piece.text, name=piece.name, **place)
            case "refusal":
                told = self._tell(stem, refusal=piece.text, **place, **at)
            case "text":
                told = self._tell(stem, text=piece.text, logprobs=piece.logprobs, **place, **at)
            case "reasoning":
                told = self._tell(stem, text=piece.text, **place, **at)
        return told + self._tell(f"{self._part_event(piece)}.done", part=self._part(piece), **place, **at)

    def _stem(self, piece: Piece) -> str:
        """The name of the events that carry a piece's text."""
        reasoning = "reasoning_summary_text" if self._as_summary else "reasoning_text"
        names = {"text": "output_text", "tool": "function_call_arguments", "reasoning": reasoning}
        return f"response.{names.get(piece.kind, piece.kind)}"

    def _part_event(self, piece: Piece) -> str:
        is_summary = piece.kind == "reasoning" and self._as_summary
        return "response.reasoning_summary_part" if is_summary else "response.content_part"

    def _at(self, piece: Piece) -> dict[str, int]:
        """Which part of its item: there is one."""
        if piece.kind == "tool":
            return {}
        return {"summary_index" if piece.kind == "reasoning" and self._as_summary else "content_index": 0}

    def _part(self, piece: Piece, *, is_empty: bool = False) -> dict[str, Any]:
        text = "" if is_empty else piece.text
        match piece.kind:
            case "refusal":
                return {"type": "refusal", "refusal": text}
            case "reasoning":
                return {"type": "summary_text" if self._as_summary else "reasoning_text", "text": text}
            case _:
                logprobs = [] if is_empty else piece.logprobs
                return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}

    def _item(self, piece: Piece, status: str) -> dict[str, Any]:
        item: dict[str, Any] = {"id": self._id(piece), "status": status}
        parts = [] if status == "in_progress" else [self._part(piece)]
        match piece.kind:
            case "tool":
                call = {
                    "call_id": piece.call_id or f"call_{self._hex}{piece.position:02d}",
                    "name": piece.name,
                }
                return {**item, "type": "function_call", **call, "arguments": piece.text}
            case "reasoning":
                told, other = ("summary", "content") if self._as_summary else ("content", "summary")
                return {**item, "type": "reasoning", told: parts, other: [], "encrypted_content": None}
            case _:
                return {**item, "type": "message", "role": "assistant", "content": parts}

    def _item_status(self, piece: Piece) -> str:
        """Only the last item can have been cut."""
        is_last = piece is self._pieces.all[-1]
        return "incomplete" if is_last and self._incomplete_reason() else "completed"

    def _id(self, piece: Piece) -> str:
        return f"{_ITEM_PREFIX[piece.kind]}_{self._hex}{piece.position:02d}"

    def _incomplete_reason(self) -> str | None:
        reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
        return reasons.get(self._pieces.finish_reason or "")

    def _finished(self) -> dict[str, Any]:
        reason = self._incomplete_reason()
        return self._response(
            "incomplete" if reason else "completed",
            incomplete_details={"reason": reason} if reason else None,
            output=[self._item(piece, self._item_status(piece)) for piece in self._pieces.all],
            usage=self._usage(),
        )

    def _usage(self) -> dict[str, Any]:
        counts = self._pieces.usage
        return {
            "input_tokens": counts.prompt,
            "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": 0},
            "output_tokens": counts.completion,
            "output_tokens_details": {"reasoning_tokens": counts.reasoning},
            "total_tokens": counts.prompt + counts.completion,
        }

    def _response(self, status: str, **more: Any) -> dict[str, Any]:
        fixed = {
            "id": f"resp_{self._hex}",
            "object": "response",
            "created_at": self._pieces.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "output": [],
            "previous_response_id": None,
            "service_tier": "default",
            "store": False,
            "truncation": "disabled",
            "usage": None,
        }
        return {**fixed, **self._echo, "model": self._pieces.model or self._echo["model"], **more}

    def _tell(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence_number, **fields}
        self._sequence_number += 1
        return b"event: " + kind.encode() + b"\n" + sse.render(msgspec.json.encode(event))
