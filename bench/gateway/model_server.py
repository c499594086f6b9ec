"""The upstream of the comparison: a server that answers at once with bytes that are ready.

    python bench/gateway/model_server.py PORT [SECONDS]

It parses as little of a request as it can, since it shares a core with the load: where a gateway is measured,
this must not be what is measured. Chat, whole or as a stream (an event each 10 ms, each a chunk of its own; as
many as `max_tokens` says), embeddings of two texts (11 kB as base64, as OpenAI's clients ask for them), the list of models.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import random
import re
import struct
import sys

import uvloop

MODEL = "bench-model"
PACE_S = 0.01
DIMENSIONS = 1024
WORDS = 48  # in a whole chat answer
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_STREAM = re.compile(rb'"stream": ?true')
_MOST = re.compile(rb'"max_tokens": ?(\d+)')


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _whole(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _chunk(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n" % len(event) + event + b"\r\n"


def _delta(choices: list[object], **more: object) -> bytes:
    shape = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return _chunk(_json({**shape, "choices": choices, **more}))


def _piece(delta: dict[str, str], finish_reason: str | None = None) -> list[object]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]


def _vector(seed: int) -> str:
    luck = random.Random(seed)
    floats = [luck.gauss(0, 1) for _ in range(DIMENSIONS)]
    length = sum(number * number for number in floats) ** 0.5
    packed = struct.pack(f"<{DIMENSIONS}f", *(number / length for number in floats))
    return base64.b64encode(packed).decode()


_USAGE = {"prompt_tokens": 40, "completion_tokens": 48, "total_tokens": 88}
CHAT = _whole(
    _json(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": " ".join(["answer"] * WORDS)},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": _USAGE,
        }
    )
)
EMBEDDINGS = _whole(
    _json(
        {
            "object": "list",
            "model": MODEL,
            "data": [{"object": "embedding", "index": i, "embedding": _vector(i)} for i in range(2)],
            "usage": {"prompt_tokens": 16, "total_tokens": 16},
        }
    )
)
MODELS = _whole(
    _json(
        {
            "object": "list",
            "data": [
                {"id": MODEL, "object": "model", "created": 1, "owned_by": "vllm", "max_model_len": 8192}
            ],
        }
    )
)
HEALTH = _whole(b"{}")
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
FIRST = STREAM_HEAD + _delta(_piece({"role": "assistant", "content": ""}))
EVENT = _delta(_piece({"content": " answer"}))
LAST = _delta(_piece({}, "stop")) + _delta([], usage=_USAGE) + _chunk(b"[DONE]") + b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection."""

    pace_s = PACE_S

    def __init__(self) -> None:
        self._held = b""
        self._left = 0  # events of a stream still to come
        self._next_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(data, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(data) < whole:
                break
            self._answer(data[:end], data[end + 4 : whole])
            data = data[whole:]
        self._held = data

    def _answer(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        write = self._transport.write  # type: ignore[attr-defined]
        if path.endswith(b"/chat/completions"):
            if _STREAM.search(body):
                most = _MOST.search(body)
                self._left = int(most[1]) if most else 16
                write(FIRST)
                self._next_at = self._loop.time() + self.pace_s
                self._loop.call_at(self._next_at, self._tick)
            else:
                write(CHAT)
        elif path.endswith(b"/embeddings"):
            write(EMBEDDINGS)
        else:
            write(MODELS if path.endswith(b"/models") else HEALTH)

    def _tick(self) -> None:
        if self._transport.is_closing():
            return
        write = self._transport.write  # type: ignore[attr-defined]
        if not self._left:
            write(LAST)
            return
        write(EVENT)
        self._left -= 1
        self._next_at += self.pace_s
        self._loop.call_at(self._next_at, self._tick)


async def main(port: int, pace_s: float) -> None:
    Upstream.pace_s = pace_s
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    gc.disable()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else PACE_S))
