"""The models of a configuration as routes: their replicas, and the children of ours that serve them.

A configuration becomes a `Plan`: for each model the `Way`s to serve it. Two ways are equal where everything
is that their replica and its child depend on, so a reload keeps what stands in both plans.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from scibox.additions import Additions
from scibox.config import Config, Deployment, Model
from scibox.core.conditions import Condition
from scibox.core.errors import OperatorError
from scibox.core.types import Dialect, Kind, ModelCard, Thinking
from scibox.engines import fake, llama
from scibox.engines.embedder import settings as embedder
from scibox.engines.supervisor import Command, EngineEvent, Supervisor
from scibox.models.catalogue import with_own
from scibox.models.progress import progress_on
from scibox.models.pull import pull
from scibox.models.ready import Weights, identity, local
from scibox.router import replica as router
from scibox.router.replica import EmbeddingRules, Replica, Route
from scibox.upstream.address import Address
from scibox.wire.admin.replicas import AdminReplica, State

# Calls of an embedding model that a child of ours is sent at the same time; it takes their texts in turns. So
# many searches of a few dozen LLM tokens fill what it computes at once (512); what comes beyond waits in the
# fair queue.
_EMBEDDING_SLOTS = 16
_DIALECTS: Mapping[str, Dialect] = {"llama": "llama", "fake": "vllm"}  # the fake takes whatever comes


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


def _slots(way: Way) -> int | None:
    """Calls at the same time, as a child of ours is told it; None: what the server says of itself."""
    is_own = way.deployment.url is None
    return _EMBEDDING_SLOTS if is_own and way.kind == "embedding" else way.deployment.slots


@dataclass(frozen=True, slots=True)
class Standing:
    """A way that is there: its replica, and the child behind it if that is ours."""

    replica: Replica
    child: Supervisor | None


class Deployed:
    """What is served. `report` hears of the children; `sockets` is the folder of their sockets.

    `elsewhere` tells how many calls other processes have at a replica, by its id.

    From one plan to another: `begin` the new one, wait until it is `ready`, `adopt` it, `release` the old.
    """

    def __init__(
        self,
        sockets: Path,
        report: Callable[[EngineEvent], None],
        elsewhere: Callable[[str], int] = lambda _: 0,
    ) -> None:
        self._sockets = sockets
        self._report = report
        self._elsewhere = elsewhere
        self._standing: dict[Way, Standing] = {}
        self._wanted: frozenset[Way] = frozenset()
        self._numbers = itertools.count()
        self._created: dict[str, int] = {}  # models, by when they were first served
        self.routes: tuple[Route, ...] = ()
        self._former: list[Route] = []  # that calls may still go by
        self.plan = Plan((), {})

    @property
    def children(self) -> list[Supervisor]:
        """The children that are there."""
        return [standing.child for standing in self._standing.values() if standing.child]

    @property
    def replicas(self) -> list[Replica]:
        """The replicas that are there."""
        return [standing.replica for standing in self._standing.values()]

    @property
    def is_ready(self) -> bool:
        """Whether every engine of the adopted plan can answer."""
        return all(self._is_ready(way) for way in self.plan)

    def names(self) -> list[str]:
        """The models, in the order of the configuration."""
        return [model.name for model in self.plan.models]

    def answering(self) -> list[str]:
        """The models of which at least one replica can probably answer now."""
        return [name for name in self.names() if any(map(self._answers, self.plan.of(name)))]

    def begin(self, plan: Plan) -> list[Way]:
        """Take in what is not there yet, and keep what is; returns what is new."""
        self._wanted = self._wanted | frozenset(plan)
        added = [way for way in plan if not self._stands(way)]
        self._standing |= {way: self._stand(way) for way in added}
        return added

    async def ready(self, added: Iterable[Way]) -> None:
        """Start their engines and wait until all can answer; raises EngineFailed when one never will."""
        children = [child for way in added if (child := self._standing[way].child)]
        for child in children:
            await child.start()
        await asyncio.gather(*(child.wait_ready() for child in children))

    def adopt(self, plan: Plan) -> None:
        """Its routes hold from now on; the plan was begun before."""
        self.plan = plan
        self._former = [route for route in (*self._former, *self.routes) if route.users]
        self.routes = tuple(self._route(model, plan) for model in plan.models)
        self._mark()

    def change(self, plan: Plan) -> None:
        """Other replicas for the same models, also for the calls that wait; the plan was begun before."""
        before = {id(replica): replica for route in self.routes for replica in route.replicas}
        self.plan = plan
        for route in self.routes:
            route.serve_by(self._served(route.card.name, plan))
            for replica in route.replicas:
                before.pop(id(replica), None)
        for gone in before.values():
            gone.is_draining = True
        self._mark()

    def members(self) -> list[AdminReplica]:
        """Every replica that is there, as operators see it."""
        found = [
            self._member(way, index)
            for name in self.plan.deployments
            for index, ways in enumerate(self.plan.deployments[name])
            for way in ways
        ]
        wanted = set(self.plan)
        return found + [self._member(way, None) for way in self._standing if way not in wanted]

    def replica(self, way: Way) -> Replica:
        """The one that was begun for it."""
        return self._standing[way].replica

    def cut(self, replica_id: str) -> None:
        """End the calls that this process has there."""
        for way, standing in self._standing.items():
            if way.id == replica_id:
                standing.replica.cut()

    def release(self) -> None:
        """What is not in the adopted plan is needed no longer than its calls."""
        self._wanted = frozenset(self.plan)

    async def sweep(self) -> None:
        """Stop what nobody needs any more and no call is using."""
        self._former = [route for route in self._former if route.users]
        in_use = {id(replica) for route in (*self._former, *self.routes) for replica in route.replicas}
        unused = [
            way
            for way, standing in self._standing.items()
            if way not in self._wanted
            and id(standing.replica) not in in_use
            and not self._running(way, standing.replica)
        ]
        children = [self._standing.pop(way).child for way in unused]
        await asyncio.gather(*(child.stop() for child in children if child))

    def conditions(self) -> list[Condition]:
        """How the adopted engines and upstreams are."""
        unfit = [
            Condition(f"added replica {name}", False, f"It cannot be used: {why}")
            for name, why in self.plan.unfit.items()
        ]
        return [self._condition(way) for way in self.plan] + unfit

    def _mark(self) -> None:
        for way in self.plan:
            self._standing[way].replica.is_draining = way.id in self.plan.draining

    def _served(self, model: str, plan: Plan) -> tuple[router.Deployment, ...]:
        return tuple(
            router.Deployment(tuple(self._standing[way].replica for way in own))
            for own in plan.deployments[model]
        )

    def _running(self, way: Way, replica: Replica) -> int:
        return replica.in_flight + self._elsewhere(way.id)

    def _member(self, way: Way, index: int | None) -> AdminReplica:
        standing, own = self._standing[way], way.deployment
        replica, condition = standing.replica, self._condition(way)
        state: State = "ready"
        if index is None:
            state = "leaving"
        elif replica.is_draining:
            state = "draining"
        elif not self._is_ready(way):
            state = "starting"
        elif not replica.is_usable:
            state = "away"
        return AdminReplica(
            id=way.id,
            model=way.model,
            deployment=index,
            url=own.url,
            engine=own.engine,
            state=state,
            added=bool(way.added),
            in_flight=self._running(way, replica),
            slots=replica.slots,
            context=replica.context,
            kind=replica.kind,
            message=None if condition.is_ok else condition.words,
        )

    def _stands(self, way: Way) -> bool:
        standing = self._standing.get(way)
        return standing is not None and (standing.child is None or standing.child.state != "failed")

    def _condition(self, way: Way) -> Condition:
        replica, child = self._standing[way].replica, self._standing[way].child
        if child is None:
            part = f"upstream {way.deployment.url} of {way.model}"
            trouble = replica.ailment
            return (
                Condition(part) if trouble is None else Condition(part, False, trouble.words, trouble.since)
            )
        part = f"engine of {way.model}"
        if child.state == "ready":
            return Condition(part)
        return Condition(part, False, child.words, child.since)

    def _is_ready(self, way: Way) -> bool:
        child = self._standing[way].child
        return child is None or child.state == "ready"

    def _answers(self, way: Way) -> bool:
        return self._is_ready(way) and self._standing[way].replica.is_usable

    def _route(self, model: Model, plan: Plan) -> Route:
        # An added replica is as good as those of the file: it changes no card and no vector.
        ways = [way for way in plan.of(model.name) if not way.added]
        deployments = self._served(model.name, plan)
        first = deployments[0].replicas[0]
        own = [way.weights for way in ways if way.weights]
        card = ModelCard(
            name=model.name,
            kind=model.kind,
            owned_by=model.owned_by,
            created=self._created.setdefault(model.name, int(time.time())),
            context=model.context or first.context,
            dimensions=model.dimensions or (own[0].dimensions if own else None),
            limits=model.limits,
            owner_limits=model.owner_limits,
            price=model.price,
        )
        return Route(card, deployments, _rules(model, ways), model.fallback_models)

    def _stand(self, way: Way) -> Standing:
        deployment = way.deployment
        if deployment.url is not None:
            replica = Replica(
                address=Address.parse(deployment.url),
                model=deployment.upstream_model or way.model,
                secret=way.secret,
                id=way.id,
                context=way.context,
                dialect=deployment.dialect,
                thinking=way.reasoning,
                slots=_slots(way),
            )
            return Standing(replica, None)
        path = self._sockets / f"{next(self._numbers)}.sock"
        command, context = _command(way, path)
        replica = Replica(
            address=Address.parse(f"unix:{path}"),
            model=way.model,
            id=way.id,
            context=context,
            is_local=True,
            counts=True,
            dialect=_DIALECTS.get(deployment.engine or "", "openai"),
            thinking=_thinking(way),
            slots=_slots(way),
        )
        return Standing(replica, Supervisor(way.model, command, path, report=self._report))


def _rules(model: Model, ways: Iterable[Way]) -> EmbeddingRules:
    """How texts for this model are treated; its vectors are known by what they depend on."""
    identities = [
        (way.identity, way.deployment.pooling)
        if way.weights
        else (way.deployment.engine, way.deployment.url, way.deployment.upstream_model or model.name)
        for way in ways
    ]
    return EmbeddingRules(
        prefix=model.prefix or "",
        query_prefix=model.query_prefix,
        passage_prefix=model.passage_prefix,
        token_ids=model.token_ids or "cl100k_base",
        is_matryoshka=model.matryoshka,
        identity=msgspec.json.encode([model.revision, identities]),
    )


def _command(way: Way, path: Path) -> tuple[Command, int | None]:
    """How to start a child of ours, and the context of one call there, in LLM tokens."""
    weights, deployment = way.weights, way.deployment
    if weights is None:
        settings = fake.Settings(socket=str(path), name=way.model)
        return Command("scibox.engines.fake", msgspec.json.encode(settings)), settings.context
    if weights.engine == "embedder":
        assert deployment.batch_tokens, "written in by `plan`"
        return embedder.command(
            embedder.Settings(
                socket=str(path),
                weights=str(weights.path),
                name=way.model,
                threads=deployment.threads or _cores(),
                batch_tokens=deployment.batch_tokens,
            )
        ), weights.context
    assert deployment.slots, "written in by `plan`"
    assert deployment.context, "written in by `plan`"
    assert deployment.batch, "written in by `plan`"
    context = min(deployment.context, weights.context or deployment.context)
    return llama.command(
        llama.Settings(
            socket=str(path),
            weights=str(weights.path),
            name=way.model,
            threads=deployment.threads or _cores(),
            slots=deployment.slots,
            context=context,
            batch=deployment.batch,
            embedding=way.kind == "embedding",
            pooling=deployment.pooling,
        )
    ), context


def obtain(config: Config, additions: Additions = Additions()) -> dict[Deployment, Weights]:  # noqa: B008
    """The weights of every local replica; fetched where they are missing."""
    folder = config.data / "models"
    known = with_own(config.catalogue)
    found: dict[Deployment, Weights] = {}
    stated = [one for model in config.models for deployment in model.deployments for one in deployment.each]
    for replica in dict.fromkeys([*stated, *(one.settings for one in additions.added)]):
        name = replica.weights
        if name is not None:
            is_known = name in known
            found[replica] = pull(known[name], folder, progress_on()) if is_known else local(Path(name))
    return found


def _thinking(way: Way) -> Thinking | None:
    """llama.cpp's chat template can be asked; what the operator states wins."""
    return None if way.reasoning == "auto" and way.deployment.engine == "llama" else way.reasoning


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
