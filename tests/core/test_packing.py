from hypothesis import given
from hypothesis import strategies as st

from scibox.core.packing import BYTES_PER_TOKEN, pack, share

sizes = st.lists(st.integers(0, 1000), max_size=60)


@given(sizes, st.integers(1, 9), st.integers(1, 500))
def test_every_text_is_packed_once_within_the_bounds(sizes: list[int], texts: int, tokens: int) -> None:
    packs = list(pack(sizes, texts=texts, tokens=tokens))

    assert sorted(index for packed in packs for index in packed) == list(range(len(sizes)))
    for packed in packs:
        assert 1 <= len(packed) <= texts
        filled = sum(sizes[index] for index in packed)
        assert filled <= tokens * BYTES_PER_TOKEN or len(packed) == 1


def test_texts_of_like_length_run_together_the_longest_first() -> None:
    assert list(pack([1, 90, 2, 91], texts=2, tokens=1000)) == [[3, 1], [2, 0]]


@given(st.integers(0, 10**6), st.lists(st.integers(0, 1000), min_size=1, max_size=60))
def test_a_total_is_given_out_without_loss(total: int, sizes: list[int]) -> None:
    shares = share(total, sizes)

    assert sum(shares) == total
    assert min(shares) >= 0
