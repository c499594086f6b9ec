from __future__ import annotations

import base64
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from embedder_tiny import WIDTH, build
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.errors import ContextTooLong, InvalidRequest
from scibox.engines.embedder import recipe, reply, request
from scibox.engines.embedder.encoder import Encoder, pool
from scibox.engines.embedder.recipe import Recipe
from scibox.engines.embedder.splitter import Splitter

float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


# reply


@given(st.lists(st.lists(float32s, min_size=3, max_size=3), min_size=1, max_size=4))
def test_floats_come_back_exactly(rows: list[list[float]]) -> None:
    vectors = np.array(rows, np.float32)

    body = json.loads(reply.render("m", vectors, as_base64=False, prompt_tokens=[7] * len(vectors)))

    assert np.array_equal(np.array([item["embedding"] for item in body["data"]], np.float32), vectors)
    assert [item["index"] for item in body["data"]] == list(range(len(rows)))
    assert body["usage"] == {"prompt_tokens": 7 * len(vectors), "total_tokens": 7 * len(vectors)}


def test_base64_is_little_endian_float32() -> None:
    vectors = np.array([[1.5, -2.0]], np.float32)

    body = json.loads(reply.render('na"me', vectors, as_base64=True, prompt_tokens=[1]))

    assert base64.b64decode(body["data"][0]["embedding"]) == bytes.fromhex("0000c03f000000c0")
    assert body["model"] == 'na"me'


# request


@pytest.mark.parametrize(
    ("given_input", "says"),
    [
        ([], "empty list"),
        ("", "empty string"),
        (["a", ""], "input[1] is an empty"),
        ([1, 2], "token ids"),
        ([[1, 2]], "token ids"),
        (["a", 5], "input[1] is not a string"),
        ([True], "input[0] is not a string"),
        (None, "must be a string"),
        ({"a": 1}, "must be a string"),
    ],
)
def test_wrong_input_is_refused_with_a_reason(given_input: object, says: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        request.texts(given_input)
    assert says in refused.value.message
    assert refused.value.param == (says.split(maxsplit=1)[0] if says.startswith("input[") else "input")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"input":"\xff"}', b'{"input":"\\ud800"}', b"[" * 100_000, b"{}"]
)
def test_what_is_not_a_call_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        request.decode(body, request.Embed)


def test_a_string_is_a_list_of_one() -> None:
    assert request.texts("текст") == ["текст"]
    assert request.texts(["a", "b"]) == ["a", "b"]


def test_formats_and_dimensions_that_cannot_be_given_are_refused() -> None:
    request.check(request.Embed("a", dimensions=8), 8)
    with pytest.raises(InvalidRequest, match="encoding_format"):
        request.check(request.Embed("a", encoding_format="int8"), 8)
    with pytest.raises(InvalidRequest, match="8 dimensions"):
        request.check(request.Embed("a", dimensions=4), 8)


# recipe


def put(folder: Path, **files: object) -> Path:
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(msgspec.json.encode(content))
    return folder


def test_our_own_recipe_is_read_and_its_mistakes_are_named(tmp_path: Path) -> None:
    put(tmp_path, embedder={"pooling": "last", "normalize": False, "max_tokens": 99, "prefix": "q: "})
    assert recipe.read(tmp_path) == Recipe("last", False, 99, 0, "q: ", 0)

    put(tmp_path, embedder={"poling": "cls"})
    with pytest.raises(ValueError, match="poling"):
        recipe.read(tmp_path)


def test_a_model_like_bge_m3_is_understood_without_our_file(tmp_path: Path) -> None:
    put(
        tmp_path,
        config={"model_type": "xlm-roberta", "max_position_embeddings": 8194, "pad_token_id": 1},
        sentence_bert_config={"max_seq_length": 8192},
        tokenizer_config={"model_max_length": 1e30},
        modules=[{"type": "sentence_transformers.models.Normalize"}],
    )
    put(
        tmp_path, **{"1_Pooling__config": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}}
    )

    assert recipe.read(tmp_path) == Recipe("cls", True, 8192, 0, "", 1)


def test_the_shortest_limit_counts_and_a_missing_normaliser_too(tmp_path: Path) -> None:
    put(
        tmp_path,
        config={"model_type": "bert", "max_position_embeddings": 512},
        sentence_bert_config={"max_seq_length": 256},
        modules=[{"type": "sentence_transformers.models.Pooling"}],
    )
    assert recipe.read(tmp_path) == Recipe("mean", False, 256)


# encoder


def reference(states: np.ndarray, mask: np.ndarray, how: str) -> np.ndarray:
    rows = []
    for state, one in zip(states, mask, strict=True):
        real = state[one == 1]
        rows.append({"cls": real[0], "last": real[-1], "mean": real.mean(axis=0)}[how])
    return np.array(rows)


@pytest.mark.parametrize("how", ["cls", "mean", "last"])
def test_pooling_looks_at_unmasked_states_only(how: str) -> None:
    states = np.random.default_rng(3).normal(size=(4, 6, 5)).astype(np.float32)
    mask = np.array([[1] * n + [0] * (6 - n) for n in (1, 6, 3, 5)], np.int64)

    np.testing.assert_allclose(pool(states, mask, how), reference(states, mask, how), rtol=1e-5)


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def test_padding_does_not_change_a_vector(tmp_path: Path) -> None:
    encoder = Encoder(build(tmp_path), Recipe(), threads=1)
    texts = [ids(2, 4, 3), ids(2, 5, 6, 7, 3)]

    together = encoder.encode(texts, 8)

    assert encoder.dimensions == WIDTH
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-6)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(encoder.encode([text], len(text))[0], vector, atol=1e-6)
        assert np.array_equal(encoder.encode([text], 8)[0], vector)


def test_a_graph_that_pools_itself_is_used_as_it_is(tmp_path: Path) -> None:
    words = Encoder(build(tmp_path / "a", output="token_embeddings"), Recipe("cls", False), threads=1)
    sentences = Encoder(
        build(tmp_path / "b", output="sentence_embedding", pooled=True), Recipe("mean", False), threads=1
    )
    text = ids(2, 4, 5, 3)

    np.testing.assert_allclose(words.encode([text], 4), sentences.encode([text], 4), rtol=1e-6)


def test_a_recipe_that_does_not_fit_the_graph_is_refused(tmp_path: Path) -> None:
    build(tmp_path)
    with pytest.raises(ValueError, match=r"8 dimensions, embedder\.json says 9"):
        Encoder(tmp_path, Recipe(dimensions=9), threads=1)
    with pytest.raises(ValueError, match=r"no model\.onnx"):
        Encoder(tmp_path / "nothing", Recipe(), threads=1)


# splitter


def test_texts_are_never_cut_in_silence(tmp_path: Path) -> None:
    splitter = Splitter(build(tmp_path), max_tokens=6)

    assert [text.tolist() for text in splitter.split(["two", "three four five"])] == [
        [2, 5, 3],
        [2, 6, 7, 8, 3],
    ]
    with pytest.raises(ContextTooLong, match=r"input\[1\] has 7 LLM tokens, this model reads at most 6"):
        splitter.split(["two", "two two two two two"])


def test_the_index_counts_over_all_texts_of_the_call(tmp_path: Path) -> None:
    splitter = Splitter(build(tmp_path), max_tokens=6)

    with pytest.raises(ContextTooLong, match=r"input\[150\]"):
        splitter.split(["two"] * 150 + ["two " * 9])


def test_a_huge_text_is_refused_by_its_beginning(tmp_path: Path) -> None:
    splitter = Splitter(build(tmp_path), max_tokens=6)

    with pytest.raises(ContextTooLong, match=r"input\[0\] has more than 4\d LLM tokens"):
        splitter.split(["two " * 1_000_000])
    assert splitter.split([" " * 10_000 + "two"])[0].tolist() == [2, 5, 3]


def test_ids_come_with_and_without_the_special_ones(tmp_path: Path) -> None:
    splitter = Splitter(build(tmp_path), max_tokens=6)

    assert splitter.ids("two", special=False) == [5]
    assert splitter.ids("two", special=True) == [2, 5, 3]
