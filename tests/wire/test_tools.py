import json
from typing import Any

import pytest

from scibox.core.errors import InvalidRequest
from scibox.wire import chat
from scibox.wire.constraints import schemas

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def tool(name: str = "get_weather", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": PARAMETERS, **function}}


def parse(**fields: Any) -> chat.Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return chat.parse("r", json.dumps(body).encode())


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    return caught.value


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": []},
        {"tools": [tool()]},
        {"tools": [tool(strict=True, description="Weather.")]},
        {"tools": [tool(parameters=None)]},
        {"tools": [tool(parameters={})]},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tools": [tool(f"f{i}") for i in range(128)]},
        {"tool_choice": "none"},
        {"tool_choice": "auto", "parallel_tool_calls": False},
        {"tools": [tool()], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
    ],
)
def test_what_the_reference_allows_is_taken(fields: dict[str, Any]) -> None:
    assert {name: json.loads(raw) for name, raw in parse(**fields).fields.items()}.items() >= fields.items()


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ("x", "tools"),
        ({}, "tools"),
        ([5], "tools[0]"),
        ([{}], "tools[0].type"),
        ([{"function": {"name": "f"}}], "tools[0].type"),
        ([{"type": "function"}], "tools[0].function"),
        ([{"type": "function", "function": {}}], "tools[0].function.name"),
        ([{"type": "function", "name": "flat", "parameters": {}}], "tools[0]"),
        ([{"type": "custom", "custom": {"name": "x"}}], "tools[0].type"),
        ([{"type": "web_search"}], "tools[0].type"),
        ([tool("")], "tools[0].function.name"),
        ([tool("a b")], "tools[0].function.name"),
        ([tool("имя")], "tools[0].function.name"),
        ([tool("a" * 65)], "tools[0].function.name"),
        ([tool("a\n")], "tools[0].function.name"),
        ([tool("a"), tool("b"), tool("a")], "tools[2].function.name"),
        ([tool(f"f{i}") for i in range(129)], "tools"),
        ([tool(description=5)], "tools[0].function.description"),
        ([tool(strict="yes")], "tools[0].function.strict"),
        ([tool(parameter={})], "tools[0].function.parameter"),
        ([tool(parameters="x")], "tools[0].function.parameters"),
        ([tool(parameters=[])], "tools[0].function.parameters"),
        ([tool(parameters=True)], "tools[0].function.parameters"),
        ([tool(parameters={"type": "string"})], "tools[0].function.parameters"),
        ([tool(parameters={"type": "object", "properties": 5})], "tools[0].function.parameters.properties"),
        (
            [tool("a"), tool(parameters={"properties": {"x": {"not": {}}}})],
            "tools[1].function.parameters.properties.x.not",
        ),
        ([tool(parameters={"maxProperties": 10**400})], "tools[0].function.parameters.maxProperties"),
    ],
)
def test_malformed_tools_are_named(tools: Any, param: str) -> None:
    error = refused(tools=tools)

    assert error.status == 400
    assert (error.param or "").startswith(param)
    assert error.message[-1] in ".?"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
@pytest.mark.parametrize("more", [{}, {"tools": []}, {"tools": None}])
def test_a_call_cannot_be_asked_for_without_tools(choice: Any, more: dict[str, Any]) -> None:
    assert refused(tool_choice=choice, **more).param == "tool_choice"


def test_a_name_that_is_none_of_the_tools_is_told_the_nearest() -> None:
    named = {"type": "function", "function": {"name": "getweather"}}

    error = refused(tools=[tool(), tool("add")], tool_choice=named)

    assert error.param == "tool_choice.function.name"
    assert "'get_weather'" in error.message


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ("any", "tool_choice"),
        (5, "tool_choice"),
        ({}, "tool_choice"),
        ({"function": {"name": "get_weather"}}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.function"),
        ({"type": "function", "function": {"name": 5}}, "tool_choice.function.name"),
        ({"type": "function", "name": "get_weather"}, "tool_choice"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, "tool_choice.type"),
        ({"type": "custom", "custom": {"name": "x"}}, "tool_choice.type"),
    ],
)
def test_other_choices_are_refused(choice: Any, param: str) -> None:
    assert (refused(tools=[tool()], tool_choice=choice).param or "").startswith(param)


def test_tools_are_bounded_together() -> None:
    large = {"type": "object", "properties": {"a": {"type": "array", "maxItems": schemas.MAX_WEIGHT // 3}}}

    assert parse(tools=[tool("a", parameters=large), tool("b", parameters=large)])
    error = refused(tools=[tool(name, parameters=large) for name in "abcd"])

    assert error.param == "tools"


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ("json_object", "response_format"),
        ({}, "response_format.type"),
        ({"type": "yaml"}, "response_format.type"),
        ({"type": "text", "schema": {}}, "response_format.schema"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, "response_format.json_schema.name"),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": None}},
            "response_format.json_schema.schema",
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}},
            "response_format.json_schema.name",
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": 1}},
            "response_format.json_schema.strict",
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"uniqueItems": True}}},
            "response_format.json_schema.schema.uniqueItems",
        ),
        ({"type": "json_object", "schema": {"not": {}}}, "response_format.schema.not"),
    ],
)
def test_formats_that_cannot_be_honoured_are_named(wanted: Any, param: str) -> None:
    error = refused(response_format=wanted)

    assert error.param == param
    assert param.rpartition(".")[2] in error.message


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_object", "schema": PARAMETERS},
        {"type": "json_schema", "json_schema": {"name": "n", "schema": PARAMETERS}},
        {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {}, "strict": False, "description": "d"},
        },
        {"type": "json_schema", "json_schema": {"name": "n", "schema": PARAMETERS, "strict": True}},
    ],
)
def test_formats_of_the_reference_are_taken(wanted: Any) -> None:
    assert json.loads(parse(response_format=wanted).fields["response_format"]) == wanted
