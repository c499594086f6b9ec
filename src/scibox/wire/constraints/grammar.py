"""Grammars for constrained decoding, in llguidance's dialect of Lark, as llama-server takes them.

llama-server ignores a grammar that does not compile, without a word: only what is known to compile may be
sent (`compiles`; `schemas.py` has looked at what clients send, and bounds it). Each JSON schema stays a
document of its own, so that its `$ref`s keep their meaning.
Syntax: llguidance, docs/syntax.md and docs/json_schema.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from . import schemas
from .asked import Choice, Constraint, Grammar, Json, Regex

HEAD = "%llguidance {}\n"
# Small models write white space without end where it is free: it is fixed, as `json.dumps` writes it.
_WRITTEN = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# Where one of these stands, closing an object could contradict what another part of the schema says of it.
_COMBINE = re.compile(
    rb'"(?:allOf|oneOf|not|if|dependentSchemas|dependencies|unevaluatedProperties|patternProperties'
    rb'|propertyNames|minProperties|\$dynamicRef|\$recursiveRef|\$id|id)"\s*:'
)
_VALUES = frozenset({"const", "enum", "default", "examples"})  # what they hold are no schemas
CALL_BEGINS = "<tool_call>\n"
CALL_ENDS = "\n</tool_call>"
MAX_CALLS = 8


def of(constraint: Constraint) -> str:
    """The grammar of an answer that is nothing else."""
    return HEAD + rules("start", constraint)


@lru_cache(maxsize=256)  # clients send the same schemas and tools with every call
def compiles(text: str) -> bool:
    """Whether llama-server will compile it: asked of the compiler that is built into it."""
    from llguidance import LLMatcher  # noqa: PLC0415 - 25 ms, for the few who constrain answers

    failed, _ = LLMatcher.validate_grammar_with_warnings(LLMatcher.grammar_from_lark(text))
    return not failed


def rules(name: str, constraint: Constraint) -> str:
    """The rule of that name, matching what the constraint allows."""
    match constraint:
        case Json(schema):
            return f"{name}: %json {json_schema(schema)}\n"
        case Regex(pattern):
            return f"{name}: /{_slashed(whole_pattern(pattern))}/\n"
        case Choice(texts):
            return f"{name}: {' | '.join(_quoted(text) for text in texts)}\n"
        case Grammar(text):
            return f"{name}: %lark {{\n{text}\n}}\n"


def json_schema(schema: bytes) -> str:
    """The schema with white space fixed, and objects closed to properties nobody has named.

    The second is allowed by the schema, and without it a small model adds properties until it is cut.
    """
    decoded: Any = msgspec.json.decode(schema)  # Any: a JSON schema
    if not isinstance(decoded, dict):
        decoded = {} if decoded is True else {"not": {}}
    schemas.simplify(decoded)
    _narrow_patterns(decoded)
    if not _COMBINE.search(schema):
        _close(decoded)
    return msgspec.json.encode({**decoded, "x-guidance": _WRITTEN}).decode()


def calls(tools: Sequence[tuple[str, bytes]], *, most: int, otherwise: str | None = None) -> str:
    """The grammar of one to `most` calls of these tools (name, schema of the arguments).

    `otherwise` is the rule `answer`, for answers that may be something else than calls: text before or
    instead of them where it is empty, else what the rule allows instead of them.
    """
    more = f" ({_quoted(chr(10))} call){{0,{most - 1}}}" if most > 1 else ""
    lines = [
        f"calls: call{more}",
        f"call: {_quoted(CALL_BEGINS)} one {_quoted(CALL_ENDS)}",
        "one: " + " | ".join(f"tool{index}" for index in range(len(tools))),
    ]
    for index, (name, schema) in enumerate(tools):
        opening = f'{{"name": {msgspec.json.encode(name).decode()}, "arguments": '
        lines.append(f"tool{index}: {_quoted(opening)} arguments{index} {_quoted('}')}")
        lines.append(f"arguments{index}: %json {json_schema(schema)}")
    if otherwise is None:
        lines.insert(0, "start: calls")
    elif otherwise:
        lines.insert(0, "start: calls | answer")
        lines.append(otherwise)
    else:
        # Only `suffix` ends a text where a call begins: `TEXT calls` would be read as text to its end.
        lines.insert(0, "start: TEXT | begun")
        lines.append(f"begun: begin one {_quoted(CALL_ENDS)}{more}")
        lines.append(f"begin[suffix={_quoted(CALL_BEGINS)}]: TEXT")
        lines.append("TEXT: /(.|\\n)*/ & ~/(.|\\n)*<tool_(call|response)>(.|\\n)*/")
    return HEAD + "\n".join(lines) + "\n"


def _close(schema: Any) -> None:  # Any: a JSON schema
    """Objects with named properties get no others, throughout."""
    if not isinstance(schema, dict):
        return
    named = schema.get("properties")
    if isinstance(named, dict):
        is_whole = "anyOf" not in schema and "$ref" not in schema
        if is_whole and set(schema.get("required", ())) <= named.keys():
            schema.setdefault("additionalProperties", False)
        for part in named.values():
            _close(part)
    if "items" in schema:
        _close(schema["items"])
    for name in ("$defs", "definitions"):
        if isinstance(schema.get(name), dict):
            for part in schema[name].values():
                _close(part)
    if not isinstance(named, dict):
        for name in ("anyOf", "prefixItems"):
            for part in schema.get(name, ()):
                _close(part)


def _narrow_patterns(schema: Any) -> None:  # Any: a JSON schema
    """`ascii_classes` in every `pattern`."""
    if isinstance(schema, list):
        for part in schema:
            _narrow_patterns(part)
    elif isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            schema["pattern"] = ascii_classes(schema["pattern"])
        for name, part in schema.items():
            if name not in _VALUES:
                _narrow_patterns(part)


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


def whole_pattern(pattern: str) -> str:
    """A regular expression that matches the whole text, anchors or not."""
    if pattern.startswith("^"):
        pattern = pattern[1:]
    if pattern.endswith("$") and not re.search(r"(?<!\\)(?:\\\\)*\\\$$", pattern):
        pattern = pattern[:-1]
    return ascii_classes(pattern)


def _slashed(pattern: str) -> str:
    """The same between slashes, on one line."""
    text = re.sub(r"\\.|/", lambda found: "\\/" if found[0] == "/" else found[0], pattern, flags=re.DOTALL)
    return text.replace("\n", "\\n").replace("\r", "\\r")


def ascii_classes(pattern: str) -> str:
    r"""`\d` and `\w` as JavaScript means them; llguidance would take digits and letters of every script."""
    in_class = False

    def written(found: re.Match[str]) -> str:
        nonlocal in_class
        if found[0] in "[]":
            in_class = found[0] == "["
            return found[0]
        inner = {"\\d": "0-9", "\\w": "A-Za-z0-9_"}.get(found[0])
        return found[0] if inner is None else inner if in_class else f"[{inner}]"

    return re.sub(r"\\.|[\[\]]", written, pattern, flags=re.DOTALL)
