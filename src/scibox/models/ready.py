"""Weights that are ready to be served: a folder per model with a manifest of what is in it.

A folder under its model's name is complete: it is made elsewhere and renamed when it is whole.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scibox.core.errors import OperatorError
from scibox.core.types import Kind
from scibox.models.catalogue import Engine
from scibox.models.digest import Digest, digest_of

MANIFEST = "manifest.json"
GGUF_FILE = "model.gguf"
ONNX_FILE = "model.onnx"
EMBEDDER_FILE = "embedder.json"


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights on this machine: `path` is the .gguf file or the folder with model.onnx."""

    name: str
    kind: Kind
    engine: Engine
    context: int | None  # LLM tokens; None when the file does not say
    dimensions: int | None
    path: Path


@dataclass(frozen=True, slots=True)
class Piece:
    """One file of a ready folder."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a ready folder holds and where it came from."""

    name: str
    kind: Kind
    engine: Engine
    context: int
    dimensions: int | None
    licence: str
    source: str
    fetched: dict[str, str]  # what was fetched: name to SHA-256 (or git blob name), as declared
    converted: str | None
    pulled_at: str  # ISO 8601, UTC
    files: dict[str, Piece]


class NotWeights(OperatorError):
    """A path that holds no weights an engine can read; the message says why."""


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into a folder that is not in place yet."""
    text = json.dumps(asdict(manifest), ensure_ascii=False, indent=2) + "\n"
    (folder / MANIFEST).write_text(text, "utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a ready folder; None when there is none that can be read."""
    try:
        raw: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
        files = {name: Piece(**piece) for name, piece in raw.pop("files").items()}
        return Manifest(files=files, **raw)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def pieces_of(folder: Path) -> dict[str, Piece]:
    """Describe every file of a folder."""
    return {
        path.name: Piece(digest_of(path), path.stat().st_size)
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }


def installed(name: str, models_dir: Path) -> Weights | None:
    """Return the ready weights of that name, after a quick look (manifest and sizes); None without them."""
    folder = models_dir / name
    manifest = read_manifest(folder)
    if manifest is None or any(
        _size(folder / file) != piece.size_bytes for file, piece in manifest.files.items()
    ):
        return None
    path = folder / GGUF_FILE if manifest.engine == "llama" else folder
    return Weights(name, manifest.kind, manifest.engine, manifest.context, manifest.dimensions, path)


def identity(weights: Weights) -> str:
    """What the answers of weights depend on: the digests of their files, else names, sizes and times."""
    folder = weights.path if weights.path.is_dir() else weights.path.parent
    manifest = read_manifest(folder)
    if manifest is not None:
        return " ".join(f"{name} {piece.sha256}" for name, piece in sorted(manifest.files.items()))
    files = sorted(weights.path.iterdir()) if weights.path.is_dir() else [weights.path]
    stats = [(file, file.stat()) for file in files if file.is_file()]
    return " ".join(f"{file.name} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats)


def installed_names(models_dir: Path) -> frozenset[str]:
    """Return the names of all ready weights."""
    if not models_dir.is_dir():
        return frozenset()
    found = (path.name for path in models_dir.iterdir() if not path.name.startswith("."))
    return frozenset(name for name in found if installed(name, models_dir) is not None)


def verify(name: str, models_dir: Path) -> list[str]:
    """Read every byte of ready weights; returns what is wrong, a sentence each."""
    folder = models_dir / name
    manifest = read_manifest(folder)
    if manifest is None:
        return [f"{name} is not installed in {models_dir}; fetch it with: scibox pull {name}"]
    wrong = []
    for file, piece in manifest.files.items():
        path = folder / file
        if not path.is_file():
            wrong.append(f"{path} is missing; fetch it again with: scibox pull {name}")
        elif not Digest(piece.sha256).matches(path):
            wrong.append(
                f"{path} is damaged (its SHA-256 differs); delete {folder} and run: scibox pull {name}"
            )
    return wrong


def local(path: Path) -> Weights:
    """Describe an operator's own .gguf file or ONNX folder; raises NotWeights."""
    if path.is_dir():
        return _onnx_folder(path)
    if not path.is_file():
        raise NotWeights(f"{path} does not exist")
    header = gguf_header(path)
    family = header.get("general.architecture", "")
    context, width = header.get(f"{family}.context_length"), header.get(f"{family}.embedding_length")
    kind: Kind = "embedding" if f"{family}.pooling_type" in header else "chat"
    return Weights(path.stem, kind, "llama", context, width if kind == "embedding" else None, path)


def _onnx_folder(folder: Path) -> Weights:
    """Describe a folder for the embedder."""
    missing = [file for file in (ONNX_FILE, "tokenizer.json") if not (folder / file).is_file()]
    if missing:
        raise NotWeights(f"{folder} has no {' and no '.join(missing)}, so the embedder cannot read it")
    settings: dict[str, Any] = {}
    if (folder / EMBEDDER_FILE).is_file():
        try:
            settings = json.loads((folder / EMBEDDER_FILE).read_text("utf-8"))
        except ValueError as error:
            raise NotWeights(f"{folder / EMBEDDER_FILE} is not JSON: {error}") from error
    return Weights(
        folder.name, "embedding", "embedder", settings.get("max_tokens"), settings.get("dimensions"), folder
    )


# GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, "File Structure". Little-endian.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def gguf_header(path: Path) -> dict[str, Any]:
    """Read the metadata of a GGUF file up to its vocabulary; raises NotWeights.

    The vocabulary is hundreds of thousands of strings, and nothing that is needed stands behind it.
    """
    found: dict[str, Any] = {}
    with path.open("rb") as stream:

        def take(form: str) -> Any:
            size = struct.calcsize("<" + form)
            return struct.unpack("<" + form, stream.read(size))[0]

        def text() -> str:
            return stream.read(min(take("Q"), 1 << 20)).decode("utf-8", "replace")

        def value(kind: int) -> Any:
            if kind == _ARRAY:
                of, count = take("I"), take("Q")
                return [value(of) for _ in range(count)]
            return text() if kind == _STRING else take(_NUMBERS[kind])

        if stream.read(4) != b"GGUF":
            raise NotWeights(f"{path} is not a GGUF file")
        try:
            take("I"), take("Q")
            for _ in range(take("Q")):
                key = text()
                if key.startswith("tokenizer."):
                    break
                found[key] = value(take("I"))
        except (struct.error, KeyError) as error:
            raise NotWeights(f"{path} is cut off or damaged inside its header") from error
    return found


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
