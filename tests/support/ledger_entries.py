"""Entries of every kind, for the tests of the ledger."""

from __future__ import annotations

from hypothesis import strategies as st

from scibox.core.entries import Entry, Opened
from scibox.core.types import Ending, Usage

HOUR_S = 3600
BEGAN = 1_793_491_200  # 2026-11-01T00:00:00Z


def entry(number: int = 0, **more: object) -> Entry:
    """A finished call."""
    fields: dict[str, object] = {
        "request_id": f"req_{number:08}",
        "opened_at": BEGAN + 17.25 * number,
        "key_id": f"key_{number % 5}",
        "owner": f"team-{number % 3}",
        "model": f"m{number % 2}",
        "kind": "chat",
        "endpoint": "/chat/completions",
        "usage": Usage(100 + number, 20, 10, 5),
        "delivered_tokens": 20,
        "deployment": 0,
        "replica": "http://gpu1:8000",
        "attempts": 1,
        "queued_s": 0.25,
        "first_chunk_s": 0.5,
        "total_s": 2.0,
        "price": 0.125,
    }
    return Entry(**{**fields, **more})  # type: ignore[arg-type]


def opened(number: int = 0, **more: object) -> Opened:
    """The same call, when it started."""
    whole = entry(number)
    fields: dict[str, object] = {
        "request_id": whole.request_id,
        "opened_at": whole.opened_at,
        "key_id": whole.key_id,
        "owner": whole.owner,
        "model": whole.model,
        "kind": whole.kind,
        "endpoint": whole.endpoint,
        "prompt_tokens": 90,
    }
    return Opened(**{**fields, **more})  # type: ignore[arg-type]


names = st.sampled_from(["a", "b", "команда", "x y"])
tokens = st.integers(0, 2**40)
seconds = st.integers(0, 4000).map(lambda n: n / 8)  # exact in binary: sums can be compared


def entries(ids: st.SearchStrategy[int]) -> st.SearchStrategy[Entry]:
    """Entries of all outcomes, over three days."""
    return st.builds(
        Entry,
        request_id=ids.map(lambda n: f"req_{n}"),
        opened_at=st.integers(0, 3 * 24 * 8).map(lambda n: BEGAN + n * HOUR_S / 8),
        key_id=names,
        owner=names,
        model=names,
        kind=st.sampled_from(["chat", "embedding", "rerank"]),
        endpoint=st.sampled_from(["/chat/completions", "/embeddings"]),
        outcome=st.sampled_from(Ending),
        code=st.sampled_from(["", "upstream_error"]),
        stream=st.booleans(),
        is_background=st.booleans(),
        usage=st.builds(Usage, tokens, tokens, tokens, tokens),
        delivered_tokens=tokens,
        is_estimate=st.booleans(),
        texts=st.integers(0, 10_000),
        deployment=st.none() | st.integers(0, 9),
        replica=st.sampled_from(["", "http://gpu1:8000"]),
        attempts=st.integers(0, 9),
        queued_s=seconds,
        first_chunk_s=st.none() | seconds,
        total_s=seconds,
        price=seconds,
    )
