from hypothesis import given
from hypothesis import strategies as st

from scibox.core.fit import LONGEST_ENTRY_BYTES, Fit, chat_overhead, fit


def test_a_short_text_fits_without_counting() -> None:
    assert fit(100, 90, 512) is Fit.FITS


def test_a_text_with_more_bytes_than_the_context_must_be_counted() -> None:
    assert fit(600, 500, 512) is Fit.UNKNOWN


def test_what_a_template_adds_is_counted_too() -> None:
    assert fit(500, 400, 512, overhead_tokens=chat_overhead(1)) is Fit.UNKNOWN


def test_a_text_beyond_every_vocabulary_is_too_long() -> None:
    size = 512 * LONGEST_ENTRY_BYTES + 1

    assert fit(size, size, 512) is Fit.TOO_LONG


def test_white_space_proves_nothing() -> None:
    assert fit(20_000_000, 0, 512) is Fit.UNKNOWN


def test_an_unknown_context_fits() -> None:
    assert fit(10**9, 10**9, None) is Fit.FITS


@given(st.integers(0, 10**7), st.integers(1, 10**5))
def test_a_longer_text_never_fits_better(size: int, context: int) -> None:
    order = [Fit.FITS, Fit.UNKNOWN, Fit.TOO_LONG]

    assert order.index(fit(size, size, context)) <= order.index(fit(size + 1, size + 1, context))
