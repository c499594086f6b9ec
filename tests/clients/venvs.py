"""Throw-away environments with the releases of `openai` that we promise to work with. Every pin is here.

1.92.0 is the first release that has `client.chat.completions.stream` (1.40.0 to 1.91.0 have it below
`client.beta` only); 1.109.1 is the last of 1.x. The newest is not pinned: it is what the manual's own command
installs that day.

The 1.x releases are given the last httpx that fits them (`httpx<1`) and the pydantic they were tried with, so
that a new release of either does not look like a fault of ours. Releases before 1.55.3 would need httpx below
0.28, which dropped the argument `proxies`; none of ours does. From 3.0 on openai uses httpx2.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from clients import runs

_WITH_1 = ("httpx==0.28.1", "pydantic==2.14.3")
PINS: dict[str, tuple[str, ...]] = {
    "oldest": ("openai==1.92.0", *_WITH_1),
    "last-1": ("openai==1.109.1", *_WITH_1),
    "newest": (),
}
NEWEST_COMMAND = "pip install --upgrade openai"  # as the manuals say it; `test_manuals` checks that they do

# What pip says when there is nobody to ask, as against a registry that says no.
_NO_NETWORK = (
    "Temporary failure in name resolution",
    "Name or service not known",
    "Network is unreachable",
    "Connection refused",
    "ConnectTimeoutError",
    "No route to host",
)


class NoRegistryError(Exception):
    """No package registry can be reached, so there is nothing to test with."""


@dataclass(frozen=True, slots=True)
class Venv:
    """An environment that holds one release of `openai`."""

    name: str
    folder: Path

    @property
    def bin(self) -> Path:
        """The folder of its programs."""
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.bin / "python"


def make(name: str, cache: Path) -> Venv:
    """The environment of that name below `cache`: the finished one of an earlier run, or a new one."""
    version = platform.python_version()
    venv = Venv(name, cache / f"{name}-py{version}")
    done = venv.folder / "complete.json"
    wanted = json.dumps([str(venv.folder), *PINS[name]])  # its programs name the folder: it cannot move
    if done.exists() and done.read_text() == wanted:
        return venv
    shutil.rmtree(venv.folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", venv.folder], check=True, capture_output=True)
    install(venv, f"pip install {' '.join(PINS[name])}" if PINS[name] else NEWEST_COMMAND, cache)
    done.write_text(wanted)
    return venv


def install(venv: Venv, command: str, cwd: Path) -> runs.Run:
    """Run a `pip install` line in a shell that has the environment on its path."""
    env = runs.environment(venv.bin, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PIP_RETRIES="2")
    ended = runs.run(["bash", "-euo", "pipefail", "-c", command], env, cwd, timeout_s=240)
    if ended.status != 0 and any(words in ended.output + ended.errors for words in _NO_NETWORK):
        raise NoRegistryError(f"'{command}' found no package registry")
    assert ended.status == 0, ended.output + ended.errors
    return ended
