"""Whatever a file says, the answer is a configuration or a list of sentences, never a traceback."""

from __future__ import annotations

import json
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from scibox.config import check
from scibox.config.load import TOP_NAMES
from scibox.config.records import Deployment, Model
from scibox.config.settings import settings

NAMES = sorted(
    {
        *TOP_NAMES,
        "llama",
        "embedder",
        "m",
        "bge-m3",
        "qwen3-4b",
        "http://x/v1",
        "chat",
        "~nobody",
        "/",
        "x.gguf",
        "",
    }
    | {setting.field for setting in settings().values()}
    | {field.name for record in (Model, Deployment) for field in fields(record)}
)
SCALARS = st.one_of(
    st.sampled_from(NAMES),
    st.integers(-5, 70_000),
    st.booleans(),
    st.floats(),
    st.just("http://[::1"),
    st.just("a\0b"),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
MODELS = st.dictionaries(
    st.sampled_from(NAMES),
    st.fixed_dictionaries(
        {},
        optional={
            "kind": VALUES,
            "aliases": VALUES,
            "deployments": st.lists(
                st.dictionaries(
                    st.sampled_from([field.name for field in fields(Deployment)]), SCALARS, max_size=4
                ),
                max_size=3,
            ),
        },
    ),
    max_size=3,
)
FILES = st.dictionaries(st.sampled_from(TOP_NAMES), VALUES) | st.fixed_dictionaries({"models": MODELS})


def written(value: Any) -> str:
    match value:
        case dict():
            return (
                "{" + ", ".join(f"{json.dumps(key)} = {written(item)}" for key, item in value.items()) + "}"
            )
        case list():
            return "[" + ", ".join(map(written, value)) + "]"
        case float():
            return repr(value)
    return json.dumps(value)


@hypothesis_settings(deadline=None)  # machines of CI are shared
@given(FILES)
def test_a_file_never_breaks_the_reader(table: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "scibox.toml")
        path.write_text("\n".join(f"{key} = {written(value)}" for key, value in table.items()), "utf-8")

        problems = check(path, {})

        assert all(problem.message and problem.where for problem in problems)
        assert not any("not valid TOML" in problem.message for problem in problems)
        assert check(path, {}) == problems


@hypothesis_settings(deadline=None)  # machines of CI are shared
@given(st.sampled_from([setting.variable for setting in settings().values()]), st.text(max_size=9))
def test_a_variable_never_breaks_the_reader(variable: str, text: str) -> None:
    assert all(variable in str(problem) or text for problem in check(None, {variable: text}))
