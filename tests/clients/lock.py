"""Pins everything that the environments of `environments/*.in` hold: writes the lock file beside each.

    python tests/clients/lock.py              after an edit of an .in file
    python tests/clients/lock.py --upgrade    to try what their dependencies have released since

Locks hold for Python 3.11 and later on any Linux, and name no registry: whoever installs uses their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import uv

ENVIRONMENTS = Path(__file__).parent / "environments"


def main(flags: list[str]) -> None:
    for wanted in sorted(ENVIRONMENTS.glob("*.in")):
        command = [uv.find_uv_bin(), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
        subprocess.run(
            [*command, *flags, wanted.name, "--output-file", wanted.with_suffix(".txt").name],
            cwd=ENVIRONMENTS,
            env={**os.environ, "UV_CUSTOM_COMPILE_COMMAND": "python tests/clients/lock.py"},
            check=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
