"""The name of a model that stands in."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scibox.wire.named import Named

TEXT = st.text(max_size=20)


@given(TEXT, TEXT, st.sampled_from(["first", "last", "none", "null"]), st.sampled_from([None, (",", ":")]))
def test_only_the_models_name_is_another(name: str, text: str, place: str, separators: Any) -> None:
    said = {"id": "x", "choices": [{"delta": {"content": f'{text} "model": "mine" {text}'}}]}
    model = {} if place == "none" else {"model": None if place == "null" else text}
    body = model | said if place == "first" else said | model
    [event] = Named(name).event(json.dumps(body, separators=separators).encode())

    assert json.loads(event) == {**body, "model": name}
