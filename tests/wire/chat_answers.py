"""Chat answers for the faces' tests: one answer as a whole body and, cut anywhere, as a stream."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
ENVELOPE = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "served"}


@dataclass(frozen=True)
class Told:
    reasoning: str
    text: str
    calls: tuple[tuple[str, str], ...]
    finish_reason: str

    def whole(self) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = [
                {"id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for at, (name, arguments) in enumerate(self.calls)
            ]
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return json.dumps(
            {**ENVELOPE, "object": "chat.completion", "choices": [choice], "usage": USAGE}, indent=1
        ).encode()

    def stream(self, size: int) -> list[bytes]:
        """The events, every text cut into pieces of `size` characters."""
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
        deltas += [{"reasoning_content": piece} for piece in _cut(self.reasoning, size)]
        deltas += [{"content": piece} for piece in _cut(self.text, size)]
        for at, (name, arguments) in enumerate(self.calls):
            head = {"index": at, "id": f"call_{at}", "type": "function"}
            deltas.append({"tool_calls": [{**head, "function": {"name": name, "arguments": ""}}]})
            for piece in _cut(arguments, size):
                deltas.append({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})
        chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": self.finish_reason}]})
        chunks.append({"choices": [], "usage": USAGE})
        events = [{**ENVELOPE, "object": "chat.completion.chunk", **chunk} for chunk in chunks]
        return [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events] + [b"data: [DONE]\n\n"]


def _cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
ARGUMENTS = st.dictionaries(TEXT, TEXT, max_size=2).map(json.dumps)
CALLS = st.lists(st.tuples(st.sampled_from(["weather", "time"]), ARGUMENTS), max_size=2).map(tuple)
TOLD = st.builds(Told, TEXT, TEXT, CALLS, st.sampled_from(["stop", "length", "tool_calls"]))


def events(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Named events as (name, data); every event has both, on a line each."""
    found = []
    for event in data.decode().split("\n\n")[:-1]:
        name, line = event.split("\n")
        assert name.startswith("event: ")
        assert line.startswith("data: ")
        found.append((name.removeprefix("event: "), json.loads(line.removeprefix("data: "))))
    return found
