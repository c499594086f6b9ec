"""What the load asks: the same of every gateway, as a client of OpenAI's API sends it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

from gateways import Gateway
from model_server import MODEL

EVENTS = 200  # of each stream: two seconds
TEXT = "The quick brown fox jumps over the lazy dog near the river bank. " * 4
_numbers = itertools.count()


def _request(gateway: Gateway, path: str, body: bytes) -> bytes:
    head = (
        f"POST /v1{path} HTTP/1.1\r\nhost: 127.0.0.1:{gateway.port}\r\nuser-agent: bench\r\n"
        f"accept: application/json\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {gateway.secret}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def chat(gateway: Gateway) -> Callable[[], bytes]:
    messages = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": TEXT}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 64, "temperature": 0}
    whole = _request(gateway, "/chat/completions", json.dumps(body).encode())
    return lambda: whole


def stream(gateway: Gateway, events: int = EVENTS) -> Callable[[], bytes]:
    messages = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": TEXT}]
    options = {"stream": True, "stream_options": {"include_usage": True}}
    body = {"model": MODEL, "messages": messages, "max_tokens": events, **options}
    whole = _request(gateway, "/chat/completions", json.dumps(body).encode())
    return lambda: whole


def embeddings(gateway: Gateway) -> Callable[[], bytes]:
    """Two texts that nobody has sent before: SciBox would remember their vectors."""
    name = MODEL if gateway.name in {"nginx", "vLLM router", "direct", "bare relay"} else f"{MODEL}-vectors"
    body = {"model": name, "input": [f"@@@@@@@@@@@@ {TEXT}"] * 2, "encoding_format": "base64"}
    before, between, after = _request(gateway, "/embeddings", json.dumps(body).encode()).split(
        b"@@@@@@@@@@@@"
    )
    return lambda: b"%s%012d%s%012d%s" % (before, next(_numbers), between, next(_numbers), after)
