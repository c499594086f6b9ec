"""What is to be served: a configuration, and what operators have added to it, as ways to replicas.

A configuration becomes a `Plan`: for each model the `Way`s to serve it. Two ways are equal where everything
is that their replica and its child depend on, so a reload keeps what stands in both plans.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from scibox.additions import Additions
from scibox.config import Config, Deployment, Model
from scibox.core.errors import OperatorError
from scibox.core.types import Kind, Thinking
from scibox.models.catalogue import with_own
from scibox.models.progress import progress_on
from scibox.models.pull import pull
from scibox.models.ready import Weights, identity, local

START_S = 120.0  # that an engine may take until it answers; vLLM's is a setting


@dataclass(frozen=True, slots=True)
class Way:
    """The way to one replica of a model, with all that the replica and its child depend on."""

    model: str
    kind: Kind
    deployment: Deployment  # of this one replica, with its engine's defaults written in
    context: int | None
    reasoning: Thinking
    weights: Weights | None
    identity: str  # of the weights
    secret: str | None = field(repr=False)  # the upstream's own key
    start_s: float = START_S  # that its engine may take until it answers
    number: int = 0  # of several that are equal
    added: str = ""  # the id of one that an operator has added

    @property
    def id(self) -> str:
        """As operators name the replica: the same after a restart, and with other settings."""
        own = self.deployment
        place = (self.model, own.url, own.upstream_model, own.engine, own.weights, self.number)
        return self.added or f"rep_{hashlib.sha256(msgspec.json.encode(place)).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be served: the models, and of each its deployments, in the order they are tried."""

    models: tuple[Model, ...]
    deployments: Mapping[str, tuple[tuple[Way, ...], ...]]  # a way to each of its replicas
    draining: frozenset[str] = frozenset()  # ids of those that get no new calls
    unfit: Mapping[str, str] = field(default_factory=dict)  # added ones that cannot be used: why, by id

    def __iter__(self) -> Iterator[Way]:
        for name in self.deployments:
            yield from self.of(name)

    def of(self, model: str) -> tuple[Way, ...]:
        """All ways of a model."""
        return tuple(itertools.chain.from_iterable(self.deployments[model]))


def plan(
    config: Config,
    weights: Mapping[Deployment, Weights],
    additions: Additions = Additions(),  # noqa: B008
) -> Plan:
    """What a configuration asks for, with what operators have added, and the weights of local replicas."""
    return Plan(
        config.models,
        {model.name: _deployments(config, model, weights, additions) for model in config.models},
        additions.draining,
        additions.unfit,
    )


def _deployments(
    config: Config, model: Model, weights: Mapping[Deployment, Weights], additions: Additions
) -> tuple[tuple[Way, ...], ...]:
    seen: Counter[Way] = Counter()

    def numbered(way: Way) -> Way:
        seen[way] += 1
        return replace(way, number=seen[way] - 1)

    stated = [
        [numbered(_way(config, model, replica, weights.get(replica))) for replica in deployment.each]
        for deployment in model.deployments
    ]
    urls = {way.deployment.url for ways in stated for way in ways if way.deployment.url}
    for one in additions.added:
        if one.model == model.name and one.settings.url not in urls:  # the file has it by now
            way = _way(config, model, one.settings, weights.get(one.settings))
            stated[one.deployment].append(replace(way, added=one.id))
    return tuple(map(tuple, stated))


def _way(config: Config, model: Model, replica: Deployment, own: Weights | None) -> Way:
    return Way(
        model=model.name,
        kind=model.kind,
        deployment=_complete(config, model, replica),
        context=model.context,
        reasoning=model.reasoning,
        weights=own,
        identity=identity(own) if own else "",
        secret=_upstream_secret(replica),
        start_s=config.vllm.start_s if replica.engine == "vllm" else START_S,
    )


def _complete(config: Config, model: Model, deployment: Deployment) -> Deployment:
    """With the defaults of its engine."""
    if deployment.engine == "llama":
        own = config.llama
        return replace(
            deployment,
            threads=deployment.threads or own.threads,
            slots=1 if model.kind == "embedding" else deployment.slots or own.slots,
            context=deployment.context or own.context,
            batch=deployment.batch or own.batch,
        )
    if deployment.engine == "embedder":
        return replace(
            deployment,
            threads=deployment.threads or config.embedder.threads,
            batch_tokens=deployment.batch_tokens or config.embedder.batch_tokens,
        )
    return deployment


def obtain(config: Config, additions: Additions = Additions()) -> dict[Deployment, Weights]:  # noqa: B008
    """The weights of every local replica; fetched where they are missing."""
    folder = config.data / "models"
    known = with_own(config.catalogue)
    found: dict[Deployment, Weights] = {}
    stated = [one for model in config.models for deployment in model.deployments for one in deployment.each]
    for replica in dict.fromkeys([*stated, *(one.settings for one in additions.added)]):
        name = replica.weights
        if name is not None and replica.engine != "vllm":  # which fetches its own
            is_known = name in known
            found[replica] = pull(known[name], folder, progress_on()) if is_known else local(Path(name))
    return found


def _upstream_secret(deployment: Deployment) -> str | None:
    """The upstream's own key, from the environment or a file; never logged."""
    if deployment.upstream_key_env is not None:
        return os.environ.get(deployment.upstream_key_env)
    if deployment.upstream_key_file is not None:
        try:
            return deployment.upstream_key_file.read_text("utf-8").strip()
        except OSError as error:
            raise OperatorError(
                f"The upstream key cannot be read from {deployment.upstream_key_file}: {error.strerror}."
            ) from error
    return None
