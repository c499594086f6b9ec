import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scibox.core.errors import InvalidRequest
from scibox.wire.constraints import patterns, schemas

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def refusal(check: Callable[[], object]) -> InvalidRequest | None:
    try:
        check()
    except InvalidRequest as error:
        return error
    return None


def refused(schema: Any, param: str = "here") -> InvalidRequest:
    raw = schema if isinstance(schema, bytes) else json.dumps(schema).encode()
    with pytest.raises(InvalidRequest) as caught:
        schemas.check_schema(raw, param)
    return caught.value


@pytest.mark.parametrize(
    "schema",
    [
        {},
        PERSON,
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "T",
            "description": "D",
            **PERSON,
        },
        {
            "type": "string",
            "default": "x",
            "examples": ["y"],
            "deprecated": True,
            "x-order": 3,
            "$comment": "c",
        },
        {"type": ["string", "null"]},
        {"enum": ["a", 1, None, {"b": [2]}]},
        {"const": "a"},
        {"type": "array", "items": PERSON, "minItems": 1, "maxItems": 50},
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False},
        {"anyOf": [PERSON, {"type": "null"}]},
        {"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}}, {"required": ["a"]}]},
        {"oneOf": [{"type": "string"}, {"type": "integer"}]},
        {"$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}}, "$ref": "#/$defs/node"},
        {"definitions": {"a b/c": {"type": "string"}}, "$ref": "#/definitions/a%20b~1c"},
        {"$defs": {"узел [1]": {"type": "string"}}, "$ref": "#/$defs/узел [1]"},
        {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
        {"properties": {"a": PERSON, "b": {"$ref": "#/properties/a"}}},
        {"type": "string", "pattern": "^[A-Z]{2}-\\d{4}$"},
        {"type": "string", "minLength": 1, "maxLength": 10_000},
        {"type": "string", "format": "date-time"},
        {"type": "object", "patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": False},
        {"type": "object", "properties": {"not": {"type": "string"}, "$ref": {"type": "string"}}},
        {"type": "integer", "multipleOf": 5, "exclusiveMaximum": 100},
    ],
)
def test_schemas_that_can_be_enforced_are_taken(schema: Any) -> None:
    assert schemas.check_schema(json.dumps(schema).encode(), "here") > 0


@pytest.mark.parametrize(
    ("keyword", "schema"),
    [
        ("not", {"not": {"type": "string"}}),
        ("uniqueItems", {"type": "array", "uniqueItems": True}),
        ("contains", {"type": "array", "contains": {"type": "string"}}),
        ("if", {"if": {"type": "string"}, "then": {"minLength": 1}}),
        ("propertyNames", {"type": "object", "propertyNames": {"pattern": "^a"}}),
        ("dependentRequired", {"dependentRequired": {"a": ["b"]}}),
        ("unevaluatedProperties", {"unevaluatedProperties": False}),
        ("oneOf", {"oneOf": [{"type": "string"}, {"type": "string", "minLength": 3}]}),
        ("type", {"type": "strin"}),
        ("pattern", {"type": "string", "pattern": "(?=a)b"}),
        ("pattern", {"type": "string", "pattern": "(a"}),
        ("pattern", {"type": "string", "pattern": r"(a)\1"}),
        ("minLength", {"type": "string", "minLength": -1}),
        ("maximum", {"type": "integer", "maximum": "5"}),
        ("required", {"type": "object", "required": "name"}),
        ("multipleOf", {"type": "integer", "multipleOf": 0}),
        ("minimum", {"type": "integer", "minimum": 2**53 + 1, "maximum": 2**53 + 3}),
        ("maximum", {"type": "number", "maximum": -1e300}),
    ],
)
def test_what_cannot_be_enforced_is_named_where_it_stands(keyword: str, schema: dict[str, Any]) -> None:
    inside = {"type": "object", "properties": {"deep": schema}, "required": ["deep"]}

    assert refused(schema).param == f"here.{keyword}"
    error = refused(inside)
    assert error.param == f"here.properties.deep.{keyword}"
    assert keyword in error.message
    assert error.code == "unsupported_schema"


@pytest.mark.parametrize(
    ("schema", "simpler"),
    [
        ({"type": "string", "format": "uri"}, {"type": "string"}),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        (
            {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {}},
            {"type": "object", "additionalProperties": {}},
        ),
        (
            {"type": "array", "uniqueItems": False, "items": {"format": "byte"}},
            {"type": "array", "items": {}},
        ),
        (
            {"properties": {"format": {"type": "string"}, "a": {"anyOf": [{"format": "x"}, {}]}}},
            {"properties": {"format": {"type": "string"}, "a": {"anyOf": [{}, {}]}}},
        ),
        ({"const": {"format": "uri"}}, {"const": {"format": "uri"}}),
        ({"$defs": {"a": {"items": [{"format": "x"}]}}}, {"$defs": {"a": {"items": [{}]}}}),
    ],
)
def test_what_says_nothing_does_not_stand_in_the_way(schema: dict[str, Any], simpler: dict[str, Any]) -> None:
    schemas.check_schema(json.dumps(schema).encode(), "here")
    is_changed = schema != simpler

    assert schemas.simplify(schema) == is_changed
    assert schema == simpler


@pytest.mark.parametrize(
    "schema", [{"propertyNames": {"pattern": "^a"}}, {"uniqueItems": True}, {"uniqueItems": 0}]
)
def test_what_says_something_is_not_taken_out(schema: dict[str, Any]) -> None:
    assert refused({"properties": {"a": schema}})


def test_what_nothing_can_match_is_named() -> None:
    never = {"type": "integer", "minimum": 5, "maximum": 1}

    assert refused(never).param == "here.minimum"
    inside = {"type": "object", "properties": {"deep": never}, "required": ["deep"]}
    assert refused(inside).param == "here.properties.deep"


@pytest.mark.parametrize(
    "schema",
    [
        *(5, "string", [], None, True, False),
        *({"properties": []}, {"properties": {"a": 5}}, {"enum": []}, {"enum": "a"}, {"anyOf": []}),
        *({"$schema": "http://example.org/own"}, {"maxItems": 1.5}, {"additionalProperties": "no"}),
        *(b"{", b'{"a": "\\ud800"}', b'{"const": 1e999}', b"\xff", b""),
    ],
)
def test_what_is_no_json_schema_is_refused(schema: Any) -> None:
    assert (refused(schema).param or "").startswith("here")


def chain(links: int, place: str = "$defs") -> dict[str, Any]:
    defs = {f"a{i}": {"properties": {"x": {"$ref": f"#/{place}/a{i + 1}"}}} for i in range(links)}
    return {place: {**defs, f"a{links}": {}}, "$ref": f"#/{place}/a0"}


def nested(levels: int) -> bytes:
    return b'{"items":' * levels + b"{}" + b"}" * levels


HOSTILE: dict[str, Any] = {
    "nested far too deep": nested(100_000),
    "nested too deep": nested(65),
    "nested too deep in a value": b'{"const":' + b"[" * 200 + b"]" * 200 + b"}",
    "too large": {"description": "x" * schemas.MAX_BYTES},
    "a long chain": chain(1_000),
    "a chain outside of the schema": chain(300, "x"),
    "a chain in escaped names": {
        "$defs": {**chain(100)["$defs"], **{f"%61{i}": {} for i in range(100)}},
        "allOf": [{"$ref": f"#/$defs/%61{i}x"} for i in range(100)],
    },
    "many items": {"type": "array", "maxItems": 10**6},
    "items beyond counting": {"type": "array", "minItems": 10**400},
    "items of items": {"maxItems": 4_000, "items": {"maxItems": 4_000}},
    "many properties counted": {"minProperties": 10**9},
    "a long text": {"type": "string", "minLength": 10**9},
    "many properties": {"properties": {str(i): {} for i in range(1_001)}},
    "many values": {"enum": list(range(1_001))},
    "many large values": {"enum": [[[i], [i]] for i in range(900)]},
    "many schemas": {"anyOf": [{"type": "string"} for _ in range(4_000)]},
    "many patterns": {"patternProperties": {f"^{i:03}": {} for i in range(17)}},
    "many expressions": {"properties": {str(i): {"minimum": i, "maximum": 10**14 + i} for i in range(500)}},
    "a repeated pattern": {"pattern": "a{100000}"},
    "a pattern repeated again": {"pattern": "((a{100}){100}){100}"},
    "a long pattern": {"pattern": "a" * 1_001},
    "a deep pattern": {"pattern": "(" * 100 + ")" * 100},
    "a pattern as a name": {"patternProperties": {"a{9999}": {}}},
    "a remote schema": {"$ref": "http://169.254.169.254/latest"},
    "a file": {"$ref": "file:///etc/passwd"},
    "nowhere": {"$ref": "#/$defs/none"},
    "an anchor": {"$defs": {"a": {"$anchor": "a"}}, "$ref": "#a"},
    "another base": {
        "$defs": {"a": {"$id": "http://x/y", "$defs": {"b": {}}, "$ref": "#/$defs/b"}, "b": {}},
        "$ref": "#/$defs/a",
    },
    "orders to the compiler": {"x-guidance": {"lenient": True}, "not": {}},
    "orders to the compiler, inside": {"properties": {"a": {"x-guidance": {"coerce_one_of": True}}}},
    "alternatives of alternatives": {
        "allOf": [
            {"anyOf": [{"properties": {f"p{j}": {"type": "string"}}} for j in range(12)]} for _ in range(3)
        ]
    },
    "doubled again and again": {
        "$defs": {
            **{
                f"a{i}": {"properties": {n: {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for n in "lr"}}
                for i in range(40)
            },
            "a40": {},
        },
        "$ref": "#/$defs/a0",
    },
}


def seconds(raw: bytes) -> float:
    schemas._checked.cache_clear()
    began = time.process_time()
    with pytest.raises(InvalidRequest):
        schemas.check_schema(raw, "here")
    return time.process_time() - began


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schemas_are_refused_and_cost_little(name: str) -> None:
    schema = HOSTILE[name]
    raw = schema if isinstance(schema, bytes) else json.dumps(schema).encode()
    harmless = min(seconds(b'{"type":"object","properties":{"a":{"not":{}}}}') for _ in range(5))

    error = refused(raw)
    spent = min(seconds(raw) for _ in range(3))

    assert (error.param or "").startswith("here")
    assert len(error.message) < 1_000
    assert spent < 1_000 * harmless  # which takes 0.2 ms


LARGE: dict[str, Any] = {
    "properties": {"properties": {f"p{i}": {"type": "string"} for i in range(1_000)}},
    "values": {"enum": [f"value {i}" for i in range(1_000)]},
    "large values": {"enum": [{"a": i, "b": [i]} for i in range(400)]},
    "numbers": {"properties": {str(i): {"minimum": -i, "maximum": 10**14 + i} for i in range(140)}},
    "patterns": {
        "properties": {str(i): {"pattern": f"^(\\p{{L}}|[\\w-]){{1,{600 + i}}}$"} for i in range(270)}
    },
    "items": {"type": "array", "maxItems": 2_900, "items": {"type": "array", "maxItems": 2_900}},
    "alternatives": {"anyOf": [{"properties": {f"k{i}": {"const": i}}} for i in range(900)]},
    "chain": chain(198),
}


@pytest.mark.parametrize("name", LARGE)
def test_what_is_just_within_the_bounds_costs_little_too(name: str) -> None:
    raw = json.dumps(LARGE[name]).encode()
    harmless = min(seconds(b'{"type":"object","properties":{"a":{"not":{}}}}') for _ in range(5))
    schemas._checked.cache_clear()
    began = time.process_time()

    schemas.check_schema(raw, "here")

    assert time.process_time() - began < 2_000 * harmless


def test_the_same_schema_is_compiled_once() -> None:
    schemas._checked.cache_clear()
    for _ in range(3):
        schemas.check_schema(json.dumps(PERSON).encode(), "here")

    assert schemas._checked.cache_info().misses == 1


def test_parameters_must_describe_an_object() -> None:
    for schema in ({}, {"type": "object"}, PERSON):
        schemas.check_object_schema(json.dumps(schema).encode(), "here")
    for schema in ({"type": "string"}, {"type": ["object", "null"]}):
        with pytest.raises(InvalidRequest, match="object"):
            schemas.check_object_schema(json.dumps(schema).encode(), "here")


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("", 0),
        ("abc", 3),
        ("a{5}", 5),
        ("a{2,7}b", 8),
        ("a{3,}", 3),
        ("(ab){10}", 20),
        ("((a{10}){10}){10}", 1000),
        ("(?:a|bc){4}", 12),
        (r"\{5\}", 3),
        ("[abc{9}]{3}", 3),
        (r"[\]]{3}", 3),
        ("[^]]{4}", 4),
        (r"\p{L}{6}", 6),
        ("a*b+c?", 3),
        ("a{0}b", 2),
        ("x{9999999999999999999}", 999_999_999),
        ("a)b", 2),
        ("(a", 1),
    ],
)
def test_the_size_of_a_pattern_written_out(pattern: str, size: int) -> None:
    assert patterns.size(pattern) == size


@given(st.text(st.sampled_from("ab(){}[]|*+?\\,0123456789^$"), max_size=60))
def test_no_pattern_breaks_the_check(pattern: str) -> None:
    found = refusal(lambda: schemas.check_pattern(pattern, "guided_regex"))

    assert found is None or found.param == "guided_regex"


@pytest.mark.parametrize("pattern", ["(a", "a{5000}", "(?=a)", r"(a)\1", "a" * 2_000, "[z-a]"])
def test_patterns_that_cannot_be_enforced_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        schemas.check_pattern(pattern, "guided_regex")

    assert caught.value.param == "guided_regex"


def test_grammars_are_compiled_for_a_trial() -> None:
    schemas.check_grammar('start: "yes" | "no"', "guided_grammar")
    for text in (
        'root ::= "a"',
        "",
        'start: "a"{100000}',
        'start: %json {"maxItems": 7000}',
        "start: " + "(" * 99,
    ):
        with pytest.raises(InvalidRequest) as caught:
            schemas.check_grammar(text, "guided_grammar")
        assert caught.value.param == "guided_grammar"


keywords = st.sampled_from(
    [
        *(
            "type",
            "properties",
            "items",
            "anyOf",
            "allOf",
            "oneOf",
            "$ref",
            "$defs",
            "enum",
            "const",
            "required",
        ),
        *(
            "pattern",
            "minLength",
            "maxItems",
            "additionalProperties",
            "not",
            "format",
            "minimum",
            "prefixItems",
        ),
    ]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.sampled_from(["string", "object", "array", "#", "#/$defs/a", "a", "^a{3}$", "date"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords | st.just("a"), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keywords, values, max_size=4))
def test_no_schema_breaks_the_check(schema: dict[str, Any]) -> None:
    found = refusal(lambda: schemas.check_schema(json.dumps(schema).encode(), "here"))

    assert found is None or (found.param or "").startswith("here")
