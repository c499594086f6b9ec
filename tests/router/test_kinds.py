"""What each kind of server says of itself, in its own documented words, is understood."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from spoken import spoken

from rig import CHAT, rig
from scibox.core.types import Call
from scibox.router import discovery, health
from scibox.router.replica import LEARNT, Replica
from scibox.upstream.address import Address
from scibox.upstream.client import Client
from scibox.wire.orders import order

NOTHING: frozenset[str] = frozenset()


def models(*names: str, owner: str, **more: Any) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 1, "owned_by": owner, **more} for name in names],
    }


def replica(url: str, model: str = "m", **more: Any) -> Replica:
    return Replica(Address.parse(url), model, dialect=None, **more)


VLLM = models("m", owner="vllm", root="org/m", parent=None, max_model_len=8192, permission=[])
SGLANG = models("m", owner="sglang", root="m", max_model_len=4096)
SGLANG_INFO = {
    "model_path": "org/m",
    "max_running_requests": None,
    "dp_size": 2,
    "version": "0.5.18",
    "internal_states": [{"last_gen_throughput": 1.5, "effective_max_running_requests_per_dp": 64}],
}
LLAMA = models("m", owner="llamacpp", meta={"vocab_type": 2, "n_ctx": 3072, "n_ctx_train": 8192})
PROPS = {"total_slots": 4, "chat_template": "", "chat_template_caps": {"supports_tools": True}}
OLLAMA = models("m:latest", "other:7b", owner="library")
SHOWN = {
    "parameters": 'stop    "<|end|>"\nnum_ctx    16384',
    "model_info": {"general.architecture": "llama", "llama.context_length": 131072},
}
TEI_INFO = {
    "model_id": "org/m",
    "model_dtype": "float16",
    "model_type": {"embedding": {"pooling": "cls"}},
    "max_concurrent_requests": 512,
    "max_input_length": 510,
    "max_batch_tokens": 16384,
    "max_client_batch_size": 32,
    "version": "1.9.0",
}
LITELLM_INFO = {
    "data": [
        {"model_name": "m", "litellm_params": {"model": "a/x"}, "model_info": {"max_input_tokens": 200_000}},
        {"model_name": "m", "litellm_params": {"model": "b/x"}, "model_info": {"max_input_tokens": 128_000}},
        {"model_name": "n", "litellm_params": {"model": "c/x"}, "model_info": {"max_input_tokens": None}},
    ]
}
SCIBOX = models("m", owner="physics", kind="chat", root="m", max_model_len=2048)
SCIBOX_KEY = {
    "id": "key_1",
    "limits": [
        {
            "of": "key",
            "model": None,
            "limit": "calls_per_minute",
            "amount": 60,
            "remaining": 60,
            "reset_s": 0,
        },
        {"of": "key", "model": None, "limit": "calls_in_flight", "amount": 8, "remaining": 8, "reset_s": 0},
    ],
}
INFO = {"vllm_config": {"scheduler_config": {"max_num_seqs": 256}}}

KINDS: list[tuple[str, dict[str, Any], tuple[Any, ...], str]] = [
    ("vllm", {"GET /v1/models": VLLM}, ("vllm", 8192, None), "GET /health"),
    (
        "vllm",
        {"GET /v1/models": VLLM, "GET /server_info": INFO},
        ("vllm", 8192, 256),
        "GET /health",
    ),
    (
        "sglang",
        {"GET /v1/models": SGLANG, "GET /get_server_info": SGLANG_INFO},
        ("vllm", 4096, 128),
        "GET /health",
    ),
    ("llama", {"GET /v1/models": LLAMA, "GET /props": PROPS}, ("llama", 3072, 4), "GET /health"),
    (
        "ollama",
        {"GET /v1/models": OLLAMA, "GET /api/ps": {"models": []}, "POST /api/show": SHOWN},
        ("openai", 16384, None),
        "GET /api/version",
    ),
    (
        "ollama",
        {
            "GET /v1/models": OLLAMA,
            "GET /api/ps": {"models": [{"name": "m:latest", "context_length": 4096}]},
            "POST /api/show": SHOWN,
        },
        ("openai", 4096, None),
        "GET /api/version",
    ),
    ("tei", {"GET /info": TEI_INFO}, ("openai", 510, 512), "GET /health"),
    (
        "litellm",
        {
            "GET /v1/models": models("m", "n", owner="openai"),
            "GET /health/liveliness": '"I\'m alive!"',
            "GET /model/info": LITELLM_INFO,
        },
        ("openai", 128_000, None),
        "GET /health/liveliness",
    ),
    (
        "scibox",
        {"GET /v1/models": SCIBOX, "GET /v1/key": SCIBOX_KEY},
        ("vllm", 2048, 8),
        "GET /ready",
    ),
]


@pytest.mark.parametrize(("kind", "says", "found", "well"), KINDS)
async def test_it_is_recognised_and_tells_what_it_can(
    kind: str, says: dict[str, Any], found: tuple[Any, ...], well: str
) -> None:
    async with spoken(says) as server:
        one = replica(server.url)
        client = Client(2.0)
        assert await health.examine(client, one) is None
        assert (one.kind, one.dialect, one.context, one.slots) == (kind, *found)
        assert one.doubt is None
        assert one.texts == (32 if kind == "tei" else None)

        stated = replica(server.url, context=7, slots=3)
        await health.examine(client, stated)
        assert (stated.context, stated.slots) == (7, 3)  # what the operator says holds

        server.asked.clear()
        server.says[well] = says.get(well, "")
        assert await discovery.probe(client, one) is None
        assert server.asked == [well]
        server.says[well] = (503, {"error": {"message": "Loading model"}})
        assert "503" in str(await discovery.probe(client, one))
        del server.says[well]  # a proxy that passes on the API alone
        server.asked.clear()
        await discovery.probe(client, one)
        assert server.asked[:2] == [well, "GET /v1/models"]
        client.close()


async def test_a_server_that_says_nothing_of_itself_is_taken_for_openais() -> None:
    for says in (
        {},
        {"GET /v1/models": "<html>"},
        {"GET /v1/models": {"data": [{"id": "m", "owned_by": None}]}, "GET /health/liveliness": (403, "")},
        {"GET /v1/models": {"data": "none"}, "GET /info": {"name": "something else"}},
        {"GET /v1/models": OLLAMA, "GET /api/ps": "[", "POST /api/show": {"parameters": 3}},
    ):
        async with spoken(says) as server:
            one = replica(server.url)
            assert await health.examine(Client(2.0), one) is None
            assert (one.dialect, one.context, one.slots, one.is_known) == ("openai", None, None, True)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_refused_is_told_of(status: int) -> None:
    async with spoken(
        {"GET /v1/models": (status, {"error": {"message": "key sk-canary is wrong"}})}
    ) as server:
        one = replica(server.url, secret="sk-canary")
        words = await health.examine(Client(2.0), one)
        assert one.away
        assert "upstream_key_env" in one.away.words
        assert "sk-canary" not in f"{words} {one.away.words} {one.doubt}"


async def test_openais_own_service_gets_its_headers_and_its_newer_names() -> None:
    says = {"GET /v1/models": models("gpt-x", "gpt-y", owner="system")}
    async with spoken(says) as server:
        address = replace(
            Address.parse(server.url),
            headers=(("openai-organization", "org-1"), ("openai-project", "proj_1")),
        )
        one = Replica(address, "gpt-x", "sk-canary", dialect=None, kind="openai", stated=NOTHING)
        assert await health.examine(Client(2.0), one) is None
        assert one.kind == "openai"
        assert server.asked == ["GET /v1/models"]  # nothing that is not OpenAI's
        assert "openai-organization: org-1\r\nopenai-project: proj_1\r\n" in server.heads[0]
        assert "authorization: Bearer sk-canary" in server.heads[0]
        call = Call(
            "r", "chat", "m", "/chat/completions", {"messages": b"[]", "max_tokens": b"5"}, max_tokens=5
        )
        assert b'"max_completion_tokens":5' in order(call, one.target).body
        assert b'"max_tokens"' not in order(call, one.target).body
        one.kind = None
        assert b'"max_tokens":5' in order(call, one.target).body


def test_its_address_says_what_openais_service_is() -> None:
    assert Address.parse("https://api.openai.com/v1").host == discovery.OPENAI
    assert "dialect" in LEARNT


async def test_a_server_that_takes_few_texts_in_one_call_gets_no_more() -> None:
    async with rig(texts=3) as r:
        answer = await r.client.post(
            "/v1/embeddings", json={"model": "vectors", "input": [f"t {n}" for n in range(10)]}
        )
        assert len(answer.json()["data"]) == 10
        sizes = [len(one.json["input"]) for one in r.engine.requests if one.path == "/v1/embeddings"]
    assert sorted(sizes) == [1, 3, 3, 3]


async def test_the_key_that_a_server_quotes_reaches_nobody() -> None:
    """The rig's key for its upstream is `upstream-secret`."""
    from scibox.engines.fake_script import Script

    async with rig(remote=True) as r:
        for status in (400, 401, 404, 422, 429, 500, 503):
            quoted = b'{"error":{"message":"Incorrect API key provided: upstream-secret."}}'
            r.engine.script = Script(status=status, body=quoted)
            for stream in (False, True):
                answer = await r.client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
                assert "upstream-secret" not in answer.text, status
        told = [str(event) for event in r.events]
    assert "upstream-secret" not in "".join(told)
