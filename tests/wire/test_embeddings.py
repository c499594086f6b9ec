import json

import pytest

from scibox.core.errors import InvalidRequest
from scibox.wire import embeddings


def parse(value: object, **more: object) -> embeddings.Call:
    return embeddings.parse("req_1", json.dumps({"model": "m", "input": value, **more}).encode())


def test_the_longest_text_decides() -> None:
    call = parse(["a", "ббб", "cc"])

    assert (call.items, call.longest, call.text_bytes) == (3, 1, 6)


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([], "input"),
        ("", "input"),
        ("  ", "input"),
        (["a", ""], "input[1]"),
        (["a", 5], "input[1]"),
        ([1, 2, 3], "input[0]"),
        ([[1, 2], [3]], "input[0]"),
        (None, "input"),
        ({"a": 1}, "input"),
        ([{"a": 1}], "input[0]"),
        ([True], "input[0]"),
    ],
)
def test_wrong_input_is_refused_and_named(value: object, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(value)

    assert caught.value.param == param


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"inputs": 1}, "inputs"),
    ],
)
def test_other_wrong_fields_are_named(more: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse("a", **more)

    assert caught.value.param == param


def test_texts_reach_the_replica_as_they_were_sent() -> None:
    call = embeddings.parse("r", b'{"input":["\\u0434"],"model":"alias","encoding_format":null}')

    assert embeddings.render(call, "real") == b'{"input":["\\u0434"],"model":"real"}'
