"""The free endpoints: models, who am I, health. None of them counts, queues or touches a replica."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from scibox.core.errors import NotFound
from scibox.service.pipeline import Pipeline
from scibox.wire import info, waiting

from .request import bearer

State = Literal["ok", "starting"]


class Info:
    """Answers about the service itself. `state` says "ok" or "starting"."""

    def __init__(self, pipeline: Pipeline, state: Callable[[], State], version: str) -> None:
        self._pipeline = pipeline
        self._state = state
        self._version = version

    async def health(self, request: Request) -> Response:
        """Whether the service lives; needs no key."""
        return _json(info.render_health(self._state(), self._version))

    async def models(self, request: Request) -> Response:
        """The models of this key."""
        key = await self._pipeline.enter(bearer(request.scope))
        return _json(info.render_models(self._pipeline.directory.cards(key)))

    async def model(self, request: Request) -> Response:
        """One model; its name may hold slashes."""
        key = await self._pipeline.enter(bearer(request.scope))
        return _json(info.render_model(self._pipeline.directory.card(key, request.path_params["name"])))

    async def response(self, request: Request) -> Response:
        """One response by its id: none is kept."""
        await self._pipeline.enter(bearer(request.scope))
        raise NotFound(
            "Responses are not kept here: keep what POST /v1/responses answered, and send the whole dialogue "
            "in 'input' next time."
        )

    async def key(self, request: Request) -> Response:
        """Who am I: the key behind this secret."""
        key = await self._pipeline.enter(bearer(request.scope))
        names = [card.name for card in self._pipeline.directory.cards(key)]
        return _json(info.render_key(key, names, await self._pipeline.allowances(key), iso))

    async def queue(self, request: Request) -> Response:
        """The calls of the key's owner that wait or run."""
        key = await self._pipeline.enter(bearer(request.scope))
        return _json(waiting.render_queue(await self._pipeline.places(key)))


def iso(at: float) -> str:
    """Unix seconds as RFC 3339, in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
