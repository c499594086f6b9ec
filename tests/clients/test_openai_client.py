"""The real `openai` library, each release of `venvs.PINS`, against the running service.

The programs lie in `programs/`; they look and print, the rules are here.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from clients import runs, venvs
from clients.outcomes import ALIASES, CHAT, EMBEDDER, succeeded
from clients.setting import Service

pytestmark = pytest.mark.real

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def look(openai_venv: venvs.Venv, manual_service: Service, tmp_path: Path) -> Any:
    """Runs one of the programs in the environment at hand and gives what it printed."""

    def run(program: str) -> Any:
        env = runs.environment(
            openai_venv.bin,
            SCIBOX_BASE_URL=f"{manual_service.base_url}/v1",
            SCIBOX_API_KEY=manual_service.secret,
        )
        ended = runs.run([str(openai_venv.python), str(PROGRAMS / program)], env, tmp_path)
        succeeded(ended)
        return json.loads(ended.output)

    return run


def test_errors_become_the_librarys_own(look: Any) -> None:
    found = look("errors.py")

    assert {
        what: (error["class"], error["status"], error["code"], error["param"])
        for what, error in found.items()
    } == {
        "wrong key": ("AuthenticationError", 401, "invalid_api_key", None),
        "wrong model": ("NotFoundError", 404, "model_not_found", "model"),
        "wrong model, streamed": ("NotFoundError", 404, "model_not_found", "model"),
        "wrong model, retrieved": ("NotFoundError", 404, "model_not_found", "model"),
        "no messages": ("BadRequestError", 400, "invalid_value", "messages"),
        "too long": ("BadRequestError", 400, "context_length_exceeded", "messages"),
        "too long, streamed": ("BadRequestError", 400, "context_length_exceeded", "messages"),
        "empty text": ("BadRequestError", 400, "invalid_value", "input"),
    }
    assert all(re.fullmatch(r"req_\w+", error["request_id"]) for error in found.values())
    assert all(error["message"].endswith((".", "!", "?")) for error in found.values())
    assert CHAT in found["wrong model"]["message"], "the nearest name is in the message"


def test_the_librarys_base64_is_the_same_numbers(look: Any) -> None:
    found = look("embeddings.py")

    assert found["model"] == EMBEDDER
    assert [len(vector) for vector in found["by default"]] == [384] * 3
    for decoded, plain in zip(found["by default"], found["as numbers"], strict=True):
        # Decimal numbers may be shortened; float32 has 24 bits.
        assert decoded == pytest.approx(plain, abs=2**-22)


def test_eight_streams_run_at_once_and_leaving_early_harms_nobody(look: Any) -> None:
    found = look("streams.py")

    streams = found["together"]
    assert len(streams) == 8
    for stream in [*streams, found["after"]]:
        assert stream["text"].strip()
        assert stream["reason"] in ("stop", "length")
        assert stream["completion_tokens"] > 0
        assert stream["models"] == [CHAT]
    # Of eight streams that were run one after the other, none would overlap with the next.
    ordered = sorted(streams, key=lambda stream: stream["first"])
    overlaps = sum(a["last"] > b["first"] for a, b in pairwise(ordered))
    assert overlaps > 0
    assert found["left"] == [3] * 4


def test_the_blocking_client_may_leave_early(look: Any) -> None:
    found = look("left_early.py")

    assert found["kinds"][0] == "chunk"
    assert found["kinds"][-1] == "content.delta"
    assert found["again"]


def test_models_are_listed_and_retrieved(look: Any) -> None:
    found = look("models.py")

    assert {CHAT, EMBEDDER, *ALIASES} <= set(found["listed"])
    assert (found["one"]["id"], found["one"]["object"]) == (CHAT, "model")
    assert (found["alias"]["id"], found["alias"]["root"]) == ("bge-m3", EMBEDDER)
