"""What is written for constrained decoding; that it compiles and holds is shown on the real engine."""

import json
import re
from typing import Any

import pytest

from scibox.core.errors import InvalidRequest
from scibox.wire.constraints import grammar
from scibox.wire.constraints.asked import ANY_OBJECT, Choice, Grammar, Json, Regex, constraint

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def fields(**values: object) -> dict[str, bytes]:
    return {name: json.dumps(value).encode() for name, value in values.items()}


def written(schema: object) -> Any:
    return json.loads(grammar.json_schema(json.dumps(schema).encode()))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, None),
        ({"response_format": None, "guided_json": None}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"grammar": ""}, None),
        ({"structured_outputs": {}}, None),
        ({"response_format": {"type": "json_object"}}, Json(ANY_OBJECT)),
        ({"structured_outputs": {"json_object": True}}, Json(ANY_OBJECT)),
        ({"response_format": {"type": "json_object", "schema": {}}}, Json(b"{}")),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"a": 1}}}},
            Json(b'{"a": 1}'),
        ),
        ({"guided_json": {"a": 1}}, Json(b'{"a": 1}')),
        ({"guided_json": '{"a": 1}'}, Json(b'{"a": 1}')),
        ({"json_schema": {"a": 1}}, Json(b'{"a": 1}')),
        ({"structured_outputs": {"json": {"a": 1}}}, Json(b'{"a": 1}')),
        ({"guided_regex": "[a-z]+"}, Regex("[a-z]+")),
        ({"structured_outputs": {"regex": "a"}}, Regex("a")),
        ({"guided_choice": ["a", "b"]}, Choice(("a", "b"))),
        ({"structured_outputs": {"choice": ["a"]}}, Choice(("a",))),
        ({"guided_grammar": 'start: "a"'}, Grammar('start: "a"')),
        ({"structured_outputs": {"grammar": 'start: "a"'}}, Grammar('start: "a"')),
    ],
)
def test_every_way_to_constrain_is_understood(asked: dict[str, object], expected: object) -> None:
    found = constraint(fields(**asked))

    assert (found and found[1]) == expected


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"guided_regex": "a", "guided_json": {}}, "guided_regex"),
        (
            {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}},
            "structured_outputs.regex",
        ),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs.choice"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"structured_outputs": {"structural_tag": {}}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"regex": "a", "regexp": "b"}}, "structured_outputs"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": ["a", ""]}, "guided_choice"),
        ({"guided_choice": "a"}, "guided_choice"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_regex": 5}, "guided_regex"),
        ({"response_format": "json"}, "response_format"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(asked: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        constraint(fields(**asked))

    assert caught.value.param == param


def test_white_space_is_not_the_models_to_choose() -> None:
    guidance = written({**SCHEMA, "x-guidance": {"lenient": True}})["x-guidance"]

    assert guidance == {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def test_objects_are_closed_wherever_that_takes_nothing_away() -> None:
    inner = {"type": "object", "properties": {"b": {}}}
    schema = written(
        {
            "properties": {"x": {"type": "array", "items": inner}, "y": {"anyOf": [inner, {"type": "null"}]}},
            "$defs": {"d": inner},
        }
    )

    assert schema["additionalProperties"] is False
    assert schema["properties"]["x"]["items"]["additionalProperties"] is False
    assert schema["properties"]["y"]["anyOf"][0]["additionalProperties"] is False
    assert schema["$defs"]["d"]["additionalProperties"] is False


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"properties": {"a": {}}, "additionalProperties": {"type": "string"}},
        {"properties": {"a": {}}, "additionalProperties": True},
        {"properties": {"a": {}}, "required": ["b"]},
        {"properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}}]},
        {"properties": {"a": {}}, "$ref": "#/$defs/x"},
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
        {"properties": {"a": {}}, "minProperties": 2},
        {"properties": {"a": {}}, "patternProperties": {"^b": {}}},
    ],
)
def test_objects_that_other_words_speak_of_stay_as_they_are(schema: dict[str, Any]) -> None:
    kept = written(schema)
    kept.pop("x-guidance")

    assert kept == schema


def test_digits_and_letters_are_those_of_ascii() -> None:
    pattern = r"^\d+[\w.\-]\\d\W/$"
    schema = written({"pattern": pattern, "const": {"pattern": r"\d"}})

    assert schema["pattern"] == r"^[0-9]+[A-Za-z0-9_.\-]\\d\W/$"
    assert schema["const"] == {"pattern": r"\d"}
    assert grammar.of(Regex(pattern)) == grammar.HEAD + r"start: /[0-9]+[A-Za-z0-9_.\-]\\d\W\//" + "\n"


@pytest.mark.parametrize(
    ("pattern", "between"),
    [("a/b", r"a\/b"), (r"a\/b", r"a\/b"), ("a\nb", r"a\nb"), (r"^a\$", r"a\$"), (r"a\\$", r"a\\")],
)
def test_a_pattern_stands_between_slashes(pattern: str, between: str) -> None:
    assert grammar.of(Regex(pattern)) == f"{grammar.HEAD}start: /{between}/\n"


def test_choices_are_quoted() -> None:
    assert grammar.of(Choice(('a"b', "é"))) == grammar.HEAD + 'start: "a\\"b" | "é"\n'


def test_each_tool_keeps_its_schema_to_itself() -> None:
    text = grammar.calls([("f", b'{"$ref":"#/$defs/x","$defs":{"x":{}}}'), ("g", b"{}")], most=3)

    assert 'start: calls\ncalls: call ("\\n" call){0,2}\n' in text
    assert re.findall(r"arguments(\d): %json (.*)", text)[0][1].startswith('{"$ref":"#/$defs/x","$defs"')
    assert '"{\\"name\\": \\"g\\", \\"arguments\\": "' in text
