"""What an answer is constrained to: the many ways in which clients say it, made one.

OpenAI has `response_format`; vLLM `structured_outputs` and, before it, `guided_*`; llama-server `json_schema`
and `grammar`. A request has one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from scibox.core.errors import InvalidRequest

T = TypeVar("T")

FIELDS = frozenset(
    {
        *("response_format", "structured_outputs", "json_schema", "grammar"),
        *("guided_json", "guided_regex", "guided_choice", "guided_grammar"),
    }
)
ANY_OBJECT = b'{"type":"object"}'


@dataclass(frozen=True, slots=True)
class Json:
    """JSON that a schema describes; the schema as the client sent it."""

    schema: bytes


@dataclass(frozen=True, slots=True)
class Regex:
    """Text that a regular expression matches as a whole."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these texts."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grammar:
    """Text of a context-free grammar, as the client wrote it."""

    text: str


Constraint = Json | Regex | Choice | Grammar


class _Named(Struct):
    schema: Raw = Raw()


class _Format(Struct):
    type: str
    json_schema: _Named | None = None
    schema: Raw = Raw()  # llama-server's own way


class _Structured(Struct, forbid_unknown_fields=True):
    """vLLM's; what is not read here are its switches of how it compiles."""

    json: Raw = Raw()
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: Raw = Raw()
    disable_fallback: bool | None = None
    disable_any_whitespace: bool | None = None
    disable_additional_properties: bool | None = None
    whitespace_pattern: str | None = None


def constraint(fields: Mapping[str, bytes]) -> tuple[str, Constraint] | None:
    """The one way in which this request constrains its answer, after the field that says so."""
    if FIELDS.isdisjoint(fields):  # nearly always
        return None
    found = [
        (path, way)
        for name in sorted(FIELDS & fields.keys())
        if fields[name] != b"null"
        for path, way in _read(name, fields[name])
    ]
    if len(found) > 1:
        both = " and ".join(f"'{path}'" for path, _ in found[:2])
        raise InvalidRequest(f"Both {both} constrain the answer; keep one of them.", param=found[1][0])
    return found[0] if found else None


def _read(name: str, raw: bytes) -> Iterator[tuple[str, Constraint]]:
    match name:
        case "response_format":
            yield from _format(_decoded(raw, _Format, name))
        case "structured_outputs":
            yield from _structured(_decoded(raw, _Structured, name))
        case "guided_json" | "json_schema":
            yield name, Json(_schema(raw, name))
        case "guided_regex":
            yield name, Regex(_decoded(raw, str, name))
        case "guided_choice":
            yield name, _choice(_decoded(raw, list[str], name), name)
        case _:  # guided_grammar and grammar; an empty one constrains nothing at llama-server
            text = _decoded(raw, str, name)
            if text.strip():
                yield name, Grammar(text)


def _format(wanted: _Format) -> Iterator[tuple[str, Constraint]]:
    match wanted.type:
        case "text":
            return
        case "json_object" if _is_empty(bytes(wanted.schema)):
            yield "response_format", Json(ANY_OBJECT)
        case "json_object":
            yield "response_format.schema", Json(bytes(wanted.schema))
        case "json_schema":
            path = "response_format.json_schema.schema"
            schema = bytes(wanted.json_schema.schema if wanted.json_schema else wanted.schema)
            if _is_empty(schema):
                raise InvalidRequest(f"'{path}' is missing; give the JSON schema of the answer.", param=path)
            yield path, Json(schema)
        case other:
            raise InvalidRequest(
                f"'response_format.type' is '{other[:40]}'; it can be text, json_object or json_schema.",
                param="response_format.type",
            )


def _structured(wanted: _Structured) -> Iterator[tuple[str, Constraint]]:
    where = "structured_outputs"
    if not _is_empty(bytes(wanted.structural_tag)):
        raise InvalidRequest(
            f"'{where}.structural_tag' is not supported here; use json, regex, choice or grammar.",
            param=f"{where}.structural_tag",
        )
    if not _is_empty(bytes(wanted.json)):
        yield f"{where}.json", Json(_schema(bytes(wanted.json), f"{where}.json"))
    if wanted.json_object:
        yield f"{where}.json_object", Json(ANY_OBJECT)
    if wanted.regex is not None:
        yield f"{where}.regex", Regex(wanted.regex)
    if wanted.choice is not None:
        yield f"{where}.choice", _choice(wanted.choice, f"{where}.choice")
    if wanted.grammar is not None:
        yield f"{where}.grammar", Grammar(wanted.grammar)


def _is_empty(raw: bytes) -> bool:
    return raw in {b"", b"null"}


def _choice(texts: list[str], where: str) -> Choice:
    if not texts or "" in texts:
        raise InvalidRequest(f"'{where}' must name at least one text, none of them empty.", param=where)
    return Choice(tuple(texts))


def _schema(raw: bytes, where: str) -> bytes:
    """A schema; vLLM also takes it as the text of one."""
    if not raw.startswith(b'"'):
        return raw
    text = msgspec.json.decode(raw, type=str).encode()
    _decoded(text, Raw, where)
    return text


def _decoded(raw: bytes, kind: type[T], where: str) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        reason = str(error).replace("`", "'")
        raise InvalidRequest(f"Wrong value in '{where}': {reason}.", param=where) from None
