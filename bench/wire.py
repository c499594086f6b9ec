"""What a chat request costs in `wire/`: CPU of parse and order (an event of the answer: `bench/events.py`).

    python bench/wire.py

Aims (issue of the wire): 60 us for a request of 1 kB, 3 ms for 1 MB. The ratio is to `orjson.loads` of the
same bytes, which makes Python objects of them and checks nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import msgspec
import orjson

from scibox.wire import chat
from scibox.wire.constraints import schemas
from scibox.wire.orders import Target, order

LATIN, CYRILLIC = "a word or two of it, ", "слово за словом, "
PERSON = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("name", "city", "street", "phone")},
    "required": ["name", "city", "street", "phone"],
    "additionalProperties": False,
}


def cpu_s(work: Callable[[], object], runs: int) -> float:
    """CPU seconds of one run: the best of seven rounds."""
    best = float("inf")
    for _ in range(7):
        began = time.process_time()
        for _ in range(runs):
            work()
        best = min(best, (time.process_time() - began) / runs)
    return best


def request(text: str, size: int, messages: int, *, escaped: bool = False, **more: object) -> bytes:
    """A body of about that many bytes."""
    one = len(json.dumps(text, ensure_ascii=escaped).encode()) - 2
    said = text * (size // messages // one)
    roles = ("user", "assistant")
    body = {"model": "m", "messages": [{"role": roles[i % 2], "content": said} for i in range(messages)]}
    return json.dumps({**body, "temperature": 0.7, "max_tokens": 64, **more}, ensure_ascii=escaped).encode()


def structured() -> dict[str, object]:
    """A schema and eight tools."""
    tools = [
        {"type": "function", "function": {"name": f"f{i}", "description": "Does it.", "parameters": PERSON}}
        for i in range(8)
    ]
    named = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    return {"tools": tools, "response_format": named}


def requests() -> None:
    """The table of requests."""
    cases = {
        "1 kB": request(LATIN, 1_000, 3, stream=True, stream_options={"include_usage": True}),
        "1 kB, schema and 8 tools beside": request(LATIN, 1_000, 3, **structured()),
        "1 MB in one message": request(LATIN, 1_000_000, 1),
        "1 MB in 2,000 messages": request(LATIN, 1_000_000, 2_000),
        "1 MB in one message, Cyrillic": request(CYRILLIC, 1_000_000, 1),
        "1 MB in 2,000 messages, Cyrillic": request(CYRILLIC, 1_000_000, 2_000),
        "1 MB in one message, Cyrillic as \\uXXXX": request(CYRILLIC, 1_000_000, 1, escaped=True),
    }
    target = Target("real")
    print(f"{'request':42}{'bytes':>10}{'us':>10}{'orjson us':>12}{'ratio':>8}")
    for name, body in cases.items():
        runs = 2_000 if len(body) < 10_000 else 20
        spent = cpu_s(lambda body=body: order(chat.parse("r", body), target), runs)  # type: ignore[misc]
        plain = cpu_s(lambda body=body: orjson.loads(body), runs)  # type: ignore[misc]
        print(f"{name:42}{len(body):>10,}{spent * 1e6:>10.1f}{plain * 1e6:>12.1f}{spent / plain:>8.1f}")


def schema() -> None:
    """What a schema costs the first time; after that it is remembered."""
    raw = msgspec.json.encode(PERSON)

    def anew() -> None:
        schemas._checked.cache_clear()
        schemas.check_schema(raw, "here")

    print(f"\na schema of 4 properties, first time {cpu_s(anew, 200) * 1e6:.0f} us, ", end="")
    print(f"again {cpu_s(lambda: schemas.check_schema(raw, 'here'), 2_000) * 1e6:.1f} us")


if __name__ == "__main__":
    requests()
    schema()
