"""Forms in pieces: any cut of the bytes gives the same form, and no bytes do worse than `InvalidRequest`."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.core.errors import InvalidRequest
from scibox.wire.stored.multipart import Form

KIND = "multipart/form-data; boundary=xYz"


def body(fields: dict[str, bytes], content: bytes) -> bytes:
    parts = [
        f'--xYz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value
        for name, value in fields.items()
    ]
    parts.append(
        b'--xYz\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + content
    )
    return b"\r\n".join(parts) + b"\r\n--xYz--\r\n"


def cut(raw: bytes, at: list[int]) -> list[bytes]:
    places = sorted({place % (len(raw) + 1) for place in at} | {0, len(raw)})
    return [raw[low:high] for low, high in itertools.pairwise(places)]


# What looks like a boundary and is none must stay content.
contents = st.lists(st.sampled_from([b"\r\n", b"\r\n--xY", b"Yz", b"\r", b"-", b"a", b"\0\xff"])).map(
    b"".join
)


@given(contents, st.text("abc", max_size=5), st.lists(st.integers(0, 10**6), max_size=8))
def test_any_cut_gives_the_same_form(content: bytes, value: str, at: list[int]) -> None:
    form = Form(KIND)
    got = b"".join(form.feed(piece) for piece in cut(body({"purpose": value.encode()}, content), at))
    form.close()

    assert (got, form.fields, form.filename) == (content, {"purpose": value}, "a.jsonl")


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6), contents)
def test_no_mutation_does_worse_than_a_refusal(changes: list[tuple[int, int]], content: bytes) -> None:
    raw = bytearray(body({"purpose": b"batch"}, content))
    for at, byte in changes:
        raw[at % len(raw)] = byte
    form = Form(KIND)
    with contextlib.suppress(InvalidRequest):
        form.feed(bytes(raw))
        form.close()
        assert form.filename is not None


@given(st.text(max_size=60))
def test_no_content_type_does_worse_than_a_refusal(kind: str) -> None:
    for value in (kind, f"multipart/form-data; boundary={kind}"):
        with contextlib.suppress(InvalidRequest):
            Form(value.encode("latin-1", "replace").decode("latin-1"))


def test_a_field_is_bounded() -> None:
    with pytest.raises(InvalidRequest, match="'purpose' is longer"):
        Form(KIND).feed(body({"purpose": b"x" * 5000}, b""))
