"""Reading the configuration: flags over the environment over the file over the defaults.

Every problem is collected, so that one look at the report is enough to mend a file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from scibox.config.lines import Where, lines_of
from scibox.config.models import read_models
from scibox.config.records import Config, ConfigError, Problem, Server
from scibox.config.report import Report, named, unknown
from scibox.config.settings import PREFIX, RESERVED, RESERVED_PREFIX, SECTIONS, Setting, Top, settings
from scibox.config.values import Wrong, decode, from_text
from scibox.models.catalogue import CatalogueError, catalogue, with_own

TOP_NAMES = (
    *("data", "catalogue", "server", "deadlines", "routing", "engines", "files", "batches", "embeddings"),
    *("gate", "ledger", "shared", "models"),
)
LAPTOP = Path(__file__).with_name("laptop.toml")  # what is served when nothing is configured


@dataclass(frozen=True, slots=True)
class Given:
    """A value, where it was said, and the folder its relative paths start from."""

    value: object
    where: str
    folder: Path


def load(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, str | int | None] | None = None
) -> Config:
    """Return the configuration; `overrides` are flags by dotted name; raises ConfigError."""
    chosen = path or (Path(environ["SCIBOX_CONFIG"]) if environ.get("SCIBOX_CONFIG") else None)
    source = chosen.expanduser() if chosen else LAPTOP
    table, report = _read(source)
    given = _from_file(table, report)
    served, where = (table, report) if "models" in table else _read(LAPTOP)
    keys = _upstream_keys(served)
    given |= _from_environment(environ, keys, report)
    given |= {
        name: Given(value, "command line", Path.cwd())
        for name, value in (overrides or {}).items()
        if value is not None and name in settings()
    }
    records = {section: _record(section, given, report) for section in SECTIONS}
    top, server = records[""], records["server"]
    _check_tls(server, given, report)
    known = _catalogue(top.catalogue, given, report)
    models = read_models(served["models"], where, known, environ)
    problems = report.problems if where is report else [*report.problems, *where.problems]
    if problems:
        raise ConfigError(tuple(sorted(problems, key=_reading_order)))
    return Config(
        source=chosen,
        data=top.data or user_data_path("scibox", appauthor=False),
        catalogue=top.catalogue,
        server=server,
        deadlines=records["deadlines"],
        routing=records["routing"],
        llama=records["engines.llama"],
        embedder=records["engines.embedder"],
        files=records["files"],
        batches=records["batches"],
        embeddings=records["embeddings"],
        gate=records["gate"],
        ledger=records["ledger"],
        shared=records["shared"],
        models=models,
    )


def _reading_order(problem: Problem) -> int:
    """Sort problems of a file by line; those that stand elsewhere come first."""
    line = problem.where.rpartition(":")[2]
    return int(line) if line.isdigit() else 0


def check(path: Path | None, environ: Mapping[str, str]) -> tuple[Problem, ...]:
    """Return every problem of a configuration; none when the service can start with it."""
    try:
        load(path, environ)
    except ConfigError as error:
        return error.problems
    return ()


def _read(source: Path) -> tuple[dict[str, Any], Report]:
    """Return a file's table and an empty report on it; raises ConfigError when it is not TOML."""
    try:
        text = source.read_text("utf-8")
        return tomllib.loads(text), Report(source, lines_of(text))
    except OSError as error:
        raise ConfigError((Problem(str(source), f"cannot be read: {error.strerror}"),)) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError((Problem(f"{source}:{line}", "is not UTF-8 text"),)) from error
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(error))
        line = int(found[2]) if found else text.count("\n") + 1
        message = f"{found[1]} (column {found[3]})" if found else str(error)
        raise ConfigError((Problem(f"{source}:{line}", f"not valid TOML: {message}"),)) from error


def _from_file(table: dict[str, Any], report: Report) -> dict[str, Given]:
    """Return the settings of a file by dotted name; unknown names are problems."""
    given: dict[str, Given] = {}
    report.known_only(table, (), TOP_NAMES)
    engines = table.get("engines")
    if isinstance(engines, dict):
        report.known_only(engines, ("engines",), ("llama", "embedder"))
    for section, record in SECTIONS.items():
        place: Where = tuple(section.split(".")) if section else ()
        inner = _table_at(table, place, report)
        names = [item.field for item in settings().values() if item.section == section]
        if record is not Top:
            report.known_only(inner, place, names)
        for name in names:
            if name in inner:
                dotted = f"{section}.{name}" if section else name
                where = report.at((*place, name))
                given[dotted] = Given(inner[name], where, report.source.parent)
    return given


def _table_at(table: dict[str, Any], place: Where, report: Report) -> dict[str, Any]:
    """Return the table at a place, empty where there is none; another thing there is a problem."""
    inner: Any = table
    for depth, key in enumerate(place):
        inner = inner.get(key, {})
        if not isinstance(inner, dict):
            report.add(place[: depth + 1], f"'{key}' must be a table: {named(place[: depth + 1])}")
            return {}
    return dict(inner)


def _from_environment(environ: Mapping[str, str], keys: frozenset[str], report: Report) -> dict[str, Given]:
    """Return the settings of the environment; an empty variable counts as not set."""
    by_variable = {item.variable: item for item in settings().values()}
    given = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable.startswith(RESERVED_PREFIX):
            continue
        if variable in RESERVED or variable in keys or not text:
            continue
        if variable not in by_variable:
            known = [*by_variable, *sorted(RESERVED)]
            report.add("environment", unknown(variable, "the environment", known))
            continue
        item = by_variable[variable]
        given[item.name] = Given(from_text(item.kind, text), variable, Path.cwd())
    return given


def _record(section: str, given: Mapping[str, Given], report: Report) -> Any:
    """Build one section's record from what was given; the type is SECTIONS[section]."""
    values: dict[str, object] = {}
    for item in settings().values():
        if item.section == section and item.name in given:
            values |= _value(item, given[item.name], report)
    return SECTIONS[section](**values)


def _value(item: Setting, found: Given, report: Report) -> dict[str, object]:
    """Return the field's decoded value by its name; nothing (the default stands) where it is wrong."""
    try:
        return {item.field: decode(item.kind, found.value, found.folder)}
    except Wrong as wrong:
        report.add(found.where, f"{item.name} {wrong}")
        return {}


def _check_tls(server: Server, given: Mapping[str, Given], report: Report) -> None:
    """Both files or none, and they must be there."""
    pair = {"server.tls_certificate": server.tls_certificate, "server.tls_key": server.tls_key}
    for name, path in pair.items():
        if path is not None and not path.is_file():
            report.add(given[name].where, f"{name}: there is no file {path}")
    named = [name for name in pair if name in given]
    if len(named) == 1:
        (other,) = pair.keys() - set(named)
        report.add(given[named[0]].where, f"{named[0]} needs {other} beside it: TLS takes both files")


def _catalogue(own: Path | None, given: Mapping[str, Given], report: Report) -> Mapping[str, Any]:
    """Return the catalogue with the operator's own entries."""
    try:
        return with_own(own)
    except CatalogueError as error:
        report.add(given["catalogue"].where, f"catalogue: {error}")
        return catalogue()


def _upstream_keys(table: dict[str, Any]) -> frozenset[str]:
    """Return the variables that deployments name for their keys: ours may begin with SCIBOX_ too."""
    found = set()
    models = table.get("models")
    for model in models.values() if isinstance(models, dict) else ():
        deployments = model.get("deployments") if isinstance(model, dict) else None
        for deployment in deployments if isinstance(deployments, list) else ():
            if isinstance(deployment, dict):
                found.add(str(deployment.get("upstream_key_env", "")))
    return frozenset(found)
