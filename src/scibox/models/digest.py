"""What a whole file must hash to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

BLOCK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Digest:
    """A stated digest; `git-blob` is what a hub declares for small files."""

    hex: str
    kind: Literal["sha256", "git-blob"] = "sha256"

    def matches(self, path: Path) -> bool:
        """Tell whether a file has this digest."""
        return digest_of(path, self.kind) == self.hex


def digest_of(path: Path, kind: Literal["sha256", "git-blob"] = "sha256") -> str:
    """Read a file and return its digest, in hexadecimal digits."""
    if kind == "git-blob":
        state = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        state = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            state.update(block)
    return state.hexdigest()
