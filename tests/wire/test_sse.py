import itertools

from hypothesis import given
from hypothesis import strategies as st

from scibox.wire import sse

payloads = st.lists(st.text(min_size=1, max_size=40).map(lambda text: text.encode()), max_size=8).map(
    lambda texts: [t.replace(b"\n", b" ").replace(b"\r", b" ") for t in texts]
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(payloads, st.lists(st.integers(0, 10_000), max_size=20), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_any_split_of_the_bytes_gives_the_same_events(
    sent: list[bytes], cuts: list[int], line_end: bytes
) -> None:
    stream = b"".join(b"data: " + payload + line_end * 2 for payload in sent)
    splitter = sse.EventSplitter()

    got = [event for piece in pieces(stream, cuts) for event in splitter.feed(piece)]
    got += splitter.feed(b"data: end\n\n")

    assert got == [*sent, b"end"]


def test_comments_ids_and_names_are_dropped() -> None:
    events = sse.EventSplitter().feed(b": ping\n\nid: 7\nevent: delta\ndata: {}\n\nretry: 10\n\n")

    assert events == [b"{}"]


def test_data_without_the_space_is_understood() -> None:
    assert sse.EventSplitter().feed(b"data:{}\n\n") == [b"{}"]


def test_an_unfinished_event_waits() -> None:
    splitter = sse.EventSplitter()

    assert splitter.feed(b'data: {"a"') == []
    assert splitter.is_mid_event
    assert splitter.feed(b":1}\n\n") == [b'{"a":1}']
    assert not splitter.is_mid_event


@given(payloads)
def test_parse_of_render_is_the_same(sent: list[bytes]) -> None:
    assert sse.EventSplitter().feed(b"".join(map(sse.render, sent))) == sent
