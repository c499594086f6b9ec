"""Public names to routes: what `GET /v1/models` lists and where a call's model leads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from scibox.core.errors import InvalidRequest, ModelNotFound
from scibox.core.names import nearest
from scibox.core.types import Call, Key, Kind, ModelCard
from scibox.router.replica import Route

_ENDPOINT: Mapping[Kind, str] = {
    "chat": "/v1/chat/completions",
    "embedding": "/v1/embeddings",
    "rerank": "/v1/rerank",
}
# Which kinds of models can do a kind of call: vectors rank and score by their angle.
_ABLE: Mapping[Kind, frozenset[Kind]] = {
    "chat": frozenset({"chat"}),
    "embedding": frozenset({"embedding"}),
    "rerank": frozenset({"rerank", "embedding"}),
}
_SHOWN = 20  # names in an error message


class Directory:
    """Models and their aliases, in the order of the configuration.

    `former` is the directory before it: calls still wait for models that only that one has.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        aliases: Mapping[str, str],
        upstream_slots: int = 128,
        former: Directory | None = None,
    ) -> None:
        self._upstream_slots = upstream_slots
        self._routes = {route.card.name: route for route in routes}
        self._aliases = aliases
        self._ever: dict[str, Route] = (former._ever if former else {}) | self._routes

    def slots(self, model: str) -> list[int]:
        """Calls that each deployment of a model answers at the same time, as far as is known now.

        Where every replica is being drained calls are told so at once, instead of waiting for nobody.
        """
        deployments = self._ever[model].deployments
        slots = [deployment.slots(self._upstream_slots) for deployment in deployments]
        return slots if any(slots) else [self._upstream_slots] * len(deployments)

    @property
    def names(self) -> Collection[str]:
        """The models' own public names, without aliases: what keys are allowed."""
        return self._routes.keys()

    @property
    def originals(self) -> list[ModelCard]:
        """The models as they are configured, without aliases."""
        return [route.card for route in self._routes.values()]

    def cards(self, key: Key) -> list[ModelCard]:
        """What this key may use: models first, then aliases, each as a model of its own with a `root`."""
        models = [route.shown for route in self._routes.values()]
        aliases = [
            replace(self._routes[root].shown, name=alias, root=root) for alias, root in self._aliases.items()
        ]
        return [card for card in models + aliases if key.may_use(card.root or card.name)]

    def card(self, key: Key, name: str) -> ModelCard:
        """One model or alias by its name."""
        for card in self.cards(key):
            if card.name == name:
                return card
        raise self._unknown(key, name)

    def route(self, key: Key, call: Call) -> Route:
        """Where a call goes; refuses a model that this key may not use or that does another kind of work."""
        route = self._find(key, call.model)
        if route.card.kind not in _ABLE[call.kind]:
            raise self._unable(key, call, route.card)
        return route

    def others(self, key: Key, route: Route) -> list[str]:
        """What the key may use instead: models of the same kind that are not known to be ill."""
        return [
            name
            for name, other in self._routes.items()
            if other is not route
            and other.card.kind == route.card.kind
            and key.may_use(name)
            and any(replica.is_usable for replica in other.replicas)
        ]

    def splitting_route(self, key: Key, name: str) -> Route:
        """Where a model's tokenizer is asked; refuses a model whose servers have none that can be."""
        route = self._find(key, name)
        if not route.has_tokenizer:
            able = [
                card.name for card in self.cards(key) if self._routes[card.root or card.name].has_tokenizer
            ]
            raise InvalidRequest(
                f"The server of '{name}' has no tokenizer that can be asked. "
                f"Models that have one: {', '.join(able[:_SHOWN]) or 'none'}.",
                param="model",
                code="tokenizer_not_available",
            )
        return route

    def _find(self, key: Key, name: str) -> Route:
        route = self._routes.get(self._aliases.get(name, name))
        if route is None or not key.may_use(route.card.name):
            raise self._unknown(key, name)
        return route

    def _unable(self, key: Key, call: Call, card: ModelCard) -> InvalidRequest:
        able = [other.name for other in self.cards(key) if other.kind in _ABLE[call.kind]]
        hint = f"Models that can: {', '.join(able[:_SHOWN])}." if able else "No model of this key can."
        return InvalidRequest(
            f"'{call.model}' serves {_ENDPOINT[card.kind]}, not /v1{call.path}. {hint}",
            param="model",
            code="wrong_kind_of_model",
        )

    def _unknown(self, key: Key, name: str) -> ModelNotFound:
        names = [card.name for card in self.cards(key)]
        close = nearest(name, names)
        hint = f" Did you mean '{close}'?" if close else ""
        more = f" and {len(names) - _SHOWN} more (GET /v1/models)" if len(names) > _SHOWN else ""
        listed = ", ".join(names[:_SHOWN]) or "none"
        return ModelNotFound(
            f"There is no model '{name[:100]}' for this key.{hint} Its models: {listed}{more}.", param="model"
        )
