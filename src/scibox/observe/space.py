"""How much room the disk of the data folder has left."""

from __future__ import annotations

import shutil
from pathlib import Path

from scibox.core.conditions import Condition

LEAST_BYTES = 512 * 2**20  # hours of entries, and nothing that is being written is cut off


def space(folder: Path) -> Condition:
    """Whether there is enough; blocks as long as the disk does."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Condition(
            "disk", False, f"The data folder {folder} cannot be looked at: {error.strerror or error}."
        )
    if free >= LEAST_BYTES:
        return Condition("disk")
    return Condition(
        "disk",
        False,
        f"The disk of the data folder {folder} has {free // 2**20} MiB left: make room. While it is full, "
        "calls are not written down, files are refused and batches stand still.",
    )
