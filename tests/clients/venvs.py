"""Environments of the clients that we promise to work with, each apart from ours and from the others.

What each holds stands in `environments/NAME.in` (what is asked for, and why) and `environments/NAME.txt` (every
version, written by `lock.py`). One has no such files: `openai-newest` is what the manuals' own command installs
that day.

They are made with uv, which takes a second where pip takes twenty. uv knows nothing of pip's configuration: on a
machine that reaches packages only through that, uv fails, and pip installs the same versions.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import uv

from clients import runs
from clients.setting import ROOT

LOCKS = Path(__file__).parent / "environments"
OPENAI = ("openai-oldest", "openai-last-1", "openai-newest")
NEWEST_COMMAND = "pip install --upgrade openai"  # as the manuals say it; `test_manuals` checks that they do
_NEWEST = "openai-newest"

# What installers say when there is nobody to ask, as against a registry that says no.
_NO_NETWORK = (
    "Temporary failure in name resolution",
    "Name or service not known",
    "Network is unreachable",
    "Connection refused",
    "ConnectTimeoutError",
    "No route to host",
    "EAI_AGAIN",
    "ENOTFOUND",
    "ECONNREFUSED",
)


class NoRegistryError(Exception):
    """No package registry can be reached, so there is nothing to test with."""


@dataclass(frozen=True, slots=True)
class Venv:
    """An environment that holds one client."""

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

    @property
    def packages(self) -> Path:
        """Where its packages lie."""
        [folder] = self.folder.glob("lib/python3.*/site-packages")
        return folder


def names() -> list[str]:
    """Every environment there is."""
    return sorted([path.stem for path in LOCKS.glob("*.in")] + [_NEWEST])


def make(name: str, cache: Path) -> Venv:
    """The environment of that name below `cache`: the finished one of an earlier run, or a new one."""
    venv = Venv(name, cache / f"{name}-py{platform.python_version()}")
    done = venv.folder / "complete.json"
    held = NEWEST_COMMAND if name == _NEWEST else (LOCKS / f"{name}.txt").read_text("utf-8")
    wanted = json.dumps([str(venv.folder), held])  # its programs name the folder: it cannot move
    if done.exists() and done.read_text() == wanted:
        return venv
    shutil.rmtree(venv.folder, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    if name == _NEWEST:
        _bare(venv)
        install(venv, NEWEST_COMMAND, cache)
    elif not _made_with_uv(venv, LOCKS / f"{name}.txt"):
        shutil.rmtree(venv.folder, ignore_errors=True)
        _bare(venv)
        install(venv, f"pip install --no-deps -r '{LOCKS / name}.txt'", cache)
    done.write_text(wanted)
    return venv


def install(venv: Venv, command: str, cwd: Path, timeout_s: float = 240) -> runs.Run:
    """Run an installer's line in a shell that has the environment on its path."""
    env = runs.environment(venv.bin, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PIP_RETRIES="2")
    ended = runs.run(["bash", "-euo", "pipefail", "-c", command], env, cwd, timeout_s)
    if ended.status != 0 and any(words in ended.output + ended.errors for words in _NO_NETWORK):
        raise NoRegistryError(f"'{command}' found no package registry")
    assert ended.status == 0, ended.output + ended.errors
    return ended


def _bare(venv: Venv) -> None:
    subprocess.run([sys.executable, "-m", "venv", venv.folder], check=True, capture_output=True)


def _made_with_uv(venv: Venv, lock: Path) -> bool:
    env = {**os.environ, "UV_CACHE_DIR": str(ROOT / ".cache" / "uv"), "UV_PYTHON_DOWNLOADS": "never"}
    made = [
        subprocess.run([uv.find_uv_bin(), *arguments], env=env, capture_output=True, timeout=240, check=False)
        for arguments in (
            ("venv", "--quiet", "--python", sys.executable, str(venv.folder)),
            ("pip", "sync", "--quiet", "--python", str(venv.python), str(lock)),
        )
    ]
    return all(each.returncode == 0 for each in made)
