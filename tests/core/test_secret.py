import string

from hypothesis import given
from hypothesis import strategies as st

from scibox.core import secret

numbers = st.lists(st.integers(0, 61), min_size=secret.RANDOM_CHARS, max_size=secret.RANDOM_CHARS)


@given(numbers)
def test_every_composed_secret_is_well_formed(chosen: list[int]) -> None:
    made = secret.compose(chosen)

    assert secret.is_well_formed(made)
    assert secret.PATTERN.fullmatch(made)
    assert len(made) == secret.LENGTH


@given(numbers, st.integers(len(secret.PREFIX), secret.LENGTH - 1), st.sampled_from(secret.ALPHABET))
def test_one_altered_character_is_noticed(chosen: list[int], at: int, char: str) -> None:
    made = secret.compose(chosen)
    altered = made[:at] + char + made[at + 1 :]

    assert secret.is_well_formed(altered) == (altered == made)


@given(st.text(alphabet=string.printable, max_size=60))
def test_other_texts_are_not_secrets(text: str) -> None:
    assert not secret.is_well_formed(text)


def test_a_secret_has_more_than_128_random_bits() -> None:
    assert 62**secret.RANDOM_CHARS > 2**128


def test_the_digest_is_sha256() -> None:
    assert secret.digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
