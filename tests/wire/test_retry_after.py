"""What servers ask for with `Retry-After`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scibox.wire.retry_after import seconds

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("after", "after_ms", "told"),
    [
        (b"7", b"", 7.0),
        (b" 0 ", b"", 0.0),
        (b"1.5", b"", 1.5),
        (b"7", b"250", 0.25),
        (b"", b"1500.5", 1.5005),
        (b"Tue, 14 Nov 2023 22:13:50 GMT", b"", 30.0),
        (b"Tue, 14 Nov 2023 22:13:50 -0000", b"", 30.0),
        (b"Tue, 14 Nov 2023 22:13:00 GMT", b"", 0.0),
        (b"", b"", None),
        (b"-3", b"", None),
        (b"soon", b"", None),
        (b"inf", b"", None),
        (b"1e9", b"", None),
        (b"nan", b"x", None),
        (b"\xff", b"", None),
    ],
)
def test_seconds_and_dates(after: bytes, after_ms: bytes, told: float | None) -> None:
    assert seconds(after, after_ms, NOW) == told


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_nothing_is_a_surprise(after: bytes, after_ms: bytes) -> None:
    told = seconds(after, after_ms, NOW)
    assert told is None or told >= 0
