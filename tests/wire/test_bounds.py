import json
from typing import Any

import pytest

from scibox.core.errors import InvalidRequest
from scibox.core.types import Dialect
from scibox.wire import chat
from scibox.wire.constraints import grammar
from scibox.wire.orders import order
from scibox.wire.target import Target

PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def parse(**fields: Any) -> chat.Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return chat.parse("r", json.dumps(body).encode())


@pytest.mark.parametrize("dialect", ["vllm", "llama"])
@pytest.mark.parametrize(
    "fields",
    [
        {"guided_json": PERSON},
        {"guided_json": json.dumps(PERSON)},
        {"guided_regex": "^[a-z]{3}\\d$"},
        {"guided_choice": ["yes", "no"]},
        {"guided_grammar": 'start: "yes" | "no"'},
        {"structured_outputs": {"json": PERSON}},
        {"structured_outputs": {"regex": "a+"}},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "text"}, "guided_choice": ["a"]},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"properties": {"u": {"format": "uri"}}}},
            }
        },
    ],
)
def test_constraints_that_can_be_enforced_reach_the_engine(dialect: Dialect, fields: dict[str, Any]) -> None:
    sent = json.loads(order(parse(**fields), Target("real", dialect)).body)

    assert sent["messages"]
    assert "uri" not in sent.get("grammar", "")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_json": {"properties": {"a": {"not": {}}}}}, "guided_json.properties.a.not"),
        ({"guided_json": "{}}"}, "guided_json"),
        ({"guided_json": '{"uniqueItems": true}'}, "guided_json.uniqueItems"),
        ({"guided_json": {"maxItems": 10**6}}, "guided_json.maxItems"),
        ({"json_schema": {"pattern": "(a{1000}){1000}"}}, "json_schema.pattern"),
        ({"guided_regex": "(a"}, "guided_regex"),
        ({"guided_regex": "((a{100}){100}){100}"}, "guided_regex"),
        ({"guided_choice": ["x" * 900] * 50}, "guided_choice"),
        ({"guided_grammar": 'root ::= "a"{1,1000000}'}, "guided_grammar"),
        ({"grammar": "root ::= " + "(" * 100 + '"a"' + ")" * 100}, "grammar"),
        ({"structured_outputs": {"json": {"contains": {}}}}, "structured_outputs.json.contains"),
        ({"structured_outputs": {"regex": "a{9999}"}}, "structured_outputs.regex"),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "response_format"),
    ],
)
def test_what_would_slow_an_engine_is_refused_at_the_door(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)

    assert caught.value.param == param


def test_a_grammar_of_another_dialect_is_left_to_the_engine_that_knows_it() -> None:
    call = parse(guided_grammar='root ::= "yes" | "no"')

    assert order(call, Target("real", "vllm"))
    with pytest.raises(InvalidRequest):
        order(call, Target("real", "llama"))


def test_what_a_schema_only_says_does_not_keep_the_engine_from_compiling_it() -> None:
    schema = {
        "type": "object",
        "propertyNames": {"type": "string"},
        "additionalProperties": {"format": "uri"},
    }

    assert grammar.compiles(grammar.HEAD + f"start: %json {grammar.json_schema(json.dumps(schema).encode())}")
