"""The replicas of a worker's routes, as the main process tells them while the service runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from .replica import Deployment, Replica, Route


class Served(Struct, frozen=True):
    """By which replicas a model is served, deployment by deployment."""

    model: str
    deployments: tuple[tuple[Replica, ...], ...]


class News(Struct, frozen=True):
    """What holds from now on; `number` is told back by who has followed."""

    number: int
    models: tuple[Served, ...]


class Followed(Struct, frozen=True):
    """How far a worker has followed, and the calls that its replicas have of it, by their ids."""

    number: int = 0
    running: Mapping[str, int] = {}


def told(number: int, routes: Iterable[Route]) -> News:
    """What to say of these routes."""
    return News(
        number,
        tuple(
            Served(route.card.name, tuple(deployment.replicas for deployment in route.deployments))
            for route in routes
        ),
    )


class Follower:
    """Keeps the routes of this process as they are told, and what it knows of replicas that stay."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = {route.card.name: route for route in routes}
        self._leaving: list[Replica] = []
        self._number = 0

    @property
    def replicas(self) -> list[Replica]:
        """Those that answer now."""
        return [replica for route in self._routes.values() for replica in route.replicas]

    def follow(self, news: News) -> None:
        """These hold from now on. Without an `await`, so that no call sees half of it."""
        for served in news.models:
            if (route := self._routes.get(served.model)) is not None:
                self._serve(route, served)
        self._number = max(self._number, news.number)

    def followed(self) -> Followed:
        """What the main process should know."""
        self._leaving = [replica for replica in self._leaving if replica.in_flight]
        running: dict[str, int] = {}
        for replica in (*self.replicas, *self._leaving):
            if replica.in_flight:
                running[replica.id] = running.get(replica.id, 0) + replica.in_flight
        return Followed(self._number, running)

    def cut(self, replica_id: str) -> None:
        """End the calls that this process has there."""
        for replica in (*self.replicas, *self._leaving):
            if replica.id == replica_id:
                replica.cut()

    def _serve(self, route: Route, served: Served) -> None:
        before = {replica.id: replica for replica in route.replicas}
        deployments = tuple(
            Deployment(tuple(_same(before.get(one.id), one) for one in own)) for own in served.deployments
        )
        route.serve_by(deployments)
        stay = {id(replica) for replica in route.replicas}
        for gone in before.values():
            if id(gone) not in stay:
                gone.is_draining = True
                self._leaving.append(gone)


def _same(known: Replica | None, told: Replica) -> Replica:
    """The one that this process has already, with what it knows of it; another child has another address."""
    if known is None or (known.address, known.model, known.secret) != (told.address, told.model, told.secret):
        return told
    known.is_draining = told.is_draining
    return known
