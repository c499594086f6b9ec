import json

import pytest

from scibox.core.errors import InvalidRequest
from scibox.wire import chat
from scibox.wire.document import parameters

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
    assert (call.items, call.n) == (1, 1)


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


def test_what_json_has_no_number_for_is_named_unless_it_is_only_quoted() -> None:
    head = b'{"model":"m","messages":[{"role":"user","content":"\\"seed\\": NaN"}],'

    assert refused(head + b'"temperature":NaN}').param == "temperature"
    assert refused(head + b'"seed":Nan}').param == "body"
    assert refused(b'{"model": oops, "seed": NaN}').param == "body"


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
        (b'{"model":"m","tools":' + b'[{"a":' * 100_000 + b"1", "unknown field"),
        (
            b'{"model":"m","tools":[{"type":"function","function":{"parameters":' + b'{"a":' * 100_000,
            "nested",
        ),
    ],
)
def test_what_is_not_json_is_refused(body: bytes, words: str) -> None:
    assert words.lower() in refused(body).message.lower()


def test_a_whole_surrogate_pair_is_text() -> None:
    body = rb'{"model":"m","messages":[{"role":"user","content":"\ud83d\ude00"}]}'

    assert chat.least_bytes(chat.parse("r", body)) == 4


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
    sent = json.loads(chat.render(parse(max_completion_tokens=7), "real"))

    assert sent["max_tokens"] == 7
    assert "max_completion_tokens" not in sent


def test_what_asks_for_nothing_stays_here() -> None:
    nothing = {"store": False, "modalities": ["text"], "metadata": {"a": "b"}, "audio": None, "stop": None}
    nothing |= {"stream_options": None, "prediction": {"type": "content", "content": "x"}, "functions": None}

    sent = json.loads(chat.render(parse(**nothing), "real"))

    assert set(sent) == {"model", "messages"}


def test_two_limits_may_stand_only_if_they_agree() -> None:
    assert parse(max_tokens=5, max_completion_tokens=5)
    assert refused(json.dumps({**GOOD, "max_tokens": 5, "max_completion_tokens": 6}).encode()).param == (
        "max_completion_tokens"
    )


# What every field is tried with, as JSON; what a field takes of it is listed, all else must be refused.
HOSTILE = [
    *("-1", "0", "99", "1e9", "NaN", "Infinity", "-Infinity", "1" + "0" * 400, "1e999", "1.5"),
    *("true", "false", '"x"', '""', "[]", "{}", "[1]", '[""]', '{"x":1}', '{"1":[]}', r'"\ud800"'),
]
COUNTS = {"99"}
TAKEN = {
    "model": {'"x"'},
    "messages": set[str](),
    "max_tokens": COUNTS,
    "max_completion_tokens": COUNTS,
    "temperature": {"0", "1.5"},
    "top_p": set[str](),
    "n": COUNTS,
    "stop": {'"x"'},
    "seed": {"-1", "0", "99"},
    "frequency_penalty": {"-1", "0", "1.5"},
    "presence_penalty": {"-1", "0", "1.5"},
    "logit_bias": {"{}"},
    "logprobs": {"true", "false"},
    "top_logprobs": {"0"},
    "stream": {"true", "false"},
    "stream_options": {"{}"},
    "response_format": set[str](),
    "tools": {"[]"},
    "tool_choice": set[str](),
    "parallel_tool_calls": {"true", "false"},
    "reasoning_effort": set[str](),
    "verbosity": set[str](),
    "user": {'"x"', '""'},
    "metadata": {"{}"},
    "store": {"false"},
    "service_tier": set[str](),
    "prompt_cache_key": {'"x"', '""'},
    "prompt_cache_retention": set[str](),
    "prompt_cache_options": {"{}"},
    "safety_identifier": {'"x"', '""'},
    "prediction": set[str](),
    "modalities": {"[]"},
    "audio": set[str](),
    "web_search_options": set[str](),
    "moderation": set[str](),
    "functions": set[str](),
    "function_call": set[str](),
}
NEEDS = {"top_logprobs": {"logprobs": True}, "stream_options": {"stream": True}}


def body_with(field: str, literal: str) -> bytes:
    rest = {name: value for name, value in {**GOOD, **NEEDS.get(field, {})}.items() if name != field}
    return f'{json.dumps(rest)[:-1]}, "{field}": {literal}}}'.encode()


def test_the_table_knows_every_field() -> None:
    assert set(TAKEN) == chat.KNOWN


@pytest.mark.parametrize("field", sorted(TAKEN))
def test_every_field_takes_what_it_may_and_refuses_the_rest_by_name(field: str) -> None:
    for literal in HOSTILE:
        body = body_with(field, literal)
        if literal in TAKEN[field]:
            assert chat.parse("r", body).model
            continue
        error = refused(body)
        assert (error.param or "").startswith("body" if "ud800" in literal else field), (literal, error.param)
        if "ud800" not in literal:
            assert f"'{field}" in error.message or f'"{field}"' in error.message, (literal, error.message)


@pytest.mark.parametrize("field", sorted(chat.KNOWN - {"model", "messages"}))
def test_null_is_as_if_the_field_were_not_there(field: str) -> None:
    call = chat.parse("r", body_with(field, "null"))

    sent = json.loads(chat.render(call, "real"))
    assert field not in sent or field in NEEDS


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2),
        ("top_p", 1),
        ("top_p", 0.001),
        ("n", 128),
        ("stop", ["a", "b", "c", "d"]),
        ("seed", -(2**63)),
        ("frequency_penalty", -2.0),
        ("logit_bias", {"0": -100, "49151": 100}),
        ("reasoning_effort", "none"),
        ("reasoning_effort", "xhigh"),
        ("verbosity", "low"),
        ("service_tier", "auto"),
        ("service_tier", "default"),
        ("service_tier", "flex"),
        ("modalities", ["text"]),
        ("metadata", {f"k{i}": "v" * 512 for i in range(16)}),
        ("prediction", {"type": "content", "content": [{"type": "text", "text": "x"}]}),
        ("prompt_cache_retention", "24h"),
        ("prompt_cache_options", {"mode": "explicit", "ttl": "30m"}),
        ("response_format", {"type": "text"}),
        ("response_format", {"type": "json_object"}),
    ],
)
def test_what_the_reference_allows_is_taken(field: str, value: object) -> None:
    assert parse(**{field: value}).fields[field]


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("stop", ["a", ""], "stop[1]"),
        ("stop", ["a"] * 5, "stop"),
        ("stop", "x" * 513, "stop"),
        ("logit_bias", {"cat": 1}, "logit_bias"),
        ("logit_bias", {"-1": 1}, "logit_bias"),
        ("logit_bias", {"²": 1}, "logit_bias"),
        ("logit_bias", {"1" * 30: 1}, "logit_bias"),
        ("logit_bias", {str(i): 1 for i in range(1025)}, "logit_bias"),
        ("metadata", {f"k{i}": "v" for i in range(17)}, "metadata"),
        ("metadata", {"k" * 65: "v"}, "metadata"),
        ("metadata", {"k": "v" * 513}, "metadata[...]"),
        ("metadata", {"k": 1}, "metadata[...]"),
        ("modalities", ["text", "audio"], "modalities[1]"),
        ("modalities", ["audio"], "modalities[0]"),
        ("store", True, "store"),
        ("service_tier", "priority", "service_tier"),
        ("functions", [], "functions"),
        ("function_call", "auto", "function_call"),
        ("audio", {"voice": "alloy", "format": "wav"}, "audio"),
        ("web_search_options", {}, "web_search_options"),
        ("moderation", {"model": "omni-moderation-latest"}, "moderation"),
        ("stream_options", {"include_usages": True}, "stream_options.include_usages"),
        ("reasoning_effort", "extreme", "reasoning_effort"),
    ],
)
def test_what_the_reference_forbids_or_nobody_can_do_is_refused(
    field: str, value: object, param: str
) -> None:
    more = NEEDS.get(field, {})

    error = refused(json.dumps({**GOOD, **more, field: value}).encode())

    assert error.param == param
    assert field in error.message
    assert error.message[-1] in ".?"


def test_every_field_says_what_is_done_with_it() -> None:
    for found in parameters.table(chat.ChatRequest):
        assert found.verdict in parameters.VERDICTS, found.name


def test_documented_extras_pass_and_routing_fields_do_not() -> None:
    assert json.loads(chat.render(parse(top_k=5), "real"))["top_k"] == 5
    assert refused(json.dumps({**GOOD, "api_base": "http://169.254.169.254"}).encode()).param == "api_base"
