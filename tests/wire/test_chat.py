import json

import pytest

from scibox.core.errors import InvalidRequest
from scibox.wire import chat

GOOD = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def parse(**changes: object) -> chat.Call:
    return chat.parse("req_1", json.dumps({**GOOD, **changes}).encode())


def refused(body: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        chat.parse("req_1", body)
    assert caught.value.status == 400
    return caught.value


def test_a_plain_call() -> None:
    call = parse()

    assert (call.kind, call.model, call.stream, call.wants_usage) == ("chat", "m", False, False)
    assert (call.text_bytes, call.items) == (2, 1)


def test_parts_of_text_are_read() -> None:
    call = parse(messages=[{"role": "user", "content": [{"type": "text", "text": "да"}]}])

    assert call.text_bytes == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("messages", []),
        ("messages", "hi"),
        ("messages", [{"role": "wizard", "content": "x"}]),
        ("messages", [{"role": "user"}]),
        ("messages", [{"role": "user", "content": None}]),
        ("messages", [{"role": "user", "content": 5}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        ("messages", [{"role": "tool", "content": "x"}]),
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", 10**30),
        ("max_tokens", 1.5),
        ("max_tokens", "many"),
        ("max_completion_tokens", 0),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_p", 0),
        ("top_p", 1.01),
        ("n", 0),
        ("n", 10**9),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", ""),
        ("seed", 2**64),
        ("frequency_penalty", 3),
        ("presence_penalty", -3),
        ("logit_bias", {"5": 101}),
        ("top_logprobs", 21),
        ("stream", "yes"),
        ("stream_options", {"include_usage": True}),
    ],
)
def test_a_wrong_value_is_refused_and_named(field: str, value: object) -> None:
    error = refused(json.dumps({**GOOD, field: value}).encode())

    assert error.param is not None
    assert error.param.startswith(field)
    assert field in error.message


def test_nan_is_not_json() -> None:
    assert (
        refused(b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":NaN}').param == "body"
    )


@pytest.mark.parametrize("name", ["model", "messages"])
def test_a_missing_field_is_named(name: str) -> None:
    error = refused(json.dumps({k: v for k, v in GOOD.items() if k != name}).encode())

    assert error.param == name
    assert error.message == f"Missing field '{name}'."


def test_an_unknown_field_names_the_nearest() -> None:
    error = refused(json.dumps({**GOOD, "max_token": 5}).encode())

    assert error.param == "max_token"
    assert "'max_tokens'" in error.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"{", "not valid JSON"),
        (b"[]", "JSON object"),
        (b'"text"', "JSON object"),
        (b"\xff\xfe", "not valid"),
        (b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}', "UTF-8"),
        (rb'{"model":"m","messages":[{"role":"user","content":"a \ud800 b"}]}', "surrogate"),
        (rb'{"model":"m","messages":[{"role":"user","content":"\udc00"}]}', "surrogate"),
        (b'{"model":"m","messages":' + b"[" * 100_000, "array"),
        (b'{"model":"m","metadata":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "str"),
        (b'{"model":"m","tools":' + b'[{"a":' * 100_000 + b"1", "nested"),
    ],
)
def test_what_is_not_json_is_refused(body: bytes, words: str) -> None:
    assert words.lower() in refused(body).message.lower()


def test_a_whole_surrogate_pair_is_text() -> None:
    body = rb'{"model":"m","messages":[{"role":"user","content":"\ud83d\ude00"}]}'

    assert chat.parse("r", body).text_bytes == 4


def test_values_reach_the_replica_as_they_were_sent() -> None:
    body = b'{"model":"alias", "messages": [{"role":"user","content":"\\u0434a"}],"temperature":0.10}'
    call = chat.parse("r", body)

    rendered = chat.render(call, "real")

    assert b'[{"role":"user","content":"\\u0434a"}]' in rendered
    assert b'"temperature":0.10' in rendered
    assert json.loads(rendered)["model"] == "real"


def test_usage_of_a_stream_is_always_asked_for() -> None:
    sent = json.loads(chat.render(parse(stream=True), "real"))

    assert sent["stream_options"] == {"include_usage": True}


def test_the_newer_name_of_max_tokens_is_translated() -> None:
    sent = json.loads(chat.render(parse(max_completion_tokens=7, store=True), "real"))

    assert sent["max_tokens"] == 7
    assert "max_completion_tokens" not in sent
    assert "store" not in sent


def test_documented_extras_pass_and_routing_fields_do_not() -> None:
    assert json.loads(chat.render(parse(top_k=5), "real"))["top_k"] == 5
    assert refused(json.dumps({**GOOD, "api_base": "http://169.254.169.254"}).encode()).param == "api_base"
