"""The models of a configuration as routes: their replicas, and the children of ours that serve them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from scibox.config import Config, Deployment, Model
from scibox.core.errors import OperatorError
from scibox.core.types import Dialect, ModelCard, Thinking
from scibox.engines import fake, llama
from scibox.engines.embedder import settings as embedder
from scibox.engines.supervisor import Command, EngineEvent, Supervisor
from scibox.models.catalogue import with_own
from scibox.models.progress import progress_on
from scibox.models.pull import pull
from scibox.models.ready import Weights, identity, local
from scibox.router.replica import EmbeddingRules, Replica, Route
from scibox.upstream.address import Address

# Calls of an embedding model that a child of ours is sent at the same time; it takes their texts in turns. So
# many searches of a few dozen LLM tokens fill what it computes at once (512); what comes beyond waits in the
# fair queue.
_EMBEDDING_SLOTS = 16
_DIALECTS: Mapping[str, Dialect] = {"llama": "llama", "fake": "vllm"}  # the fake takes whatever comes


class Deployed:
    """What is served. `report` hears of the children; `sockets` is the folder of their sockets."""

    def __init__(
        self,
        config: Config,
        weights: Mapping[Deployment, Weights],
        sockets: Path,
        report: Callable[[EngineEvent], None],
    ) -> None:
        self._config = config
        self._weights = weights
        self._sockets = sockets
        self._report = report
        self.children: list[Supervisor] = []
        self.routes = [self._route(model) for model in config.models]

    def _route(self, model: Model) -> Route:
        replicas = tuple(self._replica(model, index) for index in range(len(model.deployments)))
        own = [self._weights[d] for d in model.deployments if d in self._weights]
        card = ModelCard(
            name=model.name,
            kind=model.kind,
            owned_by=model.owned_by,
            created=int(time.time()),
            context=model.context or replicas[0].context,
            dimensions=model.dimensions or (own[0].dimensions if own else None),
            limits=model.limits,
            owner_limits=model.owner_limits,
            price=model.price,
        )
        return Route(card, replicas, self._rules(model))

    def _rules(self, model: Model) -> EmbeddingRules:
        """How texts for this model are treated; its vectors are known by what they depend on."""
        ways = [
            (identity(self._weights[d]), d.pooling)
            if d in self._weights
            else (d.engine, d.url, d.upstream_model or model.name)
            for d in model.deployments
        ]
        return EmbeddingRules(
            prefix=model.prefix or "",
            query_prefix=model.query_prefix,
            passage_prefix=model.passage_prefix,
            token_ids=model.token_ids or "cl100k_base",
            is_matryoshka=model.matryoshka,
            identity=msgspec.json.encode([model.revision, ways]),
        )

    def _replica(self, model: Model, index: int) -> Replica:
        deployment = model.deployments[index]
        if deployment.url is not None:
            return Replica(
                address=Address.parse(deployment.url),
                model=deployment.upstream_model or model.name,
                secret=_upstream_secret(deployment),
                context=model.context,
                dialect=deployment.dialect,
                thinking=model.reasoning,
                slots=deployment.slots,
            )
        path = self._sockets / f"{len(self.children)}.sock"
        command, context = self._command(model, deployment, path)
        self.children.append(Supervisor(model.name, command, path, report=self._report))
        return Replica(
            address=Address.parse(f"unix:{path}"),
            model=model.name,
            context=context,
            is_local=True,
            counts=True,
            dialect=_DIALECTS.get(deployment.engine or "", "openai"),
            thinking=_thinking(model, deployment),
            slots=self._slots(model, deployment),
        )

    def _slots(self, model: Model, deployment: Deployment) -> int | None:
        """Calls at the same time, as the child is told it."""
        if model.kind == "embedding":
            return _EMBEDDING_SLOTS
        default = self._config.llama.slots if deployment.engine == "llama" else None
        return deployment.slots or default

    def _command(self, model: Model, deployment: Deployment, path: Path) -> tuple[Command, int | None]:
        """How to start a child of ours, and the context of one call there, in LLM tokens."""
        weights = self._weights.get(deployment)
        if weights is None:
            settings = fake.Settings(socket=str(path), name=model.name)
            return Command("scibox.engines.fake", msgspec.json.encode(settings)), settings.context
        if weights.engine == "embedder":
            limits = self._config.embedder
            return embedder.command(
                embedder.Settings(
                    socket=str(path),
                    weights=str(weights.path),
                    name=model.name,
                    threads=deployment.threads or limits.threads or _cores(),
                    batch_tokens=deployment.batch_tokens or limits.batch_tokens,
                )
            ), weights.context
        defaults = self._config.llama
        wanted = deployment.context or defaults.context
        context = min(wanted, weights.context or wanted)
        return llama.command(
            llama.Settings(
                socket=str(path),
                weights=str(weights.path),
                name=model.name,
                threads=deployment.threads or defaults.threads or _cores(),
                slots=1 if model.kind == "embedding" else deployment.slots or defaults.slots,
                context=context,
                batch=deployment.batch or defaults.batch,
                embedding=model.kind == "embedding",
                pooling=deployment.pooling,
            )
        ), context


def obtain(config: Config) -> dict[Deployment, Weights]:
    """The weights of every local deployment; fetched where they are missing."""
    folder = config.data / "models"
    known = with_own(config.catalogue)
    found: dict[Deployment, Weights] = {}
    for model in config.models:
        for deployment in model.deployments:
            name = deployment.weights
            if name is not None:
                is_known = name in known
                found[deployment] = (
                    pull(known[name], folder, progress_on()) if is_known else local(Path(name))
                )
    return found


def _thinking(model: Model, deployment: Deployment) -> Thinking | None:
    """llama.cpp's chat template can be asked; what the operator states wins."""
    return None if model.reasoning == "auto" and deployment.engine == "llama" else model.reasoning


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


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
