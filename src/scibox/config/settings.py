"""Every scalar setting by its dotted name ("server.port"), as the records declare them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

from scibox.config.records import (
    Batches,
    Deadlines,
    Embedder,
    Embeddings,
    Files,
    Gate,
    Ledger,
    Llama,
    Routing,
    Server,
    Shared,
)

PREFIX = "SCIBOX_"
# Names with our prefix that are not settings: the file itself, what clients use, and the tests' own.
RESERVED = frozenset({"SCIBOX_CONFIG", "SCIBOX_KEY", "SCIBOX_API_KEY", "SCIBOX_BASE_URL"})
RESERVED_PREFIX = "SCIBOX_TEST_"


@dataclass(frozen=True, slots=True)
class Top:
    """The settings outside every section; the records have them as `Config.data` and `Config.catalogue`."""

    data: Path | None = None
    catalogue: Path | None = None


SECTIONS: Mapping[str, type] = MappingProxyType(
    {
        "": Top,
        "server": Server,
        "deadlines": Deadlines,
        "routing": Routing,
        "engines.llama": Llama,
        "engines.embedder": Embedder,
        "files": Files,
        "batches": Batches,
        "embeddings": Embeddings,
        "gate": Gate,
        "ledger": Ledger,
        "shared": Shared,
    }
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its dotted name, its place in a file, its type and its default."""

    name: str
    section: str
    field: str
    kind: Any
    default: object

    @property
    def variable(self) -> str:
        """The environment variable of the same name."""
        return PREFIX + self.name.upper().replace(".", "_")


@cache
def settings() -> Mapping[str, Setting]:
    """Return all settings by dotted name, in the order of the records."""
    found = {}
    for section, record in SECTIONS.items():
        kinds = get_type_hints(record, include_extras=True)
        for item in fields(record):
            name = f"{section}.{item.name}" if section else item.name
            found[name] = Setting(name, section, item.name, kinds[item.name], item.default)
    return MappingProxyType(found)
