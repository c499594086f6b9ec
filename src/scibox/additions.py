"""Replicas that operators have added while the service ran, judged as the configuration judges its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from scibox.config import Config, Deployment
from scibox.config.deployments import Reader, kind_of, read_replica
from scibox.config.lines import Where
from scibox.config.report import Report
from scibox.core.errors import InvalidRequest, ModelNotFound
from scibox.models.catalogue import with_own
from scibox.store.replicas import Kept


@dataclass(frozen=True, slots=True)
class Addition:
    """An added replica, as the configuration would have it."""

    id: str
    model: str
    deployment: int
    settings: Deployment


@dataclass(frozen=True, slots=True)
class Additions:
    """What holds beside the configuration; `unfit`: why some cannot be used now, by their ids."""

    added: tuple[Addition, ...] = ()
    draining: frozenset[str] = frozenset()
    unfit: Mapping[str, str] = field(default_factory=dict)


class _Asked(Report):
    """Problems of a request: each stands at its field."""

    def at(self, place: Where) -> str:
        return str(place[-1]) if place else "body"


def judge(config: Config, kept: Iterable[Kept], environ: Mapping[str, str]) -> Additions:
    """What of the kept ones can be used with this configuration."""
    rows, added, unfit = tuple(kept), [], {}
    for row in rows:
        if row.is_added:
            try:
                added.append(addition(config, row, environ))
            except (InvalidRequest, ModelNotFound) as error:
                unfit[row.id] = error.message
    return Additions(tuple(added), frozenset(row.id for row in rows if row.is_draining), unfit)


def addition(config: Config, row: Kept, environ: Mapping[str, str]) -> Addition:
    """An added replica that can be used; raises what is wrong, naming the field."""
    model = next((one for one in config.models if one.name == row.model), None)
    if model is None:
        names = ", ".join(one.name for one in config.models[:20])
        raise ModelNotFound(
            f"There is no model '{row.model[:100]}' in the configuration; its models: {names}.", param="model"
        )
    if row.deployment >= len(model.deployments):
        raise InvalidRequest(
            f"'{row.model}' has {len(model.deployments)} deployments, counted from 0.", param="deployment"
        )
    report = _Asked(Path(), {})
    reader = Reader(report, with_own(config.catalogue), environ)
    settings = read_replica(msgspec.json.decode(row.settings), reader)
    if report.problems:
        first = report.problems[0]
        raise InvalidRequest(first.message, param=first.where)
    _refuse_others_keys(config, settings)
    if settings.weights is not None and Path(settings.weights).is_absolute():
        raise InvalidRequest("'weights' of an added replica is a name of the catalogue.", param="weights")
    is_single = model.kind == "embedding" and settings.engine == "llama" and (settings.slots or 1) > 1
    if kind_of(settings, reader) not in {None, model.kind} or (model.kind == "rerank" and not settings.url):
        raise InvalidRequest(f"That cannot serve '{row.model}', of kind {model.kind}.", param="engine")
    if is_single:
        raise InvalidRequest("an embedding model on the engine 'llama' has one slot", param="slots")
    return Addition(row.id, row.model, row.deployment, settings)


def _refuse_others_keys(config: Config, settings: Deployment) -> None:
    """Only keys that the configuration names: else any variable or file could be sent to any address."""
    own = [one for model in config.models for deployment in model.deployments for one in deployment.each]
    if settings.upstream_key_env not in {None, *(one.upstream_key_env for one in own)}:
        raise InvalidRequest(
            "'upstream_key_env' must be a variable that the configuration names for one of its upstreams.",
            param="upstream_key_env",
        )
    if settings.upstream_key_file not in {None, *(one.upstream_key_file for one in own)}:
        raise InvalidRequest(
            "'upstream_key_file' must be a file that the configuration names for one of its upstreams.",
            param="upstream_key_file",
        )
