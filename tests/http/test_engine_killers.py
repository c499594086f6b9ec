"""Bodies that are known to kill or slow engines: refused quickly, and the engine never hears of them."""

import json
import time
from typing import Any

from rig import CHAT, Rig, rig


def chat(**fields: Any) -> bytes:
    return json.dumps({**CHAT, **fields}).encode()


def raw(field: str, literal: bytes) -> bytes:
    return chat()[:-1] + b', "' + field.encode() + b'": ' + literal + b"}"


def schema(value: bytes) -> bytes:
    return raw(
        "response_format", b'{"type":"json_schema","json_schema":{"name":"n","schema":' + value + b"}}"
    )


def parameters(value: bytes) -> bytes:
    return raw("tools", b'[{"type":"function","function":{"name":"f","parameters":' + value + b"}}]")


DEEP = b"[" * 100_000
KILLERS = {
    "deep body": DEEP,
    "deep messages": b'{"model":"chatty","messages":' + DEEP,
    "deep metadata": raw("metadata", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "deep schema": schema(b'{"items":' * 100_000 + b"{}" + b"}" * 100_000),
    "deep parameters": parameters(b'{"items":' * 100_000 + b"{}" + b"}" * 100_000),
    "deep arguments": chat(
        messages=[
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":' * 100_000}}
                ],
            }
        ]
    ),
    "NaN": raw("temperature", b"NaN"),
    "Infinity": raw("top_p", b"-Infinity"),
    "huge number": raw("temperature", b"1" + b"0" * 400),
    "huge exponent": raw("presence_penalty", b"1e999"),
    "huge integer": raw("seed", b"9" * 100_000),
    "n": chat(n=10**9),
    "max_tokens": chat(max_tokens=10**12),
    "top_logprobs": chat(logprobs=True, top_logprobs=10**9),
    "lone surrogate": raw("user", rb'"\ud800"'),
    "lone surrogate in a message": rb'{"model":"chatty","messages":[{"role":"user","content":"\udfff"}]}',
    "lone surrogate in a schema": schema(rb'{"const":"\ud800"}'),
    "no UTF-8": b'{"model":"chatty","messages":[{"role":"user","content":"\xff\xfe"}]}',
    "no messages": chat(messages=[]),
    "no parts": chat(messages=[{"role": "user", "content": []}]),
    "null content": chat(messages=[{"role": "user", "content": None}]),
    "unknown role": chat(messages=[{"role": "alien", "content": "x"}]),
    "bad schema": schema(b'{"type":"strin"}'),
    "schema that is none": schema(b"5"),
    "schema with an endless pattern": schema(rb'{"type":"string","pattern":"((a{1000}){1000}){1000}"}'),
    "schema with a bad pattern": schema(rb'{"type":"string","pattern":"(a"}'),
    "schema with a million items": schema(b'{"type":"array","minItems":1000000}'),
    "schema with a chain": schema(
        json.dumps(
            {
                "$defs": {
                    f"a{i}": {"properties": {"x": {"$ref": f"#/$defs/a{i + 1}"}}} for i in range(3_000)
                },
                "$ref": "#/$defs/a0",
            }
        ).encode()
    ),
    "schema elsewhere": schema(b'{"$ref":"http://169.254.169.254/"}'),
    "schema that cannot be enforced": schema(b'{"type":"array","uniqueItems":true}'),
    "parameters with a million items": parameters(
        b'{"properties":{"a":{"type":"array","maxItems":1000000}}}'
    ),
    "tools that are none": raw("tools", b'[null, 5, {"type": []}]'),
    "many stops": chat(stop=["x"] * 100_000),
    "many biases": raw("logit_bias", json.dumps({str(i): 1 for i in range(50_000)}).encode()),
    "many unknown fields": json.dumps({**CHAT, **{f"x{i}": 1 for i in range(50_000)}}).encode(),
    "a long name": raw("x" * 900_000, b"1"),
}


async def seconds(r: Rig, body: bytes) -> tuple[float, Any]:
    began = time.monotonic()
    answer = await r.client.post("/v1/chat/completions", content=body)
    return time.monotonic() - began, answer


async def test_engine_killers_are_stopped_at_the_door_and_cost_little() -> None:
    async with rig() as r:
        harmless = sorted([(await seconds(r, chat()))[0] for _ in range(9)])[4]
        r.engine.requests.clear()
        for name, body in KILLERS.items():
            tries = [await seconds(r, body) for _ in range(3)]

            for _, answer in tries:
                assert answer.status_code == 400, (name, answer.text)
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}, name
                assert answer.json()["error"]["param"], name
                assert len(answer.content) < 2_000, name
            assert r.engine.requests == [], name
            # A whole answer of the fake takes 3 to 5 ms, so this is 0.1 s and some room for a slow machine.
            assert min(spent for spent, _ in tries) < 50 * harmless, name
        assert (await seconds(r, chat()))[1].status_code == 200
