"""Changes to JSON that make it odd: for fuzzing whatever reads JSON of others."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 99, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, 1e-320),
    *("", " ", "x", "\x00", "\u2028", "\ufeff", "a" * 5_000, "true", "1", "\U0001f44b", "data: [DONE]\n\n"),
    *(
        [],
        {},
        [[]],
        [None],
        [{}],
        {"": {}},
        {"type": "text"},
        {"type": "object"},
        {"a": {"b": [1]}},
        ["x"] * 300,
    ),
]
RAW = [
    *(
        b"NaN",
        b"Infinity",
        b"-",
        b"1e999",
        b"0123",
        rb'"\ud800"',
        rb'"\udc00\ud800"',
        b'"\xff"',
        b"\xef\xbb\xbf",
    ),
    *(b"[" * 3_000, b'{"a":' * 3_000, b"//", b"'x'", b"\x00", b",", b"}", b"null", b"\r\n\r\n"),
]


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a value, its own included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(spot for key, one in inner for spot in spots(one, (*path, key)))]


def _change(value: Any, path: tuple[Any, ...], what: str, new: Any) -> Any:
    """The value with one spot changed."""
    if not path:
        return new
    changed = copy.deepcopy(value)
    at = changed
    for key in path[:-1]:
        at = at[key]
    if what == "replace":
        at[path[-1]] = new
    elif what == "remove":
        del at[path[-1]]
    elif isinstance(at, list):
        at.insert(path[-1], copy.deepcopy(at[path[-1]]))
    else:
        at[f"{path[-1]}_"] = at[path[-1]]
    return changed


@st.composite
def odd_values(draw: st.DrawFn, seeds: Sequence[Any]) -> Any:
    """A seed with up to three spots replaced, removed or doubled."""
    value = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(spots(value)))
        what = draw(st.sampled_from(["replace", "replace", "remove", "double"]))
        value = _change(value, path, what, draw(st.sampled_from(ODD) | st.text(max_size=8)))
    return value


@st.composite
def odd_bytes(draw: st.DrawFn, seeds: Sequence[Any]) -> bytes:
    """Such a value as bytes, with up to three places overwritten, cut out, or filled with what is no JSON."""
    raw = json.dumps(draw(odd_values(seeds)), ensure_ascii=draw(st.booleans())).encode(
        "utf-8", "surrogatepass"
    )
    for _ in range(draw(st.integers(0, 3))):
        at, end = sorted((draw(st.integers(0, len(raw))), draw(st.integers(0, len(raw)))))
        match draw(st.sampled_from(["byte", "cut", "fill", "double"])):
            case "byte":
                raw = raw[:at] + draw(st.binary(min_size=1, max_size=2)) + raw[at + 1 :]
            case "cut":
                raw = raw[:at] + raw[min(end, at + 20) :]
            case "fill":
                raw = raw[:at] + draw(st.sampled_from(RAW)) + raw[at:]
            case _:
                raw = raw[:end] + raw[at:]
    return raw
