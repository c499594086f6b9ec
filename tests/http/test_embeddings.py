"""Embeddings through the whole gateway: sub-calls that fail, texts in any form, the cache."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
from array import array
from pathlib import Path
from typing import Any

import httpx
import pytest

from rig import Rig, rig
from scibox.core.entries import Entry
from scibox.engines.fake_dialect import vector_of
from scibox.engines.fake_script import Script
from scibox.router.replica import EmbeddingRules
from scibox.router.router import Deadlines
from scibox.router.vectors import Packing

HELLO = [54745, 28089, 8341, 24748]  # cl100k_base of "Привет hello", by OpenAI's tokenizer
SMALL = Packing(texts_per_call=4, calls_at_once=2)


async def post(r: Rig, value: object, **more: object) -> httpx.Response:
    return await r.client.post("/v1/embeddings", json={"model": "vectors", "input": value, **more})


async def vectors(r: Rig, value: object, **more: object) -> list[Any]:
    answer = await post(r, value, **more)
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    found = [item["embedding"] for item in data]
    return [vector if isinstance(vector, str) else array("f", vector).tolist() for vector in found]


def calls(r: Rig) -> list[Any]:
    return [request.json for request in r.engine.requests if request.path == "/v1/embeddings"]


def inputs(r: Rig) -> list[str]:
    return [text for call in calls(r) for text in call["input"]]


def expected(text: str, dimensions: int = 32) -> list[float]:
    return vector_of(text, dimensions).tolist()


# one whole answer


async def test_vectors_in_the_order_of_the_texts_from_sub_calls_packed_by_length() -> None:
    texts = [f"text {'word ' * (n % 7)}{n}" for n in range(10)]
    async with rig(packing=SMALL) as r:
        found = await vectors(r, texts)

    assert found == [expected(text) for text in texts]
    assert sorted(len(call["input"]) for call in calls(r)) == [2, 4, 4]
    assert all(call["encoding_format"] == "base64" for call in calls(r))
    for call in calls(r):
        lengths = [len(text) for text in call["input"]]
        assert max(lengths) - min(lengths) <= 16


async def test_the_answer_is_openai_s_and_usage_is_settled_for_the_model_by_its_public_name() -> None:
    async with rig() as r:
        answer = (await post(r, ["one two", "three"])).json()

    assert answer["object"] == "list"
    assert answer["model"] == "vectors"
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert [(event.model, event.usage.prompt_tokens) for event in r.ended] == [("vectors", 3)]


async def test_one_text_is_the_same_bytes_alone_in_a_batch_and_in_base64() -> None:
    async with rig(packing=SMALL) as r:
        [alone] = await vectors(r, "text")
        company = await vectors(r, [*"abcdefg", "text"])
        [packed] = await vectors(r, "text", encoding_format="base64")

    assert company[-1] == alone
    assert base64.b64decode(packed) == struct.pack("<32f", *alone)


async def test_a_text_that_stands_twice_is_embedded_once_and_counted_twice() -> None:
    async with rig() as r:
        answer = (await post(r, ["same", "other", "same"])).json()

    assert sorted(inputs(r)) == ["other", "same"]
    assert answer["data"][0]["embedding"] == answer["data"][2]["embedding"]
    assert answer["usage"]["prompt_tokens"] == 3


async def test_ten_thousand_texts_are_one_call() -> None:
    texts = [f"text number {n}" for n in range(10_000)]
    async with rig() as r:
        found = await vectors(r, texts, encoding_format="base64")

    assert len(found) == 10_000
    assert base64.b64decode(found[9_999]) == vector_of(texts[9_999], 32).tobytes()
    assert len(calls(r)) == 79


# failures inside


async def test_a_failed_sub_call_is_tried_again_and_nothing_is_seen_of_it() -> None:
    texts = [f"text {n}" for n in range(12)]
    async with rig(packing=SMALL) as r:
        r.engine.next_scripts.extend([Script(), Script(status=500), Script(fault="reset")])
        found = await vectors(r, texts)

    assert found == [expected(text) for text in texts]


async def test_a_sub_call_goes_to_the_next_replica() -> None:
    async with rig(fallback=True) as r:
        assert await vectors(r, ["a", "b"]) == [expected("a"), expected("b")]


async def test_a_sub_call_that_fails_for_good_fails_the_call_as_a_whole() -> None:
    async with rig(packing=SMALL) as r:
        r.engine.script = Script(status=500)
        r.engine.next_scripts.append(Script())
        answer = await post(r, [f"text {n}" for n in range(12)])
        await r.until_idle()

    assert answer.status_code == 502
    assert "data" not in answer.json()
    assert len(calls(r)) <= 1 + 2 * 3  # two at a time, three attempts each: the third was never begun
    assert r.ended[0].usage.prompt_tokens == 8  # the four texts of the first sub-call: the engine did work


@pytest.mark.parametrize(
    "floats",
    [[math.nan] * 32, [math.inf] + [0.0] * 31, [0.0] * 32],
)
async def test_a_vector_that_is_none_is_an_error_of_the_engine(floats: list[float]) -> None:
    raw = base64.b64encode(array("f", floats).tobytes()).decode()
    body = json.dumps({"data": [{"index": 0, "embedding": raw}], "usage": {"prompt_tokens": 1}})
    async with rig() as r:
        r.engine.script = Script(body=body.encode())
        answer = await post(r, "text")

    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_error"


async def test_vectors_are_of_unit_length_whatever_the_engine_gives() -> None:
    body = json.dumps({"data": [{"index": 0, "embedding": [3.0, 4.0]}], "usage": {"prompt_tokens": 1}})
    async with rig() as r:
        r.engine.script = Script(body=body.encode())
        assert await vectors(r, "text") == [pytest.approx([0.6, 0.8])]


async def test_a_text_that_the_server_refuses_is_named_wherever_it_was_sent() -> None:
    texts = [f"text {n}" for n in range(9)]
    texts[6] = "far too many words for this"
    async with rig(remote=True, counts=False, context=None) as r:
        r.engine.context = 4
        answer = await post(r, texts)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input[6]"
    assert answer.json()["error"]["code"] == "context_length_exceeded"


async def test_a_client_that_leaves_stops_the_sub_calls() -> None:
    async with rig(packing=Packing(texts_per_call=1, calls_at_once=2)) as r:
        r.engine.script = Script(first_chunk_delay_s=30)
        with pytest.raises(httpx.ReadTimeout):
            await r.client.post(
                "/v1/embeddings", json={"model": "vectors", "input": ["a", "b", "c"]}, timeout=0.3
            )
        await r.until_idle(1.0)

    assert r.engine.abandoned == 2
    assert len(calls(r)) == 2
    assert [event.outcome.value for event in r.ended] == ["client_gone"]


async def test_the_whole_call_has_one_deadline() -> None:
    async with rig(deadlines=Deadlines(5.0, 5.0, 0.3), packing=Packing(texts_per_call=1)) as r:
        r.engine.script = Script(first_chunk_delay_s=0.2)
        answer = await post(r, [f"text {n}" for n in range(20)])

    assert answer.status_code == 504


# dimensions


async def test_dimensions_are_the_model_s_own_or_refused() -> None:
    async with rig() as r:
        assert len((await vectors(r, "a", dimensions=32))[0]) == 32
        refused = await post(r, "a", dimensions=8)

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "dimensions"


async def test_a_matryoshka_model_s_vectors_are_cut_to_unit_length() -> None:
    async with rig(rules=EmbeddingRules(is_matryoshka=True)) as r:
        [whole] = await vectors(r, "a")
        [cut] = await vectors(r, "a", dimensions=8)
        refused = await post(r, "a", dimensions=33)

    length = math.hypot(*whole[:8])
    assert cut == pytest.approx([value / length for value in whole[:8]], abs=1e-6)
    assert math.hypot(*cut) == pytest.approx(1, abs=1e-6)
    assert refused.status_code == 400
    assert not any("dimensions" in call for call in calls(r))


# LLM token ids


async def test_cl100k_ids_are_the_text_they_stand_for() -> None:
    async with rig() as r:
        [text] = await vectors(r, "Привет hello")
        [ids] = await vectors(r, HELLO)
        both = await vectors(r, [HELLO, [1, 2, 3]])

    assert ids == text == both[0] == expected("Привет hello")
    assert all(isinstance(text, str) for text in inputs(r))


@pytest.mark.parametrize("ids", [[100_257], [100_256], [-1], [10**12], [9468, 8341, 222, 9468]])
async def test_ids_that_are_no_text_are_refused_by_index(ids: list[int]) -> None:
    async with rig() as r:
        answer = await post(r, [HELLO, ids])

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input[1]"
    assert not calls(r)


async def test_ids_may_be_refused_by_configuration() -> None:
    async with rig(rules=EmbeddingRules(token_ids="refused")) as r:
        answer = await post(r, [HELLO])

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "token_ids_not_supported")


@pytest.mark.parametrize(("dialect", "status"), [("vllm", 200), ("llama", 200), ("openai", 400)])
async def test_own_ids_go_to_servers_that_read_them(dialect: str, status: int) -> None:
    async with rig(rules=EmbeddingRules(token_ids="own"), dialect=dialect) as r:
        answer = await post(r, [HELLO])

    assert answer.status_code == status
    assert inputs(r) == ([HELLO] if status == 200 else [])


# length


async def test_a_text_over_the_limit_is_refused_by_index_before_anything_is_embedded() -> None:
    async with rig() as r:
        answer = await post(r, ["short", "fits " * 512, "wordy " * 513])

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input[2]"
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert "513 LLM tokens" in answer.json()["error"]["message"]
    assert not calls(r)


@pytest.mark.parametrize(("truncate", "kept"), [(-1, 512), (40, 40), (10_000, 512)])
async def test_texts_are_cut_where_that_is_asked_for_and_the_header_says_which(
    truncate: int, kept: int
) -> None:
    words = [f"w{n}" for n in range(700)]
    async with rig() as r:
        answer = await post(r, ["short", " ".join(words), "x"], truncate_prompt_tokens=truncate)

    assert answer.status_code == 200
    assert answer.headers["x-scibox-truncated"] == "1"
    assert answer.json()["usage"]["prompt_tokens"] == kept + 2
    [cut] = [text for text in inputs(r) if " " in text]
    assert cut.split() == words[:kept]


async def test_nothing_is_said_of_texts_that_fit() -> None:
    async with rig() as r:
        answer = await post(r, ["short", "word " * 300], truncate_prompt_tokens=400)

    assert answer.status_code == 200
    assert "x-scibox-truncated" not in answer.headers


async def test_a_prefix_is_not_cut_into() -> None:
    async with rig(rules=EmbeddingRules(prefix="one two three ")) as r:
        answer = await post(r, "word " * 600, truncate_prompt_tokens=2)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "truncate_prompt_tokens"


async def test_truncation_is_refused_where_nobody_counts() -> None:
    async with rig(remote=True, counts=False) as r:
        answer = await post(r, "text", truncate_prompt_tokens=-1)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "truncate_prompt_tokens"


# prefixes


async def test_prefixes_are_configuration_and_picked_by_the_input_type() -> None:
    rules = EmbeddingRules(prefix="any: ", query_prefix="query: ", passage_prefix="passage: ")
    async with rig(rules=rules) as r:
        await vectors(r, "a")
        await vectors(r, HELLO)
        await vectors(r, "a", input_type="query")
        await vectors(r, "a", input_type="document")

    assert inputs(r) == ["any: a", "any: Привет hello", "query: a", "passage: a"]


async def test_nothing_is_put_before_a_text_by_default() -> None:
    async with rig() as r:
        await vectors(r, "a", input_type="query")

    assert inputs(r) == ["a"]


# llama.cpp


async def test_a_llama_server_is_sent_one_text_at_a_time() -> None:
    async with rig(remote=True, dialect="llama") as r:
        r.engine.script = Script(first_chunk_delay_s=0.02)
        answers = await asyncio.gather(vectors(r, ["a", "b", "c"]), vectors(r, ["d"]))
        most = max_at_once(r)

    assert answers[0] == [expected(text) for text in "abc"]
    assert [len(call["input"]) for call in calls(r)] == [1] * 4
    assert most == 1


def max_at_once(r: Rig) -> int:
    """Connections that were needed: an exchange keeps one, and a kept one serves the next."""
    return r.engine.connections


# the cache


async def test_what_was_embedded_before_is_answered_from_memory_with_the_same_bytes(tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(300)] + ["word " * 300]
    async with rig(cache_file=tmp_path / "c.db") as r:
        first = await post(r, texts)
        asked = len(r.engine.requests)
        second = await post(r, texts)

        assert second.content == first.content
        assert len(r.engine.requests) == asked
        assert [event.usage.prompt_tokens for event in r.ended] == [900] * 2
        assert [event.usage.cached_tokens for event in r.ended] == [0, 900]


async def test_the_cache_survives_a_restart(tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(50)]
    async with rig(cache_file=tmp_path / "c.db") as r:
        first = await post(r, texts)
    async with rig(cache_file=tmp_path / "c.db") as r:
        second = await post(r, [*texts, "new"])

        assert second.json()["data"][:50] == first.json()["data"]
        assert inputs(r) == ["new"]


async def test_a_cached_vector_is_of_its_prefix_and_its_weights(tmp_path: Path) -> None:
    for rules in (EmbeddingRules(), EmbeddingRules(prefix="p: "), EmbeddingRules(identity=b"other")):
        async with rig(cache_file=tmp_path / "c.db", rules=rules) as r:
            await vectors(r, "text")
            assert len(calls(r)) == 1


async def test_a_server_that_changed_its_model_is_noticed_by_the_length_of_its_vectors(
    tmp_path: Path,
) -> None:
    async with rig(cache_file=tmp_path / "c.db", rules=EmbeddingRules()) as r:
        await vectors(r, ["a", "b"])
        r.engine.dimensions = 16
        answer = await post(r, ["a", "c"])

    lengths = {len(item["embedding"]) for item in answer.json()["data"]}
    assert lengths == {16}


# what else is asked of an embedding model


async def test_a_ranking_and_scores_come_from_vectors() -> None:
    documents = ["alpha", "beta", "gamma"]
    async with rig(rules=EmbeddingRules(query_prefix="q: ", passage_prefix="p: ")) as r:
        for path in ("/v1/rerank", "/rerank", "/v2/rerank"):
            ranked = await r.client.post(
                path, json={"model": "vectors", "query": "alpha", "documents": documents, "top_n": 2}
            )
            assert ranked.status_code == 200
        scored = await r.client.post(
            "/v1/score", json={"model": "vectors", "text_1": "alpha", "text_2": documents}
        )

    def cosine(left: str, right: str) -> float:
        return sum(a * b for a, b in zip(expected(left), expected(right), strict=True))

    scores = [cosine("q: alpha", f"p: {document}") for document in documents]
    best = sorted(range(3), key=lambda index: -scores[index])[:2]
    assert [item["index"] for item in ranked.json()["results"]] == best
    assert [item["relevance_score"] for item in ranked.json()["results"]] == pytest.approx(
        [scores[index] for index in best], abs=1e-6
    )
    assert [item["score"] for item in scored.json()["data"]] == pytest.approx(scores, abs=1e-6)
    assert ranked.json()["usage"]["total_tokens"] == 8
    assert all(isinstance(event, Entry) and event.kind == "rerank" for event in r.ended)


async def test_a_text_to_rank_that_is_too_long_is_named_as_the_client_knows_it() -> None:
    async with rig() as r:
        answer = await r.client.post(
            "/v1/rerank", json={"model": "vectors", "query": "q", "documents": ["a", "word " * 600]}
        )

    assert answer.json()["error"]["param"] == "documents[1]"


async def test_a_rerank_model_answers_itself() -> None:
    async with rig(ranker=True) as r:
        answer = await r.client.post(
            "/v1/rerank", json={"model": "ranker", "query": "q", "documents": ["a", {"text": "b"}]}
        )

    [request] = [request for request in r.engine.requests if request.path == "/v1/rerank"]
    assert request.json == {"model": "fake-model", "query": "q", "documents": ["a", "b"]}
    assert sorted(item["index"] for item in answer.json()["results"]) == [0, 1]
    assert r.ended[0].usage.prompt_tokens == 3


async def test_a_chat_model_cannot_rank_and_the_error_names_those_that_can() -> None:
    async with rig(ranker=True) as r:
        answer = await r.client.post("/v1/rerank", json={"model": "chatty", "query": "q", "documents": ["a"]})

    assert answer.status_code == 400
    assert "Models that can: vectors, ranker." in answer.json()["error"]["message"]
