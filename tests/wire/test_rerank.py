import base64
import json
from array import array

import pytest

from scibox.core.errors import InvalidRequest, UpstreamBroken
from scibox.wire.face import Asked
from scibox.wire.rerank import RerankFace, ScoreFace


def rerank(**more: object) -> Asked:
    body = {"model": "m", "query": "q", "documents": ["a", {"text": "b"}, "c"], **more}
    return RerankFace().parse("req_1", json.dumps(body).encode())


def score(left: object, right: object, **more: object) -> Asked:
    return ScoreFace().parse(
        "req_1", json.dumps({"model": "m", "text_1": left, "text_2": right, **more}).encode()
    )


def vectors(*rows: tuple[float, ...]) -> bytes:
    data = [{"embedding": base64.b64encode(array("f", row).tobytes()).decode()} for row in rows]
    return json.dumps({"model": "real", "data": data, "usage": {"prompt_tokens": 6}}).encode()


def test_a_ranking_asks_for_the_vectors_of_a_query_and_passages() -> None:
    embedding = rerank().call.embedding

    assert embedding is not None
    assert [(text.content, text.where, text.purpose) for text in embedding.texts] == [
        ("q", "query", "query"),
        ("a", "documents[0]", "passage"),
        ("b", "documents[1]", "passage"),
        ("c", "documents[2]", "passage"),
    ]


def test_documents_are_ranked_by_their_cosine_to_the_query() -> None:
    body = vectors((1, 0), (0, 1), (1, 0), (0.6, 0.8))

    told = json.loads(rerank(top_n=2, return_documents=True).reply.whole(body))

    assert told["model"] == "real"
    assert told["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert [item["index"] for item in told["results"]] == [1, 2]
    assert [item["relevance_score"] for item in told["results"]] == pytest.approx([1, 0.6])
    assert [item["document"] for item in told["results"]] == [{"text": "b"}, {"text": "c"}]


def test_documents_are_left_out_unless_asked_for() -> None:
    told = json.loads(rerank().reply.whole(vectors((1, 0), (0, 1), (1, 0), (0.6, 0.8))))

    assert len(told["results"]) == 3
    assert all("document" not in item for item in told["results"])


def test_a_ranking_of_the_model_s_own_is_told_in_the_same_shape() -> None:
    results = [{"index": 0, "relevance_score": 0.1}, {"index": 2, "relevance_score": 5.5}]
    native = json.dumps({"results": results, "usage": {"total_tokens": 9}}).encode()

    told = json.loads(rerank(return_documents=True).reply.whole(native))

    assert [(item["index"], item["document"]["text"]) for item in told["results"]] == [(2, "c"), (0, "a")]
    assert told["usage"]["total_tokens"] == 9


def test_a_ranking_of_documents_that_were_not_sent_is_an_error() -> None:
    with pytest.raises(UpstreamBroken):
        rerank().reply.whole(b'{"results":[{"index":3,"relevance_score":1}]}')


def test_the_native_body_has_texts_and_nothing_that_is_ours() -> None:
    fields = rerank(top_n=1, return_documents=True, user="u").call.fields

    assert {name: json.loads(raw) for name, raw in fields.items()} == {
        "query": "q",
        "documents": ["a", "b", "c"],
        "top_n": 1,
    }


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": ["a", ""]}, "documents[1]"),
        ({"documents": [1]}, "documents[0]"),
        ({"query": ""}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"rank_fields": ["x"]}, "rank_fields"),
        ({"documents": ["a"] * 10_000}, "documents"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
    ],
)
def test_wrong_rankings_are_refused_and_named(more: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        rerank(**more)

    assert caught.value.param == param


def test_scores_pair_one_with_many_and_many_with_as_many() -> None:
    one = json.loads(score("a", ["b", "c"]).reply.whole(vectors((1, 0), (0, 1), (1, 0))))
    many = json.loads(score(["a", "b"], ["c", "d"]).reply.whole(vectors((1, 0), (0, 1), (0, 1), (0, 1))))

    assert [(item["index"], item["object"]) for item in one["data"]] == [(0, "score"), (1, "score")]
    assert [item["score"] for item in one["data"]] == pytest.approx([0, 1])
    assert [item["score"] for item in many["data"]] == pytest.approx([0, 1])
    assert one["object"] == "list"


def test_scores_of_the_model_s_own_are_passed_on() -> None:
    told = json.loads(score("a", "b").reply.whole(b'{"data":[{"index":0,"score":0.25}]}'))

    assert [item["score"] for item in told["data"]] == [0.25]


def test_scores_need_sides_that_match() -> None:
    with pytest.raises(InvalidRequest) as caught:
        score(["a", "b"], ["c"])
    assert caught.value.param == "text_1"
    with pytest.raises(InvalidRequest) as caught:
        score("a", ["b", " "])
    assert caught.value.param == "text_2[1]"
