"""Small entries, weights and conversions for the tests of this room."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from scibox.models.catalogue import Conversion, Entry, Source

BODY = random.Random(2).randbytes(200_000)
SHA = hashlib.sha256(BODY).hexdigest()
GONE = "0" * 64


def entry(*sources: Source, **changes: Any) -> Entry:
    plain = Entry(
        name="m",
        description="",
        kind="chat",
        engine="llama",
        context=64,
        licence="MIT",
        size_bytes=len(BODY),
        sources=sources,
    )
    return replace(plain, **changes)


def upper(how: Conversion, source: Path, into: Path) -> None:
    (into / "model.gguf").write_bytes(b"converted " + source.read_bytes())


def fails(how: Conversion, source: Path, into: Path) -> None:
    (into / "model.gguf").write_bytes(b"half")
    raise ValueError("no such tensor")


def visible(models_dir: Path) -> list[str]:
    return [path.name for path in models_dir.iterdir() if not path.name.startswith(".")]
