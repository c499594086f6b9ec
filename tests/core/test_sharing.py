"""Limits divided among those who hold them together."""

from __future__ import annotations

from dataclasses import asdict, fields

from hypothesis import given
from hypothesis import strategies as st

from scibox.core.sharing import divided
from scibox.core.types import NO_LIMITS, Limits

AMOUNT = st.none() | st.integers(0, 10**12)
LIMITS = st.builds(Limits, **{field.name: AMOUNT for field in fields(Limits)})


@given(LIMITS, st.integers(1, 64))
def test_the_parts_are_never_more_than_the_whole_and_never_nothing(limits: Limits, parts: int) -> None:
    own = asdict(divided(limits, parts))
    for field, whole in asdict(limits).items():
        part = own[field]
        if not whole or field in {"tokens_per_day", "tokens_per_month"}:
            assert part == whole
        else:
            assert part >= 1
            assert part == 1 or whole - parts < part * parts <= whole


def test_what_is_not_limited_stays_so() -> None:
    assert divided(NO_LIMITS, 4) == NO_LIMITS
