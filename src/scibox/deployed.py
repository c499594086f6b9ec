"""The models of a configuration as routes: their replicas, and the children of ours that serve them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from scibox.config import Model
from scibox.core.conditions import Condition
from scibox.core.types import ModelCard
from scibox.engines.supervisor import EngineEvent, Supervisor
from scibox.plans import Plan, Way
from scibox.router import replica as router
from scibox.router.replica import Replica, Route
from scibox.standing import Standing, rules, stand
from scibox.wire.admin.replicas import AdminReplica, State


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
        self._standing |= {way: stand(way, self._socket(), self._report) for way in added}
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
        """Every replica that takes calls or has some left, as operators see it."""
        found = [
            self._member(way, index)
            for name in self.plan.deployments
            for index, ways in enumerate(self.plan.deployments[name])
            for way in ways
        ]
        wanted = set(self.plan)
        leaving = [
            way
            for way, standing in self._standing.items()
            if way not in wanted and self._running(way, standing.replica)
        ]
        return found + [self._member(way, None) for way in leaving]

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
        others, hedge_after_s = model.fallback_models, model.hedge_after_s
        return Route(card, deployments, rules(model, ways), others, hedge_after_s, model.resume)

    def _socket(self) -> Path:
        return self._sockets / f"{next(self._numbers)}.sock"
