"""The `[models]` of the configuration: what is served, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scibox.config.deployments import Reader, kind_of, read_deployments, read_fields
from scibox.config.lines import Where
from scibox.config.records import Deployment, Model
from scibox.config.report import Report, named
from scibox.core.names import nearest
from scibox.core.types import Kind
from scibox.models.catalogue import Entry

LONGEST_NAME = 200
# What only embedding models have.
FOR_EMBEDDING = ("prefix", "query_prefix", "passage_prefix", "token_ids", "matryoshka", "revision")


def read_models(
    table: object, report: Report, catalogue: Mapping[str, Entry], environ: Mapping[str, str]
) -> tuple[Model, ...]:
    """Return the models of `[models]`; everything wrong is in the report."""
    if not isinstance(table, dict) or not table:
        report.add(("models",), "'models' must have one table for each model: [models.\"its-public-name\"]")
        return ()
    reader = Reader(report, catalogue, environ)
    models = tuple(_model(name, inner, reader) for name, inner in table.items())
    _check_names(models, report)
    _check_fallbacks(models, report)
    return models


def _model(name: str, table: object, reader: Reader) -> Model:
    """Read one model."""
    place: Where = ("models", name)
    if not isinstance(table, dict):
        reader.report.add(place, f"'{name}' must be a table: [models.\"{name}\"]")
        return Model(name, "chat")
    _check_public_name(name, place, reader.report)
    values = read_fields(
        Model, {key: value for key, value in table.items() if key != "deployments"}, place, reader
    )
    deployments = read_deployments(table.get("deployments"), place, reader)
    stated: Kind | None = values.pop("kind", None)
    kinds = [kind_of(replica, reader) for _, replica in _placed(deployments, place)]
    kind = stated or next((found for found in kinds if found is not None), None)
    if kind is None:
        if "kind" not in table:
            reader.report.add(place, f'model \'{name}\' needs a kind: kind = "chat", "embedding" or "rerank"')
        kind = "chat"
    for (at, replica), found in zip(_placed(deployments, place), kinds, strict=True):
        if found not in {None, kind}:
            reader.report.add(
                (*at, "weights"),
                f"'{replica.weights}' is of kind {found}, and model '{name}' of kind {kind}",
            )
    _check_kind(kind, table, deployments, place, reader)
    return Model(name=name, kind=kind, deployments=deployments, **values)


def _placed(deployments: tuple[Deployment, ...], place: Where) -> Iterator[tuple[Where, Deployment]]:
    """Every replica, each with where it stands in the file."""
    for index, deployment in enumerate(deployments):
        at = (*place, "deployments", index)
        if not deployment.replicas:
            yield at, deployment
        for inner, replica in enumerate(deployment.replicas):
            yield (*at, "replicas", inner), replica


def _check_kind(
    kind: Kind, table: dict[str, Any], deployments: tuple[Deployment, ...], place: Where, reader: Reader
) -> None:
    """Settings and engines that mean something to other kinds of models only."""
    for key in FOR_EMBEDDING:
        if key in table and kind != "embedding":
            reader.report.add((*place, key), f"'{key}' means nothing to a model of kind \"{kind}\"")
    for at, deployment in _placed(deployments, place):
        if kind == "rerank" and deployment.url is None and deployment.engine is not None:
            reader.report.add(at, 'a model of kind "rerank" needs the url of an upstream that ranks')
        if kind == "embedding" and deployment.engine == "llama" and (deployment.slots or 1) > 1:
            # Texts of several slots are computed together: that changes their vectors (docs/embeddings.md).
            reader.report.add((*at, "slots"), "an embedding model on the engine 'llama' has one slot")
        if kind == "embedding" and deployment.engine == "embedder" and table.get("token_ids") == "own":
            reader.report.add((*place, "token_ids"), "the engine 'embedder' takes texts, no ids of its own")


def _check_public_name(name: str, place: Where, report: Report) -> None:
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        report.add(place, f"a model's name is 1 to {LONGEST_NAME} printable characters, not {name!r}")


def _check_names(models: tuple[Model, ...], report: Report) -> None:
    """One name means one model."""
    owners = {model.name: model.name for model in models}
    for model in models:
        for index, alias in enumerate(model.aliases):
            place: Where = ("models", model.name, "aliases", index)
            _check_public_name(alias, place, report)
            if alias == model.name:
                report.add(place, f"alias '{alias}' is the model's own name")
            elif owners.get(alias) == alias:
                report.add(place, f"alias '{alias}' is the name of another model, {named(('models', alias))}")
            elif alias in owners:
                report.add(place, f"alias '{alias}' is already an alias of '{owners[alias]}'")
            else:
                owners[alias] = model.name


def _check_fallbacks(models: tuple[Model, ...], report: Report) -> None:
    """Models that stand in for another are other models of its kind."""
    known = {model.name: model for model in models}
    for model in models:
        for index, name in enumerate(model.fallback_models):
            place: Where = ("models", model.name, "fallback_models", index)
            if name == model.name:
                report.add(place, f"'{name}' cannot stand in for itself")
            elif name not in known:
                near = nearest(name, known)
                hint = (
                    f"did you mean '{near}'?" if near else "it must be a model of this file, by its own name"
                )
                report.add(place, f"there is no model '{name}' to stand in for '{model.name}'; {hint}")
            elif known[name].kind != model.kind or model.kind == "embedding":
                why = (
                    "vectors of two models cannot be compared"
                    if model.kind == known[name].kind
                    else f"it is of kind {known[name].kind}"
                )
                report.add(place, f"'{name}' cannot stand in for '{model.name}': {why}")
