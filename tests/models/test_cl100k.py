import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.models import cl100k

# Of OpenAI's own file, as tiktoken checks it (tiktoken_ext/openai_public.py).
SHA_256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
BYTE_IDS = {entry: one for one, entry in ((n, cl100k._table()[0][n : n + 1]) for n in range(256))}


def test_the_packed_vocabulary_is_openai_s_file() -> None:
    text, bounds = cl100k._table()
    lines = (
        base64.b64encode(text[bounds[one] : bounds[one + 1]]) + b" %d\n" % one for one in range(cl100k.SIZE)
    )

    assert hashlib.sha256(b"".join(lines)).hexdigest() == SHA_256


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([9906, 1917], "Hello world"),
        ([54745, 28089, 8341, 24748], "Привет hello"),
        ([], ""),
    ],
)
def test_ids_are_decoded_as_openai_encodes(ids: list[int], text: str) -> None:
    assert cl100k.decode(ids) == text


def as_bytes(raw: bytes) -> list[int]:
    """Ids of the vocabulary's single bytes: its first 256 entries."""
    return [BYTE_IDS[raw[at : at + 1]] for at in range(len(raw))]


@given(st.text())
def test_every_text_comes_back_from_the_ids_of_its_bytes(text: str) -> None:
    assert cl100k.decode(as_bytes(text.encode())) == text


@given(st.text(min_size=1), st.data())
def test_half_a_character_at_an_end_is_dropped_and_no_more(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(raw)), st.integers(0, len(raw)))))

    assert cl100k.decode(as_bytes(raw[start:end])) == raw[start:end].decode(errors="ignore")


@pytest.mark.parametrize("ids", [[100_256], [100_257], [100_276], [100_277], [-1], [10**15]])
def test_ids_that_are_not_in_the_vocabulary_are_refused(ids: list[int]) -> None:
    with pytest.raises(cl100k.Undecodable):
        cl100k.decode(ids)


@pytest.mark.parametrize("raw", [b"a\xd0b", b"a\xffb", b"a\x80b", b"\xff", b"a\xc0\xafb", b"a\xed\xa0\x80b"])
def test_bytes_in_the_middle_that_are_no_text_are_refused(raw: bytes) -> None:
    with pytest.raises(cl100k.Undecodable):
        cl100k.decode(as_bytes(raw))


@pytest.mark.parametrize(
    ("one", "kind"),
    [(100_257, "a special id"), (100_276, "a special id"), (100_277, "no id"), (10**30, "no id")],
)
def test_special_ids_are_told_from_what_is_no_id(one: int, kind: str) -> None:
    with pytest.raises(cl100k.Undecodable, match=f"which is {kind} of"):
        cl100k.decode([one])
