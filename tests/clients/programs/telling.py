"""What the programs share: each thing they do is told as one line of JSON, also when it fails; then the next.

    {"did": "chat", "found": {...}}    or    {"did": "chat", "failed": "BadRequestError: ..."}

Only the standard library: it is imported in every client's environment.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

BASE_URL, SECRET = os.environ["SCIBOX_BASE_URL"], os.environ["SCIBOX_API_KEY"]
CHAT, EMBEDDER = "smollm2-135m-instruct", "multilingual-e5-small"

HELLO = "Say hello to the reader in one short sentence."
STORY = "Tell me a long story about a ship in a storm."
WEATHER_QUESTION = "What is the weather in Moscow, in celsius?"
TEXTS = ["Привет, мир", "Hello, world", "你好"]

# What forced tools and structured answers are asked for; the rules on the other side have the same (rules.py).
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Moscow", "Paris", "Tokyo"]},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city", "unit", "days"],
    "additionalProperties": False,
}
WEATHER_TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": WEATHER},
}


def thing(do: Callable[[], Any]) -> Callable[[], Any]:
    """Does it at once, and tells what came of it under the function's name."""
    try:
        found = asyncio.run(do()) if inspect.iscoroutinefunction(do) else do()
        line = {"did": do.__name__, "found": found}
    except Exception as error:
        traceback.print_exc()
        line = {"did": do.__name__, "failed": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    return do


class Arrivals:
    """When each piece of a stream came, in seconds since it was asked for."""

    def __init__(self) -> None:
        self._asked = time.monotonic()
        self.pieces: list[tuple[float, str]] = []

    def came(self, text: str | None) -> None:
        """A piece, if there is something in it."""
        if text:
            self.pieces.append((round(time.monotonic() - self._asked, 4), text))

    def told(self) -> dict[str, Any]:
        """All of them, and when the stream ended."""
        return {"pieces": self.pieces, "ended": round(time.monotonic() - self._asked, 4)}


def watched(stream: Callable[[Callable[[str | None], None]], Any]) -> dict[str, Any]:
    """Lets `stream` hand over each text as it comes.

    Tried three times at most, until the first piece came early: a program that was not given the processor
    for a second sees a stream all at once. One that is held back by the service is late every time.
    """
    for _ in range(3):
        arrivals = Arrivals()
        stream(arrivals.came)
        told = arrivals.told()
        if arrivals.pieces and arrivals.pieces[0][0] < told["ended"] / 2:
            break
    return told


def arrivals(ask: Callable[[], Iterable[str | None]]) -> dict[str, Any]:
    """The same for a stream that is iterated; `ask` begins a new one each time."""

    def stream(came: Callable[[str | None], None]) -> None:
        for text in ask():
            came(text)

    return watched(stream)


def error_of(call: Callable[[], Any]) -> str:
    """The class of the error that the call ends with."""
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "none"
