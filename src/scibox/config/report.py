"""What is wrong with a configuration, and where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scibox.config.lines import Where
from scibox.config.records import Problem
from scibox.core.names import nearest


@dataclass(frozen=True, slots=True)
class Report:
    """The problems found so far in one file, whose places it can name by line."""

    source: Path
    lines: Mapping[Where, int]
    problems: list[Problem] = field(default_factory=list)

    def at(self, place: Where) -> str:
        """Return "file:line" of a place, or of the nearest one around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return f"{self.source}:{self.lines[place]}" if place else str(self.source)

    def add(self, where: str | Where, message: str) -> None:
        """Note one problem."""
        self.problems.append(Problem(where if isinstance(where, str) else self.at(where), message))

    def known_only(self, table: Mapping[str, object], place: Where, known: Iterable[str]) -> None:
        """Note every name of a table that is not known, with the nearest one that is."""
        names = tuple(known)
        for name in table:
            if name not in names:
                self.add((*place, name), unknown(name, named(place), names))


def named(place: Where) -> str:
    """Return a place as people write it: [server], [[models.x.deployments]]."""
    if not place:
        return "the file"
    dotted = ".".join(str(key) for key in place if isinstance(key, str))
    return f"[[{dotted}]]" if isinstance(place[-1], int) else f"[{dotted}]"


def unknown(name: str, where: str, known: Iterable[str]) -> str:
    """Say that a name is unknown, and what may have been meant."""
    names = tuple(known)
    near = nearest(name, names)
    hint = f"did you mean '{near}'?" if near else f"known are: {', '.join(names)}"
    return f"unknown name '{name}' in {where}; {hint}"
