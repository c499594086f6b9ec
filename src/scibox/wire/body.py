"""What every request body has in common: JSON to typed fields, and msgspec's errors in OpenAI's words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TypeVar

import msgspec
from msgspec import Struct

from scibox.core.errors import InvalidRequest
from scibox.core.names import nearest

T = TypeVar("T")

LONGEST_REASON = 300

_AT = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
# What Python and JavaScript write for numbers that JSON does not have, and the name before it.
_NO_NUMBER = re.compile(rb'"([A-Za-z_]{1,64})"\s*:\s*(-?(?:NaN|Infinity))')
_BYTE = re.compile(r"\(byte (\d+)\)")
_LONE_SURROGATE = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Strict(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A record within a request: a name that it does not know is an error. Never part of a cycle."""


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> tuple[T, dict[str, bytes]]:
    """The typed record and, beside it, each top-level field as the bytes the client sent."""
    if not body.strip():
        raise InvalidRequest("The body is empty; send a JSON object.", code="invalid_json")
    try:
        if not body.isascii():
            body.decode()  # msgspec looks only into the strings that it makes
        record = decoder.decode(body)
        fields = {name: bytes(raw) for name, raw in _fields.decode(body).items()}
    except msgspec.ValidationError as error:
        raise _mismatch(str(error)) from None
    except UnicodeDecodeError as error:
        message = f"The body is not valid UTF-8 ({error.reason}); encode it as UTF-8."
        raise InvalidRequest(message, param="body", code="invalid_json") from None
    except RecursionError:
        message = "The body is nested too deeply; flatten it."
        raise InvalidRequest(message, param="body", code="invalid_json") from None
    except msgspec.DecodeError as error:
        raise _malformed(body, str(error)) from None
    return record, fields


def decode_at(where: str, raw: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """One value inside a body whose shape depends on its neighbours; `where` is its path."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _mismatch(str(error), where) from None


def refuse_unknown(
    fields: Iterable[str], known: Iterable[str], elsewhere: Mapping[str, str] = MappingProxyType({})
) -> None:
    """A field that we do not know would be ignored in silence by someone: say so instead.

    `elsewhere`: names that other APIs have for fields of this one.
    """
    known = frozenset(known)
    if known.issuperset(fields):
        return
    for name in fields:
        if name not in known:
            close = elsewhere.get(name) or nearest(name[:80], known)
            hint = f" Did you mean '{close}'?" if close else " Remove it."
            message = f"Unknown field '{name[:80]}'.{hint}"
            raise InvalidRequest(message, param=name[:80], code="unknown_parameter")


def encode(fields: dict[str, bytes]) -> bytes:
    """The fields as one JSON object again, their values untouched."""
    return msgspec.json.encode({name: msgspec.Raw(value) for name, value in fields.items()})


def _malformed(body: bytes, reason: str) -> InvalidRequest:
    param = "body"
    at = int(found[1]) if (found := _BYTE.search(reason)) else 0
    if number := _NO_NUMBER.search(body, max(0, at - 100), at + 10):
        param, value = number[1].decode(), number[2].decode()
        message = f"'{param}' is {value}, which JSON does not have; send a number."
    elif _LONE_SURROGATE.search(body):
        message = "A string holds half of a surrogate pair (\\ud800-\\udfff alone); send whole characters."
    else:
        message = f"The body is not valid JSON: {reason}."
    return InvalidRequest(message, param=param, code="invalid_json")


def _mismatch(text: str, where: str = "") -> InvalidRequest:
    """msgspec says "Expected `int`, got `str` - at `$.max_tokens`"; OpenAI has `param` for the path."""
    match = _AT.match(text)
    what, path = (match["what"], match["path"] or "") if match else (text, "")
    if where:
        path = f"{where}{'' if not path or path.startswith('[') else '.'}{path}"
    what = what if len(what) <= LONGEST_REASON else f"{what[:LONGEST_REASON]}..."  # it may quote a value
    code = InvalidRequest.code
    if missing := _MISSING.search(what):
        path = f"{path}.{missing['name']}" if path else missing["name"]
        message = f"Missing field '{path}'."
    elif unknown := _UNKNOWN.search(what):
        path, code = f"{path}.{unknown['name'][:80]}", "unknown_parameter"
        message = f"Unknown field '{path}'. Remove it."
    elif path:
        message = f"Wrong value in '{path}': {what[:1].lower()}{what[1:]}."
    else:
        message = f"The body must be a JSON object: {what[:1].lower()}{what[1:]}."
    return InvalidRequest(message.replace("`", "'"), param=path or "body", code=code)
