"""The `deployments` of a model: where it is served, by one replica each or by several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from scibox.config.lines import Where
from scibox.config.records import Deployment
from scibox.config.report import Report
from scibox.config.values import Wrong, decode
from scibox.core.names import nearest
from scibox.core.types import Kind
from scibox.models.catalogue import Entry
from scibox.models.ready import NotWeights, local

# What each way to serve a model understands.
UNDERSTOOD: Mapping[str, frozenset[str]] = {
    "llama": frozenset({"engine", "weights", "threads", "slots", "context", "batch", "pooling", "count"}),
    "embedder": frozenset({"engine", "weights", "threads", "batch_tokens", "count"}),
    "fake": frozenset({"engine", "slots", "context", "count"}),
    "url": frozenset({"url", "slots", "upstream_model", "upstream_key_env", "upstream_key_file", "dialect"}),
}
ENDPOINTS = ("/chat/completions", "/completions", "/embeddings", "/rerank", "/models")


@dataclass(frozen=True, slots=True)
class Reader:
    """What is needed to judge a model: the report, the catalogue and the environment."""

    report: Report
    catalogue: Mapping[str, Entry]
    environ: Mapping[str, str]


def read_deployments(tables: object, place: Where, reader: Reader) -> tuple[Deployment, ...]:
    """Read `[[models.x.deployments]]`."""
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        header = f'[[models."{place[1]}".deployments]]'
        at = (*place, "deployments")
        reader.report.add(at, f"model '{place[1]}' needs at least one deployment: {header}")
        return ()
    return tuple(_any(table, (*place, "deployments", at), reader) for at, table in enumerate(tables))


def read_replica(table: dict[str, Any], reader: Reader) -> Deployment:
    """Read one replica that stands in no file; everything wrong is in the report."""
    return _deployment(table, (), reader)


def _any(table: dict[str, Any], place: Where, reader: Reader) -> Deployment:
    """Read one deployment: it is its own only replica, or has several."""
    if "replicas" not in table:
        return _deployment(table, place, reader)
    own = {key: value for key, value in table.items() if key != "replicas"}
    inner, at = table["replicas"], (*place, "replicas")
    if not isinstance(inner, list) or not inner or not all(isinstance(one, dict) for one in inner):
        reader.report.add(
            at, 'replicas must be a list of tables: replicas = [{ url = "http://gpu1:8000/v1" }]'
        )
        return Deployment()
    reader.report.known_only(own, place, [item.name for item in fields(Deployment)])
    for index, one in enumerate(inner):
        if "replicas" in one:
            reader.report.add((*at, index, "replicas"), "a replica has no replicas of its own")
            return Deployment()
    found = [
        _deployment({**_left_to(one, own), **one}, (*at, index), reader) for index, one in enumerate(inner)
    ]
    used = {key for one in inner for key in _left_to(one, own)}
    for key in own.keys() - used:
        reader.report.add((*place, key), f"'{key}' means nothing to any of the replicas, or each has its own")
    return Deployment(replicas=tuple(found))


def _left_to(one: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """What a replica has from its deployment: what it understands and does not say itself."""
    stated = {**own, **one}
    way = "url" if "url" in one or ("engine" not in one and "url" in own) else stated.get("engine")
    known = UNDERSTOOD.get(way, frozenset()) if isinstance(way, str) else frozenset()
    return {key: value for key, value in own.items() if key in known and key not in one}


def _deployment(table: dict[str, Any], place: Where, reader: Reader) -> Deployment:
    """Read one deployment and check that it can work."""
    before = len(reader.report.problems)
    found = Deployment(**read_fields(Deployment, table, place, reader))
    if len(reader.report.problems) > before:
        return found  # what is half read would only be reported twice
    if (found.engine is None) == (found.url is None):
        reader.report.add(place, _one_way(found, reader))
        return found
    way = found.engine or "url"
    for key in table:
        if key not in UNDERSTOOD[way]:
            owner = "an upstream at a url" if way == "url" else f"the engine '{way}'"
            reader.report.add((*place, key), f"'{key}' means nothing to {owner}; known are: {_list(way)}")
    _check_key(found, place, reader)
    return _with_url(found, place, reader) if found.url else _with_weights(found, place, reader)


def _list(way: str) -> str:
    return ", ".join(sorted(UNDERSTOOD[way]))


def _one_way(found: Deployment, reader: Reader) -> str:
    """Say what to do about a deployment with both an engine and a url, or neither."""
    if found.engine is not None:
        return "a deployment has either an engine or a url, this one has both"
    entry = reader.catalogue.get(found.weights or "")
    hint = f'; for these weights: engine = "{entry.engine}"' if entry else ""
    return f"a deployment needs an engine (with weights) or a url{hint}"


def _with_url(found: Deployment, place: Where, reader: Reader) -> Deployment:
    """Check the address of an upstream; a slash at its end is dropped."""
    url = (found.url or "").rstrip("/")
    wrong = _wrong_with(url)
    if wrong:
        reader.report.add((*place, "url"), f"url {found.url!r} {wrong}")
    return replace(found, url=url)


def _wrong_with(url: str) -> str | None:  # noqa: PLR0911  one return for each mistake reads best
    """Return what is wrong with an upstream's address, None when it will do."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"is not an address: {error}"
    if parts.scheme not in {"http", "https"} or not host:
        return 'must begin with http:// or https:// and a host, like "http://gpu1:8000/v1"'
    if parts.username or parts.password:
        return "must not carry a key or password; use upstream_key_env or upstream_key_file"
    if parts.query or parts.fragment:
        return "must not have a '?' or '#' part"
    for endpoint in ENDPOINTS:
        if parts.path.endswith(endpoint):
            return f"must end before '{endpoint}', like {url.removesuffix(endpoint)!r}"
    if not parts.path:
        return f"needs the path of its API, mostly {url + '/v1'!r}"
    return None


def _check_key(found: Deployment, place: Where, reader: Reader) -> None:
    """An upstream's key comes from one place, and it must be there."""
    if found.upstream_key_env and found.upstream_key_file:
        reader.report.add(
            (*place, "upstream_key_file"), "use upstream_key_env or upstream_key_file, not both"
        )
    elif found.upstream_key_env and not reader.environ.get(found.upstream_key_env, "").strip():
        variable = found.upstream_key_env
        reader.report.add((*place, "upstream_key_env"), f"the environment variable {variable} is not set")
    elif found.upstream_key_file:
        try:
            empty = not found.upstream_key_file.read_text("utf-8").strip()
            why = "is empty" if empty else None
        except (OSError, UnicodeDecodeError) as error:
            why = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        if why:
            reader.report.add((*place, "upstream_key_file"), f"{found.upstream_key_file} {why}")


def _with_weights(found: Deployment, place: Where, reader: Reader) -> Deployment:
    """Check the weights of an engine: a name of the catalogue, or a path (made absolute)."""
    if found.engine == "fake":
        return found
    at = (*place, "weights")
    if found.weights is None:
        reader.report.add(
            place, f"the engine '{found.engine}' needs weights: a name of `scibox models` or a path"
        )
        return found
    if not _is_path(found.weights):
        _check_entry(found.weights, found, at, reader)
        return found
    path = reader.report.source.parent.absolute() / Path(found.weights).expanduser()
    try:
        engine = local(path).engine
    except NotWeights as wrong:
        reader.report.add(at, str(wrong))
    else:
        if engine != found.engine:
            reader.report.add(at, f"{path} is for the engine '{engine}', not '{found.engine}'")
    return replace(found, weights=str(path))


def _check_entry(name: str, found: Deployment, at: Where, reader: Reader) -> None:
    """The name must be in the catalogue, and for this engine."""
    entry = reader.catalogue.get(name)
    if entry is None:
        near = nearest(name, reader.catalogue)
        hint = f"did you mean '{near}'?" if near else "`scibox models` lists them; a path has a '/' in it"
        reader.report.add(at, f"there are no weights '{name}' in the catalogue; {hint}")
    elif entry.engine != found.engine:
        reader.report.add(at, f"'{name}' is for the engine '{entry.engine}', not '{found.engine}'")


def _is_path(weights: str) -> bool:
    return "/" in weights or weights.endswith(".gguf") or weights.startswith(("~", "."))


def kind_of(found: Deployment, reader: Reader) -> Kind | None:
    """Return the kind that the weights of a deployment have, None where that cannot be told."""
    if found.weights is None:
        return None
    if found.weights in reader.catalogue:
        return reader.catalogue[found.weights].kind
    # A GGUF without a pooling type may still be meant for embeddings, so only the certain cases count.
    return "embedding" if found.engine == "embedder" else None


def read_fields(record: type, table: dict[str, Any], place: Where, reader: Reader) -> dict[str, Any]:
    """Decode a table into the fields of a record; wrong and unknown ones are left out and reported."""
    kinds = get_type_hints(record, include_extras=True)
    known = [item.name for item in fields(record) if item.name not in {"name", "replicas"}]
    reader.report.known_only(table, place, known)
    values = {}
    for key in known:
        if key in table:
            try:
                values[key] = decode(kinds[key], table[key], reader.report.source.parent)
            except Wrong as wrong:
                reader.report.add((*place, key), f"{key} {wrong}")
    return values
