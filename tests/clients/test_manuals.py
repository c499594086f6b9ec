"""Every command and every program of the manuals runs, as it stands, against the running service."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clients import runs, venvs
from clients.blocks import Block, adapt, extract
from clients.outcomes import ORIGINAL, OURS, Outcome, TooShortError, succeeded
from clients.relay import Relay
from clients.setting import ROOT, Service

pytestmark = pytest.mark.real

MANUALS = (ROOT / "docs" / "manual.ru.md", ROOT / "docs" / "manual.en.md")
ORIGINAL_MANUAL = ROOT.parent / "shared" / "manual" / "scibox-manual.ru.md"
RUNNABLE = ("bash", "python", "javascript")
TRIES = 3  # a model may answer with three words, of which no stream can be seen


@dataclass(frozen=True, slots=True)
class Case:
    """A runnable block and what it must do; None where nobody has said it yet."""

    manual: str
    block: Block
    outcome: Outcome | None

    @property
    def needs_openai(self) -> bool:
        """Whether it is a program with the openai library."""
        return self.block.language == "python" and "import OpenAI" in self.block.code


def _cases() -> Iterator[Case]:
    """Every runnable block of every manual at hand."""
    for manual in MANUALS:
        for block in extract(manual.read_text("utf-8")):
            if block.language in RUNNABLE:
                yield Case(manual.stem, block, OURS.get(block.name))
    if not ORIGINAL_MANUAL.exists():
        return
    seen: Counter[str] = Counter()
    for block in extract(ORIGINAL_MANUAL.read_text("utf-8")):
        if block.language in RUNNABLE:
            yield Case("original", block, ORIGINAL.get((block.language, seen[block.language])))
            seen[block.language] += 1


CASES = list(_cases())


def each(language: str, *, needs_openai: bool = False) -> pytest.MarkDecorator:
    """Parametrizes a test with the blocks of a language."""
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, id=f"{case.manual}:{case.block.line}-{case.block.name or language}")
            for case in CASES
            if case.block.language == language and case.needs_openai == needs_openai
        ],
    )


@dataclass(frozen=True, slots=True)
class Desk:
    """A person's desk: an empty folder, the settings that the manual asks for, and a relay that watches."""

    relay: Relay
    service: Service
    folder: Path

    def try_out(self, case: Case, argv: list[str], bin_folder: Path) -> None:
        """Run the block as it stands and look at what it did."""
        block, outcome = case.block, case.outcome
        assert outcome is not None, f"tests/clients/outcomes.py does not know the block in line {block.line}"
        env = runs.environment(
            bin_folder,
            SCIBOX_BASE_URL=f"{self.relay.base_url}/v1",
            SCIBOX_API_KEY=self.service.secret,
            SCIBOX_DATA=str(self.folder / "data"),
        )
        for attempt in range(1, TRIES + 1):
            self.relay.forget()
            ended = runs.run([*argv, self._program(block)], env, self.folder)
            succeeded(ended)
            try:
                outcome(ended, self.relay)
            except TooShortError:
                if attempt == TRIES:
                    raise
            else:
                return

    def _program(self, block: Block) -> str:
        """What the interpreter is given: a command line for the shell, a file for the others."""
        code = adapt(block.code, self.relay.base_url, self.service.secret)
        if block.language == "bash":
            return code
        file = self.folder / ("program.mjs" if block.language == "javascript" else "program.py")
        file.write_text(code, "utf-8")
        return os.fspath(file)


@pytest.fixture
def desk(relay: Relay, manual_service: Service, tmp_path: Path) -> Desk:
    return Desk(relay, manual_service, tmp_path)


def test_the_original_manual_is_at_hand() -> None:
    if not ORIGINAL_MANUAL.exists():
        pytest.skip("the original's manual is not beside this checkout (../shared/manual): only ours was run")
    kinds = Counter(case.block.language for case in CASES if case.manual == "original")
    assert kinds == {"bash": 6, "python": 3}


def test_the_manuals_have_the_blocks_that_are_known_here() -> None:
    for manual in MANUALS:
        assert [case.block.name for case in CASES if case.manual == manual.stem] == list(OURS)


def test_the_manuals_install_as_the_newest_environment_was_made() -> None:
    lines = {case.block.code.strip() for case in CASES if "pip install" in case.block.code}
    assert lines == {venvs.NEWEST_COMMAND}


@each("bash")
def test_commands(case: Case, desk: Desk, request: pytest.FixtureRequest) -> None:
    bin_folder = Path(sys.executable).parent
    if "curl" in case.block.code and shutil.which("curl") is None:
        pytest.fail("curl is missing; install it with: apt-get install curl")
    if "pip install" in case.block.code:
        bin_folder = request.getfixturevalue("environment")("openai-newest").bin
    desk.try_out(case, ["bash", "-euo", "pipefail", "-c"], bin_folder)


@each("python")
def test_programs(case: Case, desk: Desk) -> None:
    desk.try_out(case, [sys.executable], Path(sys.executable).parent)


@each("python", needs_openai=True)
def test_programs_with_openai(case: Case, desk: Desk, openai_venv: venvs.Venv) -> None:
    desk.try_out(case, [str(openai_venv.python)], openai_venv.bin)


@each("javascript")
def test_programs_in_javascript(case: Case, desk: Desk, environment: Callable[[str], venvs.Venv]) -> None:
    venv = environment("node")
    desk.try_out(case, [str(venv.bin / "node")], venv.bin)
