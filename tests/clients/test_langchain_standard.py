"""LangChain's own standard tests (`langchain-tests`) pass on our service, but for what wants a wiser model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from clients import matrix, runs, venvs

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

TESTS = matrix.HERE / "programs" / "langchain_standard.py"
# One event loop, since the library keeps its connections from test to test.
LOOP = [f"-oasyncio_default_{of}_loop_scope=session" for of in ("fixture", "test")]
# Beyond the model: it reads text only. And tests that want a recorded conversation (VCR).
SKIPPED = {
    "test_pdf_inputs",
    "test_audio_inputs",
    "test_image_inputs",
    "test_image_tool_message",
    "test_pdf_tool_message",
    "test_anthropic_inputs",
    "test_stream_time",
}


@pytest.mark.parametrize("standard", ["TestChat", "TestResponses", "TestEmbeddings"])
def test_the_standard_tests_pass(
    standard: str,
    environment: Callable[[str], venvs.Venv],
    clients_env: Callable[[venvs.Venv], dict[str, str]],
    tmp_path: Path,
) -> None:
    venv = environment("langchain")
    options = [
        "-c",
        "/dev/null",
        "--confcutdir",
        str(TESTS.parent),
        "-p",
        "no:cacheprovider",
        "-oasyncio_mode=auto",
    ]
    ended = runs.run(
        [
            str(venv.python),
            "-m",
            "pytest",
            "-q",
            *options,
            *LOOP,
            "--junitxml=told.xml",
            f"{TESTS}::{standard}",
        ],
        clients_env(venv),
        tmp_path,
        timeout_s=560,
    )
    assert ended.status == 0, ended.output[-6000:]
    cases = ElementTree.parse(tmp_path / "told.xml").findall(".//testcase")
    skipped = {
        str(case.get("name"))
        for case in cases
        for reason in case.findall("skipped")
        if reason.get("type") != "pytest.xfail"
    }
    assert skipped <= SKIPPED, "only what is beyond the model is skipped"
    assert len(cases) - len(skipped) >= (4 if standard == "TestEmbeddings" else 30), ended.output[-6000:]
