"""What one streamed event costs on its way through `wire/`: microseconds of CPU, best of many rounds.

python bench/events.py
"""

from __future__ import annotations

import json
import time
import timeit

from scibox.core.types import Thinking
from scibox.wire import answers, sse
from scibox.wire.orders import Reading

EVENTS = 2_000
ROUNDS = 15
CASES: tuple[tuple[str, Thinking, str], ...] = (
    ("nothing to separate", "none", " token"),
    ("an answer", "auto", " token"),
    ("an answer in Russian", "auto", " слово"),
    ("an answer with escapes", "auto", '\n"x"'),
    ("reasoning, every event", "opened", " token"),
)


def event(text: str) -> bytes:
    """An event of about 220 bytes, as vLLM writes them."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    chunk = {
        "id": "chatcmpl-8a1f0c9e",
        "object": "chat.completion.chunk",
        "created": 1_795_519_449,
        "model": "Qwen2.5-72B-Instruct-AWQ",
        "choices": [choice],
    }
    return sse.render(json.dumps(chunk, separators=(",", ":"), ensure_ascii=False).encode())


def relay(events: list[bytes], thinking: Thinking) -> None:
    """One stream, event by event."""
    stream = answers.Stream(Reading(thinking=thinking))
    for data in events:
        for _ in stream.feed(data):
            pass


def main() -> None:
    """Print the figures."""
    for name, thinking, text in CASES:
        events = [event(text)] * EVENTS
        best = min(
            timeit.repeat(
                lambda e=events, t=thinking: relay(e, t), timer=time.process_time, number=1, repeat=ROUNDS
            )
        )
        print(f"{name:24} ({thinking:6}) {best / EVENTS * 1e6:6.2f} us per event")


if __name__ == "__main__":
    main()
