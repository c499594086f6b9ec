"""Embeddings of real engines through the whole service: a text has one vector, whatever its company."""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from conftest import with_models
from live import Serve

pytestmark = pytest.mark.real

CONFIG = """
[embeddings]
cache_memory_bytes = 0
cache_disk_bytes = 0
texts_per_call = 4

[models.e5]
kind = "embedding"
query_prefix = "query: "
passage_prefix = "passage: "

[[models.e5.deployments]]
engine = "embedder"
weights = "multilingual-e5-small"

[models.llama]
kind = "embedding"

[[models.llama.deployments]]
engine = "llama"
weights = "{gguf}"
context = 256
pooling = "mean"
"""
TEXTS = [
    *(f"{'слово ' * n}и число {n}" for n in (1, 40, 3, 17, 9)),
    *(f"{'word ' * n}and the number {n}" for n in (25, 2, 60, 5, 33)),
    "Привет hello",
]
MODELS = ["e5", "llama"]


@pytest.fixture(scope="module")
def service(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    folder = tmp_path_factory.mktemp("embeddings")
    config = folder / "scibox.toml"
    config.write_text(CONFIG.format(gguf=models_dir / "smollm2-135m-instruct" / "model.gguf"))
    with Serve(with_models(folder / "data", models_dir), "--config", str(config)) as serve:
        serve.until_ready()
        serve.secret = serve.operator_secret()
        yield serve


def vectors(service: Serve, model: str, value: object, **more: Any) -> list[bytes]:
    body = {"model": model, "input": value, "encoding_format": "base64", **more}
    status, answer = service.post("/v1/embeddings", body)
    assert status == 200, answer
    return [base64.b64decode(item["embedding"]) for item in answer["data"]]


@pytest.mark.parametrize("model", MODELS)
def test_a_text_has_the_same_bytes_alone_in_a_batch_beside_other_calls_and_as_ids(
    service: Serve, model: str
) -> None:
    alone = [vectors(service, model, text)[0] for text in TEXTS]

    assert vectors(service, model, TEXTS) == alone
    assert vectors(service, model, TEXTS[::-1]) == alone[::-1]
    with ThreadPoolExecutor(len(TEXTS)) as threads:
        beside = list(threads.map(lambda text: vectors(service, model, text)[0], TEXTS))
    assert beside == alone
    assert vectors(service, model, [54745, 28089, 8341, 24748]) == [alone[-1]]
    for raw in alone:
        assert math.hypot(*array("f", raw)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_numbers_as_text_are_the_same_float32(service: Serve, model: str) -> None:
    status, answer = service.post("/v1/embeddings", {"model": model, "input": TEXTS[:3]})

    assert status == 200
    told = [array("f", item["embedding"]).tobytes() for item in answer["data"]]
    assert told == vectors(service, model, TEXTS[:3])


@pytest.mark.parametrize(("model", "limit"), [("e5", 512), ("llama", 256)])
def test_a_text_over_the_limit_is_named_or_cut_to_its_beginning(
    service: Serve, model: str, limit: int
) -> None:
    long = " ".join(f"слово{n}" for n in range(400))
    body = {"model": model, "input": ["short", "x", long]}

    status, refused = service.post("/v1/embeddings", body)
    assert status == 400
    assert refused["error"]["param"] == "input[2]"
    assert refused["error"]["code"] == "context_length_exceeded"

    status, cut = service.post("/v1/embeddings", {**body, "truncate_prompt_tokens": -1})
    assert status == 200
    status, few = service.post("/v1/embeddings", {"model": model, "input": ["short", "x"]})
    assert cut["usage"]["prompt_tokens"] - few["usage"]["prompt_tokens"] == limit
    # The vector is that of the beginning, not of the end.
    [whole, start, end] = vectors(service, model, [long, long[:700], long[-700:]], truncate_prompt_tokens=-1)
    assert cosine(whole, start) > cosine(whole, end)


@pytest.mark.parametrize("model", MODELS)
def test_usage_counts_what_the_model_read(service: Serve, model: str) -> None:
    counts = [
        service.post("/v1/embeddings", {"model": model, "input": text})[1]["usage"]["prompt_tokens"]
        for text in TEXTS
    ]
    _, answer = service.post("/v1/embeddings", {"model": model, "input": TEXTS})

    assert answer["usage"]["prompt_tokens"] == sum(counts)
    assert counts[1] > counts[0] > 0


def test_an_input_type_picks_the_configured_prefix(service: Serve) -> None:
    [plain] = vectors(service, "e5", "query: осень")

    assert vectors(service, "e5", "осень", input_type="query") == [plain]
    assert vectors(service, "e5", "осень") != [plain]


def test_passages_are_ranked_by_meaning(service: Serve) -> None:
    documents = ["Хлеб пекут в печи.", "Париж — столица Франции.", "The sky is blue."]
    status, answer = service.post(
        "/v1/rerank",
        {"model": "e5", "query": "What is the capital of France?", "documents": documents, "top_n": 1},
    )

    assert status == 200
    assert [item["index"] for item in answer["results"]] == [1]


def cosine(left: bytes, right: bytes) -> float:
    return sum(a * b for a, b in zip(array("f", left), array("f", right), strict=True))
