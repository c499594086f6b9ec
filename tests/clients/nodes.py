"""Node.js and the packages of its clients: Node from its environment (`environments/node.in`), none of the system.

The newest clients need Node 22, Debian 12 has 18, and its npm draws in some hundreds of packages. `node/npm-shrinkwrap.json`
pins every package by digest and names no registry; it is written by, in `node/`:

    npm install --package-lock-only --omit-lockfile-registry-resolved
"""

from __future__ import annotations

import shutil
from pathlib import Path

from clients import venvs

SOURCES = Path(__file__).parent / "node"
_PINS = ("package.json", "npm-shrinkwrap.json")


def make(venv: venvs.Venv) -> Path:
    """The folder with `node_modules`, where programs must lie to find them; the `node` is the environment's."""
    folder = venv.folder / "clients"
    done = folder / "complete"
    wanted = "".join((SOURCES / name).read_text("utf-8") for name in _PINS)
    if not (done.exists() and done.read_text("utf-8") == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name in _PINS:
            shutil.copy(SOURCES / name, folder)
        venvs.install(venv, "npm ci --no-audit --no-fund --ignore-scripts", folder)
        done.write_text(wanted, "utf-8")
    for program in SOURCES.glob("*.mjs"):
        shutil.copy(program, folder)
    return folder
