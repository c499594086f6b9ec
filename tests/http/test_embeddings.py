import base64
import struct

from rig import rig


async def test_vectors_in_the_order_of_the_texts() -> None:
    async with rig() as r:
        many = (await r.client.post("/v1/embeddings", json={"model": "vectors", "input": ["a", "b"]})).json()
        one = (await r.client.post("/v1/embeddings", json={"model": "vectors", "input": "b"})).json()

    assert [item["index"] for item in many["data"]] == [0, 1]
    assert many["data"][1]["embedding"] == one["data"][0]["embedding"]
    assert many["usage"]["prompt_tokens"] > 0
    assert r.ended[0].usage.prompt_tokens == many["usage"]["prompt_tokens"]


async def test_base64_is_the_same_vector() -> None:
    async with rig() as r:
        body = {"model": "vectors", "input": "text"}
        plain = (await r.client.post("/v1/embeddings", json=body)).json()["data"][0]["embedding"]
        packed = (await r.client.post("/v1/embeddings", json={**body, "encoding_format": "base64"})).json()

    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert struct.pack(f"<{len(plain)}f", *plain) == raw
