"""`/tokenize` and `/detokenize`: vLLM's shapes over every tokenizer that can be asked."""

import asyncio
import json

import pytest

from rig import CHAT, LIMITED, SECRET, rig
from scibox.engines.fake_script import Script
from scibox.wire import chat

TEXT = {"model": "chatty", "prompt": "one two three"}
DIALOGUE = {"model": "chatty", "messages": [{"role": "user", "content": "one two"}]}


@pytest.mark.parametrize("tokenizer", ["llama", "vllm"])
@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
async def test_a_text_is_split(path: str, tokenizer: str) -> None:
    async with rig(tokenizer=tokenizer) as r:  # type: ignore[arg-type]
        answer = await r.client.post(path, json=TEXT)
        strings = await r.client.post(path, json={**TEXT, "return_token_strs": True})

    assert answer.status_code == 200
    told = answer.json()
    assert (told["count"], told["max_model_len"], told["token_strs"]) == (3, 8192, None)
    assert len(set(told["tokens"])) == 3
    assert strings.json() == {**told, "token_strs": ["one", "two", "three"]}


@pytest.mark.parametrize("tokenizer", ["llama", "vllm"])
async def test_a_dialogue_is_counted_as_the_engine_counts_it(tokenizer: str) -> None:
    async with rig(tokenizer=tokenizer) as r:  # type: ignore[arg-type]
        answer = await r.client.post("/tokenize", json=DIALOGUE)
        said = await r.client.post("/v1/chat/completions", json=DIALOGUE)

    assert answer.json()["count"] == said.json()["usage"]["prompt_tokens"]


@pytest.mark.parametrize("tokenizer", ["llama", "vllm"])
@pytest.mark.parametrize("path", ["/detokenize", "/v1/detokenize/"])
async def test_ids_become_text(path: str, tokenizer: str) -> None:
    async with rig(tokenizer=tokenizer) as r:  # type: ignore[arg-type]
        answer = await r.client.post(path, json={"model": "chatty", "tokens": [5, 7]})

    assert answer.json() == {"prompt": "t5 t7"}


async def test_what_the_replica_is_asked_names_it_by_its_own_name_and_shows_the_template_all_fields() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    body = {**DIALOGUE, "model": "gpt-test", "tools": tools, "add_generation_prompt": False}
    async with rig(tokenizer="vllm") as r:
        await r.client.post("/tokenize", json=body)
        [asked] = r.engine.requests
    async with rig() as r:
        await r.client.post("/tokenize", json=body)
        [template, split] = r.engine.requests

    assert asked.path == "/tokenize"
    assert asked.json["model"] == "fake-model"
    for sent in (asked.json, template.json):
        assert (sent["tools"], sent["add_generation_prompt"]) == (tools, False)
    assert (template.path, split.path) == ("/apply-template", "/tokenize")
    assert split.json["add_special"] is True


async def test_every_kind_of_model_splits_texts_but_only_chat_models_have_a_template() -> None:
    async with rig() as r:
        text = await r.client.post("/tokenize", json={**TEXT, "model": "vectors"})
        dialogue = await r.client.post("/tokenize", json={**DIALOGUE, "model": "vectors"})

    assert (text.status_code, text.json()["max_model_len"]) == (200, 512)
    assert (dialogue.status_code, dialogue.json()["error"]["code"]) == (400, "wrong_kind_of_model")


@pytest.mark.parametrize(
    ("path", "changes", "param"),
    [
        ("/tokenize", {"prompt": None}, "prompt"),
        ("/tokenize", {"messages": DIALOGUE["messages"]}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": None, "messages": []}, "messages"),
        ("/tokenize", {"prompt": None, "messages": [{"role": "alien", "content": "x"}]}, "messages[0].role"),
        ("/tokenize", {"add_generation_prompt": True}, "add_generation_prompt"),
        ("/tokenize", {"url": "http://127.0.0.1:1"}, "url"),
        ("/tokenize", {"model": ""}, "model"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": [2**31]}, "tokens[0]"),
        ("/detokenize", {"tokens": [1.5]}, "tokens[0]"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
        ("/detokenize", {}, "tokens"),
    ],
)
async def test_what_cannot_be_split_is_named(path: str, changes: dict[str, object], param: str) -> None:
    body = {**(TEXT if path == "/tokenize" else {"model": "chatty"}), **changes}
    async with rig() as r:
        answer = await r.client.post(path, json={k: v for k, v in body.items() if v is not None})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert not r.engine.requests


async def test_a_text_too_long_to_count_is_refused() -> None:
    async with rig(max_body_bytes=8 * 2**20) as r:
        answer = await r.client.post("/tokenize", json={**TEXT, "prompt": "x " * 2**20 + "y"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert not r.engine.requests


async def test_a_model_without_a_tokenizer_names_those_that_have_one() -> None:
    async with rig(tokenizer=None) as r:
        answer = await r.client.post("/tokenize", json=TEXT)

    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, "model", "tokenizer_not_available")
    assert "none" in error["message"]


async def test_keys_and_names_count_as_everywhere() -> None:
    async with rig() as r:
        nobody = await r.client.post("/tokenize", json=TEXT, headers={"authorization": ""})
        other = await r.client.post("/tokenize", json=TEXT, headers={"authorization": f"Bearer {LIMITED}"})

    assert nobody.status_code == 401
    assert (other.status_code, other.json()["error"]["code"]) == (404, "model_not_found")
    assert not r.engine.requests


async def test_no_slot_is_taken_and_no_call_counted() -> None:
    async with rig() as r:
        r.engine.script = Script(first_chunk_delay_s=5)
        waiting = asyncio.create_task(r.client.post("/v1/chat/completions", json=CHAT))
        while not r.engine.in_flight:
            await asyncio.sleep(0.01)
        answer = await r.client.post("/tokenize", json=TEXT)
        in_flight = r.gate.in_flight
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    assert answer.status_code == 200
    assert in_flight == 1


async def test_the_next_replica_is_asked_when_one_is_away() -> None:
    async with rig(fallback=True, tokenizer="llama") as r:
        answer = await r.client.post("/tokenize", json=TEXT)

    assert answer.status_code == 200


async def test_an_engine_that_is_away_is_a_503() -> None:
    async with rig() as r:
        await r.engine.stop()
        away = await r.client.post("/tokenize", json=TEXT)

    assert away.status_code == 503
    assert away.headers["retry-after"]


async def test_a_face_counts_with_the_call_it_parsed() -> None:
    """`pipeline.count(key, call)` is for every API that counts, e.g. Anthropic's `count_tokens`."""
    call = chat.parse("req", json.dumps({**DIALOGUE, "max_tokens": 5}).encode())
    async with rig() as r:
        count = await r.door.pipeline.count(await r.door.pipeline.enter(SECRET), call)
        said = await r.client.post("/v1/chat/completions", json=DIALOGUE)

    assert count == said.json()["usage"]["prompt_tokens"]
