"""Every command and every program of the manuals runs, as it stands, against the running service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import runs
import venvs
from blocks import Block, adapt, extract
from outcomes import ORIGINAL, OURS, Outcome, TooShortError, succeeded
from relay import Relay
from setting import ROOT, Service

pytestmark = pytest.mark.real

MANUALS = (ROOT / "docs" / "manual.ru.md", ROOT / "docs" / "manual.en.md")
ORIGINAL_MANUAL = ROOT.parent / "shared" / "manual" / "scibox-manual.ru.md"
RUNNABLE = ("bash", "python", "javascript")
TRIES = 3  # a model may answer with three words, of which no stream can be seen


def _cases() -> list[tuple[str, Block, Outcome | None]]:
    """Every runnable block of every manual at hand with what it must do."""
    cases: list[tuple[str, Block, Outcome | None]] = []
    for manual in MANUALS:
        own = [block for block in extract(manual.read_text("utf-8")) if block.language in RUNNABLE]
        cases += [(manual.stem, block, OURS.get(block.name)) for block in own]
    if ORIGINAL_MANUAL.exists():
        seen: dict[str, int] = {}
        for block in extract(ORIGINAL_MANUAL.read_text("utf-8")):
            if block.language in RUNNABLE:
                order = seen[block.language] = seen.get(block.language, -1) + 1
                cases.append(("original", block, ORIGINAL.get((block.language, order))))
    return cases


def _named(cases: list[tuple[str, Block, Outcome | None]]) -> list[object]:
    return [
        pytest.param(*case, id=f"{case[0]}:{case[1].line}-{case[1].name or case[1].language}")
        for case in cases
    ]


CASES = _cases()
WITH_OPENAI = [case for case in CASES if case[1].language == "python" and "import OpenAI" in case[1].code]
PYTHON = [case for case in CASES if case[1].language == "python" and case not in WITH_OPENAI]
BASH = [case for case in CASES if case[1].language == "bash"]
JAVASCRIPT = [case for case in CASES if case[1].language == "javascript"]


def test_the_original_manual_is_at_hand() -> None:
    if not ORIGINAL_MANUAL.exists():
        pytest.skip("the original's manual is not beside this checkout (../shared/manual): only ours was run")
    kinds = [block.language for manual, block, _ in CASES if manual == "original"]
    assert (kinds.count("bash"), kinds.count("python")) == (6, 3)


def test_the_manuals_have_the_blocks_that_are_known_here() -> None:
    for manual in MANUALS:
        assert [block.name for stem, block, _ in CASES if stem == manual.stem] == list(OURS)


def test_the_manuals_install_as_the_newest_environment_was_made() -> None:
    lines = [block.code.strip() for _, block, _ in BASH if "pip install" in block.code]
    assert lines
    assert set(lines) == {venvs.NEWEST_COMMAND}


@pytest.mark.parametrize(("manual", "block", "outcome"), _named(BASH))
def test_commands(
    manual: str, block: Block, outcome: Outcome | None, relay: Relay, manual_service: Service, tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    bin_folder = Path(sys.executable).parent
    if "curl" in block.code and shutil.which("curl") is None:
        pytest.fail("curl is missing; install it with: apt-get install curl")
    if "pip install" in block.code:
        bin_folder = request.getfixturevalue("openai_venvs")["newest"].bin
    argv = ["bash", "-euo", "pipefail", "-c"]
    _check(argv, block, outcome, relay, manual_service, bin_folder, tmp_path)


@pytest.mark.parametrize(("manual", "block", "outcome"), _named(PYTHON))
def test_programs(
    manual: str, block: Block, outcome: Outcome | None, relay: Relay, manual_service: Service, tmp_path: Path
) -> None:
    _check([sys.executable], block, outcome, relay, manual_service, Path(sys.executable).parent, tmp_path)


@pytest.mark.parametrize(("manual", "block", "outcome"), _named(WITH_OPENAI))
def test_programs_with_openai(
    manual: str, block: Block, outcome: Outcome | None, relay: Relay, manual_service: Service, tmp_path: Path,
    openai_venv: venvs.Venv,
) -> None:  # fmt: skip
    argv = [str(openai_venv.python)]
    _check(argv, block, outcome, relay, manual_service, openai_venv.bin, tmp_path)


@pytest.mark.parametrize(("manual", "block", "outcome"), _named(JAVASCRIPT))
def test_programs_in_javascript(
    manual: str, block: Block, outcome: Outcome | None, relay: Relay, manual_service: Service, tmp_path: Path
) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the JavaScript of the manuals was not run")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < 18:
        pytest.skip(
            f"node {version.strip()} has no fetch (18 has): the JavaScript of the manuals was not run"
        )
    _check([node], block, outcome, relay, manual_service, Path(node).parent, tmp_path)


def _check(
    argv: list[str],
    block: Block,
    outcome: Outcome | None,
    relay: Relay,
    service: Service,
    bin_folder: Path,
    folder: Path,
) -> None:
    assert outcome is not None, f"tests/clients/outcomes.py does not know the block in line {block.line}"
    code = adapt(block.code, relay.base_url, service.secret)
    env = runs.environment(
        bin_folder,
        SCIBOX_BASE_URL=f"{relay.base_url}/v1",
        SCIBOX_API_KEY=service.secret,
        SCIBOX_DATA=str(folder / "data"),
    )
    for attempt in range(1, TRIES + 1):
        relay.asked_at = relay.ended_at = 0.0
        ended = runs.run([*argv, _program(code, block, folder)], env, folder)
        succeeded(ended)
        try:
            outcome(ended, relay)
        except TooShortError:
            if attempt == TRIES:
                raise
        else:
            return


def _program(code: str, block: Block, folder: Path) -> str:
    """What the interpreter is given: a command line for the shell, a file for the others."""
    if block.language == "bash":
        return code
    file = folder / ("program.mjs" if block.language == "javascript" else "program.py")
    file.write_text(code, "utf-8")
    return os.fspath(file)
