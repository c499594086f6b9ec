"""JSON schemas, regular expressions and grammars of clients: bounded first, then compiled for a trial.

llama.cpp ignores a grammar that it cannot compile, in silence, and compiles it in the one thread that serves
every slot: so what cannot be enforced, or would take long, must be known before it is sent. Whether a schema
can be enforced is asked of `llguidance`, the compiler that llama.cpp has built in, in the same version. It is
asked only within bounds of our own, because it is slow or dies beyond them (a chain of 800 `$ref`s overflows
its stack; `maxItems` of a million takes 5 s); with them the slowest schema that was found takes 0.1 s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import quote, unquote

import msgspec

from scibox.core.errors import InvalidRequest

from . import patterns

MAX_BYTES = 128 * 1024
MAX_DEPTH = 64  # JSON levels; the compiler's reader stops at 128
MAX_WEIGHT = 6_000  # JSON values, and items that must or may be counted
# What takes the compiler longer than other values do, in JSON values: expressions are made of them.
EXPRESSION_WEIGHT = 20  # `pattern`, `format`, and the bounds of numbers
NESTED_WEIGHT = 6  # an object or a list within `enum` or `const`
# Of each in all; patterns of properties are compared each with each.
MOST = {"properties": 1_000, "enum": 1_000, "patternProperties": 16}
MAX_LENGTH = 100_000  # minLength, maxLength
MAX_CHAIN = 400  # levels of the schema and of everything it refers to, one below the other
MAX_PATTERN_CHARS = 1_000
MAX_PATTERN_SIZE = 2_000  # with counted repetitions written out
MAX_PATTERN_DEPTH = 50
MAX_GRAMMAR_BYTES = 32 * 1024

_SCHEMAS = frozenset({"items", "additionalItems", "additionalProperties", "not", "if", "then", "else"})
_SCHEMAS |= {"contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties"}
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems", "items"})
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_COUNTS = frozenset({"minItems", "maxItems", "minProperties", "maxProperties"})
_LENGTHS = frozenset({"minLength", "maxLength"})
_EXPRESSIONS = frozenset({"pattern", "format", "multipleOf", "minimum", "maximum"})
_EXPRESSIONS |= {"exclusiveMinimum", "exclusiveMaximum"}
_LEAST = frozenset({"minimum", "exclusiveMinimum"})
_MOST = frozenset({"maximum", "exclusiveMaximum"})
LARGEST = 2**53  # the compiler counts in floats: bounds beyond it would be others than were meant
_VALUES = frozenset({"enum", "const"})
# What the compiler enforces; other formats are annotations (JSON Schema 2020-12, validation, section 7).
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
# zod writes the first for every record: they hold for every object and every list.
_ALWAYS_TRUE = {"propertyNames": (b'{"type":"string"}', b"{}", b"true"), "uniqueItems": (b"false",)}
# What the compiler says where it does not quote the keyword.
_SAID = {
    "Invalid type": "type",
    "alternatives of 'oneOf'": "oneOf",
    "patternProperty": "patternProperties",
    "maxProperties only": "minProperties",
    "multiple of": "multipleOf",
    "regex parse error": "pattern",
    "Regex is empty": "pattern",
    "regex is empty": "pattern",
    "enum must": "enum",
    "const": "const",
    "properties must": "properties",
    "float range": "minimum",
    "integer range": "minimum",
    "minimum (": "minimum",
    "circular references": "$ref",
    "Pointer": "$ref",
    "$ref": "$ref",
    "anyOf is empty": "anyOf",
}
_QUOTED = re.compile(r"""["']([$a-zA-Z]+)["']""")
_NEVER = re.compile(r"required property '(.*)' is unsatisfiable")
_COUNTED = re.compile(r"\{(\d*),?(\d*)\}|~(\d+)(?:\.\.(\d+))?")


def check_schema(raw: bytes, param: str) -> int:
    """Raise `InvalidRequest` naming the keyword unless every answer can be held to this JSON schema.

    `param` is where the schema stands in the request. Gives back its weight, for those who add schemas up.
    """
    if len(raw) > MAX_BYTES:
        raise _refusal(param, f"is larger than {MAX_BYTES} bytes; split the task or leave descriptions out.")
    return _checked(bytes(raw), param)


def check_object_schema(raw: bytes, param: str) -> int:
    """`check_schema` for what must describe an object: the parameters of a function."""
    weight = check_schema(raw, param)
    schema = msgspec.json.decode(raw)
    if schema.get("type", "object") != "object":
        raise _refusal(param, 'must be a JSON schema of "type": "object".')
    return weight


def check_pattern(pattern: str, param: str) -> None:
    """Raise `InvalidRequest` unless this regular expression compiles and stays small."""
    _bound_pattern(pattern, param)
    if found := _trial("regex", pattern):
        raise _refusal(param, f"is no regular expression that can be enforced: {found}.")


def check_grammar(text: str, param: str) -> None:
    """Raise `InvalidRequest` unless this grammar, in llguidance's Lark, compiles and stays small."""
    bound_grammar(text, param)
    if "%json" in text or "%llguidance" in text:
        raise _refusal(param, "may not hold %json or %llguidance; give a schema as 'response_format'.")
    if found := _trial("lark", text):
        raise _refusal(
            param, f"is no grammar that can be enforced (in the Lark dialect of llguidance): {found}."
        )


def bound_grammar(text: str, param: str) -> None:
    """Raise `InvalidRequest` for a grammar, in whatever dialect, that would take long to compile."""
    if len(text.encode()) > MAX_GRAMMAR_BYTES:
        raise _refusal(param, f"is larger than {MAX_GRAMMAR_BYTES} bytes.")
    counts = [int(n[:9]) for found in _COUNTED.findall(text) for n in found if n]
    if sum(counts) > MAX_WEIGHT:
        raise _refusal(param, f"repeats more than {MAX_WEIGHT} times; write it with * or +.")
    if patterns.depth(text) > MAX_PATTERN_DEPTH:
        raise _refusal(param, f"is nested deeper than {MAX_PATTERN_DEPTH} levels; name its parts.")


@lru_cache(maxsize=128)  # clients send the same tools with every call
def _checked(raw: bytes, param: str) -> int:
    try:
        schema = msgspec.json.decode(raw)
    except RecursionError:
        raise _refusal(param, f"is nested deeper than {MAX_DEPTH} levels.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refusal(param, f"is not valid JSON: {error}.") from None
    if not isinstance(schema, dict):
        raise _refusal(param, "must be a JSON schema: an object.")
    walk = _Walk(schema, param)
    walk.all()
    if found := _trial("json_schema", (msgspec.json.encode(schema) if simplify(schema) else raw).decode()):
        raise _unenforceable(schema, found, param)
    return walk.weight


def simplify(schema: Any) -> bool:  # Any: a decoded JSON schema
    """Take out, in place, what says nothing and what the compiler would stumble over; whether there was any.

    Who compiles a schema that has been checked does this to it first.
    """
    if isinstance(schema, list):
        return True in [simplify(part) for part in schema]
    if not isinstance(schema, dict):
        return False
    empty = [name for name, said in _ALWAYS_TRUE.items() if msgspec.json.encode(schema.get(name)) in said]
    if isinstance(schema.get("format"), str) and schema["format"] not in FORMATS:
        empty.append("format")
    for name in empty:
        del schema[name]
    found = bool(empty)
    for name, value in schema.items():
        if (other := _in_its_words(name, value)) != value:
            schema[name], found = other, True
        if name in _MAPS and isinstance(value, dict):
            found = True in [simplify(part) for part in value.values()] or found
        elif name in _SCHEMAS or name in _LISTS:
            found = simplify(value) or found
    return found


def _in_its_words(name: str, value: Any) -> Any:  # Any: JSON
    """A keyword's value as the compiler reads it: references in ASCII, bounds of numbers within `LARGEST`."""
    if name == "$ref" and isinstance(value, str):
        return "#" + quote(unquote(value[1:]), safe="/~!$&'()*+,;=:@")
    if name in _LEAST and isinstance(value, int | float):
        return max(value, -LARGEST)
    if name in _MOST and isinstance(value, int | float):
        return min(value, LARGEST)
    return value


class _Walk:
    """Counts what a schema costs, and raises where it is too much; each `$ref` leads somewhere inside it."""

    def __init__(self, schema: Any, param: str) -> None:  # Any: a JSON schema
        self._schema = schema
        self._param = param
        self._heights: dict[int, int] = {}
        self._targets: dict[str, Any] = {}
        self._counts = dict.fromkeys(MOST, 0)
        self.weight = 0

    def all(self) -> None:
        """Walk through the whole schema."""
        chain = self._node(self._schema, self._param, 1)
        for reference, target in self._targets.items():
            if isinstance(target, dict) and id(target) not in self._heights:  # its `$ref`s were not seen
                raise _refusal(self._param, f"refers to '{reference[:80]}', where no schema is; use '$defs'.")
        reached = {id(target) for target in self._targets.values()}
        chain += sum(self._heights.get(number, 1) for number in reached)
        if chain > MAX_CHAIN:
            raise _refusal(self._param, f"refers to itself over more than {MAX_CHAIN} levels; flatten it.")

    def _node(self, node: Any, where: str, depth: int) -> int:  # Any: whatever stands where a schema should
        """One schema; gives back how many schemas are nested in it, itself included."""
        self._weigh(1, where)
        if depth > MAX_DEPTH:
            raise _refusal(where, f"is nested deeper than {MAX_DEPTH} levels; flatten it.")
        if not isinstance(node, dict):
            return 1
        below = 0
        for name, value in node.items():
            place = f"{where}.{name[:80]}"
            if name in _MAPS and isinstance(value, dict):
                self._count(name, len(value), place)
                inner = [self._node(part, f"{place}.{key[:80]}", depth + 2) for key, part in value.items()]
                if name == "patternProperties":
                    for pattern in value:
                        _bound_pattern(pattern, place)
                below = max(below, *inner, 0)
            elif name in _LISTS and isinstance(value, list):
                inner = [self._node(part, f"{place}[{i}]", depth + 2) for i, part in enumerate(value)]
                below = max(below, *inner, 0)
            elif name in _SCHEMAS:
                below = max(below, self._node(value, place, depth + 1))
            else:
                self._keyword(name, value, place, depth)
        self._heights[id(node)] = below + 1
        return below + 1

    def _keyword(self, name: str, value: Any, place: str, depth: int) -> None:  # Any: JSON
        self._weigh(EXPRESSION_WEIGHT if name in _EXPRESSIONS else 1, place)
        if name in _COUNTS and isinstance(value, int | float):
            self._weigh(max(0, int(value)) if abs(value) < 1e9 else MAX_WEIGHT + 1, place)
        elif name in _LENGTHS and isinstance(value, int | float) and value > MAX_LENGTH:
            raise _refusal(place, f"is over {MAX_LENGTH}; a smaller bound can be enforced.")
        elif isinstance(value, int | float) and (
            (name in _LEAST and value > LARGEST) or (name in _MOST and value < -LARGEST)
        ):
            raise _refusal(place, f"is beyond {LARGEST}, where numbers are not exact; use a string.")
        elif name in _VALUES:
            if name == "enum" and isinstance(value, list):
                self._count(name, len(value), place)
            self._value(value, place, depth + 1)
        elif name == "pattern" and isinstance(value, str):
            _bound_pattern(value, place)
        elif name == "$ref":
            self._refer(value, place)
        elif name == "x-guidance":  # it would change how the schema is compiled
            raise _refusal(place, "may not be given; leave it out.")
        elif name in {"$id", "id"} and depth > 1:  # it would change where the `$ref`s below it lead
            raise _refusal(place, "may stand only at the top of a schema; leave it out.")
        elif name == "required" and isinstance(value, list):
            self._weigh(len(value), place)

    def _value(self, value: Any, where: str, depth: int) -> None:  # Any: JSON
        if depth > MAX_DEPTH:
            raise _refusal(where, f"is nested deeper than {MAX_DEPTH} levels; flatten it.")
        self._weigh(NESTED_WEIGHT if isinstance(value, dict | list) else 1, where)
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        for part in parts:
            self._value(part, where, depth + 1)

    def _refer(self, reference: Any, place: str) -> None:  # Any: JSON
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise _refusal(place, "must stay within the schema: '#/$defs/...'. Nothing is fetched.")
        if reference not in self._targets:
            self._targets[reference] = _resolve(self._schema, reference, place)

    def _count(self, name: str, number: int, place: str) -> None:
        if name in MOST:
            self._counts[name] += number
            if self._counts[name] > MOST[name]:
                raise _refusal(place, f"are too many: a schema may have {MOST[name]} {name} in all.")

    def _weigh(self, more: int, place: str) -> None:
        self.weight += more
        if self.weight > MAX_WEIGHT:
            raise _refusal(
                place,
                f"makes the schema too large: values, and items to be counted, may be {MAX_WEIGHT} in all.",
            )


def _resolve(schema: Any, reference: str, place: str) -> Any:  # Any: JSON
    """What a JSON pointer (RFC 6901) in a fragment leads to."""
    found = schema
    for part in unquote(reference[1:]).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isascii() and name.isdigit() and int(name[:9]) < len(found):
            found = found[int(name)]
        else:
            raise _refusal(place, f"leads nowhere: there is no '{reference[:80]}'.")
    if reference[1:2] not in {"", "/"}:
        raise _refusal(place, "must be '#' or '#/...'; anchors are not supported.")
    return found


def _bound_pattern(pattern: str, where: str) -> None:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise _refusal(where, f"is a pattern of more than {MAX_PATTERN_CHARS} characters.")
    if patterns.size(pattern) > MAX_PATTERN_SIZE:
        raise _refusal(
            where,
            f"is a pattern that repeats to more than {MAX_PATTERN_SIZE} characters; use maxLength.",
        )
    if patterns.depth(pattern) > MAX_PATTERN_DEPTH:
        raise _refusal(where, f"is a pattern nested deeper than {MAX_PATTERN_DEPTH} groups.")


def _trial(kind: Literal["json_schema", "regex", "lark"], text: str) -> str:
    """What the compiler has against it, in one line; empty if nothing."""
    from llguidance import LLMatcher  # noqa: PLC0415 - 25 ms, for the few who constrain answers

    try:
        match kind:
            case "json_schema":
                grammar = LLMatcher.grammar_from_json_schema(text)
            case "regex":
                grammar = LLMatcher.grammar_from_regex(text)
            case "lark":
                grammar = LLMatcher.grammar_from_lark(text)
        failed, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    except ValueError as error:
        failed, messages = True, [str(error)]
    if not failed and not messages:
        return ""
    said = " ".join(" ".join(messages).replace("`", "'").split())
    if said.startswith("oneOf constraints"):  # what it goes on to say is about an option of its own
        said = "the alternatives of 'oneOf' may overlap; 'anyOf' can be enforced"
    return (said if len(said) <= 300 else f"{said[:150]} ... {said[-150:]}").rstrip(".")


def _unenforceable(schema: Any, said: str, param: str) -> InvalidRequest:  # Any: a JSON schema
    """The compiler's words with the place that they are about."""
    if found := _NEVER.search(said):
        where = next((place for place, _ in _places(schema, found[1], param)), param)
        return _refusal(where, f"can never be matched: {said}.")
    keyword = next((name for words, name in _SAID.items() if words in said), None)
    if keyword is None and (found := _QUOTED.search(said)):
        keyword = found[1]
    places = list(_places(schema, keyword, param)) if keyword else []
    quoted = [place for place, value in places if isinstance(value, str | int | float) and str(value) in said]
    named = f"uses '{keyword}' in a way" if places else "is a schema"
    return InvalidRequest(
        f"'{param}' {named} that cannot be enforced: {said}. Leave it out or say it otherwise.",
        param=next(iter([*quoted, *(place for place, _ in places)]), param),
        code="unsupported_schema",
    )


def _places(node: Any, name: str, where: str) -> Iterator[tuple[str, Any]]:  # Any: a JSON schema
    """Where a name stands in a schema, and what it holds there."""
    if isinstance(node, dict):
        if name in node:
            yield f"{where}.{name[:80]}", node[name]
        for key, value in node.items():
            if key not in _VALUES:
                yield from _places(value, name, f"{where}.{key[:80]}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _places(value, name, f"{where}[{index}]")


def _refusal(where: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"'{where}' {what}", param=where, code="unsupported_schema")
