import base64
import json
import math
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.errors import InvalidRequest, UpstreamBroken
from scibox.core.types import Text, Vector
from scibox.wire import embeddings


def parse(value: object, **more: object) -> embeddings.Call:
    return embeddings.parse("req_1", json.dumps({"model": "m", "input": value, **more}).encode())


def texts(value: object, **more: object) -> tuple[Text, ...]:
    embedding = parse(value, **more).embedding
    assert embedding is not None
    return embedding.texts


def test_a_text_a_list_ids_and_lists_of_ids_are_read() -> None:
    assert texts("a") == (Text("a", "input"),)
    assert texts(["a", "b"]) == (Text("a", "input[0]"), Text("b", "input[1]"))
    assert texts([1, 2]) == (Text((1, 2), "input"),)
    assert texts([[1, 2], [3]]) == (Text((1, 2), "input[0]"), Text((3,), "input[1]"))


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([], "input"),
        ("", "input"),
        ("  ", "input"),
        (["a", ""], "input[1]"),
        ([[1], []], "input[1]"),
        ([[]], "input[0]"),
        (["a", 5], "input[1]"),
        (["a", "b", [1]], "input[2]"),
        ([1, 2, "c"], "input[2]"),
        ([[1], 2], "input[1]"),
        ([1.5], "input[0]"),
        ([[1, "a"]], "input[0][1]"),
        (None, "input"),
        ({"a": 1}, "input"),
        ([{"a": 1}], "input[0]"),
        ([True], "input[0]"),
        (["a"] * 10_001, "input"),
        ([[1]] * 10_001, "input"),
    ],
)
def test_wrong_input_is_refused_and_named(value: object, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(value)

    assert caught.value.param == param


def test_ten_thousand_texts_are_one_call_and_ids_are_not_counted_as_texts() -> None:
    assert len(texts(["a"] * 10_000)) == 10_000
    assert len(texts(list(range(20_000)))) == 1


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 1.5}, "dimensions"),
        ({"inputs": 1}, "inputs"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"input_type": "image"}, "input_type"),
    ],
)
def test_other_wrong_fields_are_named(more: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse("a", **more)

    assert caught.value.param == param


@pytest.mark.parametrize(
    ("said", "purpose"),
    [("query", "query"), ("search_query", "query"), ("passage", "passage"), ("document", "passage")],
)
def test_the_input_type_is_the_purpose_of_every_text(said: str, purpose: str) -> None:
    assert [text.purpose for text in texts(["a", "b"], input_type=said)] == [purpose] * 2
    assert texts("a")[0].purpose is None


def unit(*values: float) -> list[float]:
    length = math.hypot(*values)
    return [value / length for value in values]


def answer(*vectors: Any, **more: Any) -> bytes:
    data = [{"embedding": vector, "index": index} for index, vector in enumerate(vectors)]
    return json.dumps({"data": data, "usage": {"prompt_tokens": 7}, **more}).encode()


def packed(*values: float) -> str:
    return base64.b64encode(array("f", values).tobytes()).decode()


def floats(vector: Vector) -> list[float]:
    return array("f", vector.floats).tolist()


def test_vectors_come_in_the_order_of_their_index() -> None:
    body = {"data": [{"embedding": packed(0, 1), "index": 1}, {"embedding": packed(1, 0), "index": 0}]}

    assert [floats(vector) for vector in embeddings.read(json.dumps(body).encode(), [1, 1])] == [
        [1, 0],
        [0, 1],
    ]


def test_a_vector_of_another_length_becomes_a_unit_vector_and_a_unit_vector_stays_as_it_is() -> None:
    exact = array("f", unit(0.3, -0.4, 0.5)).tolist()

    [made, kept] = embeddings.read(answer([3.0, 0.0, 4.0], packed(*exact)), [1, 1])

    assert floats(made) == pytest.approx([0.6, 0, 0.8])
    assert floats(kept) == exact


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b'{"data":[]}',
        answer([1.0, 0.0]),
        answer([1.0, 0.0], [1.0, 0.0], [1.0, 0.0]),
        answer([1.0, 0.0], [1.0]),
        answer([1.0], [0.0]),
        answer([1.0, 0.0], packed(math.nan, 1)),
        answer([1.0, 0.0], packed(math.inf, 1)),
        answer([1.0, 0.0], "AAA"),
        answer([1.0, 0.0], base64.b64encode(b"12345").decode()),
        answer([1.0, 0.0], [1e300, 0.0]),
        answer([1.0, 0.0], []),
        b'{"data":[{"embedding":[1.0],"index":0},{"embedding":[1.0],"index":0}]}',
    ],
)
def test_what_is_no_embedding_is_an_error_of_the_replica(body: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        embeddings.read(body, [1, 1])


def test_llm_tokens_of_a_sub_call_are_given_out_without_loss() -> None:
    vectors = embeddings.read(answer([1.0], [1.0], [1.0]), [10, 30, 60])

    assert sum(vector.prompt_tokens for vector in vectors) == 7
    assert vectors[2].prompt_tokens >= vectors[0].prompt_tokens


def test_llm_tokens_of_each_text_are_taken_from_a_replica_that_tells_them() -> None:
    body = {"data": [{"embedding": [1.0], "index": 0, "prompt_tokens": 3}], "usage": {"prompt_tokens": 9}}

    assert embeddings.read(json.dumps(body).encode(), [1])[0].prompt_tokens == 3


@pytest.mark.parametrize("told", [-5, 2**40, 10**30, None])
def test_a_number_of_llm_tokens_that_cannot_be_one_counts_as_not_told(told: int | None) -> None:
    whole = embeddings.read(answer([1.0], [1.0], usage={"prompt_tokens": told}), [10, 20])
    body = {"data": [{"embedding": [1.0], "index": 0, "prompt_tokens": told}]}
    own = embeddings.read(json.dumps(body).encode(), [1])

    assert [vector.prompt_tokens for vector in whole + own] == [0, 0, 0]


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=8).filter(lambda v: math.hypot(*v) > 1e-30))
def test_the_text_form_gives_back_every_float32(values: list[float]) -> None:
    raw = embeddings.unit(array("f", values)).tobytes()

    told = json.loads(embeddings.head("m") + embeddings.items([raw], 0, as_base64=False) + embeddings.tail(5))
    coded = json.loads(embeddings.head("m") + embeddings.items([raw], 0, as_base64=True) + embeddings.tail(5))

    assert array("f", told["data"][0]["embedding"]).tobytes() == raw
    assert base64.b64decode(coded["data"][0]["embedding"]) == raw
    assert math.hypot(*told["data"][0]["embedding"]) == pytest.approx(1, abs=1e-5)
    assert told["usage"] == {"prompt_tokens": 5, "total_tokens": 5}


def test_a_cut_vector_has_unit_length_again() -> None:
    raw = array("f", unit(3, 4, 12)).tobytes()

    assert array("f", embeddings.cut(raw, 2)).tolist() == pytest.approx([0.6, 0.8])


def test_the_header_of_cut_texts_is_bounded() -> None:
    assert embeddings.truncated([]) == ()
    assert embeddings.truncated([3, 17]) == ((b"x-scibox-truncated", b"3,17"),)
    [(_, value)] = embeddings.truncated(list(range(10_000)))
    assert len(value) < 500
    assert value.endswith(b",99,+9900")


def test_texts_reach_the_replica_as_base64_calls_under_its_name() -> None:
    call = embeddings.Call("r", "embedding", "alias", "/embeddings", embeddings.ask(["д", (1, 2)]))

    assert json.loads(embeddings.render(call, "real")) == {
        "input": ["д", [1, 2]],
        "encoding_format": "base64",
        "model": "real",
    }
