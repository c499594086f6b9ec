"""The free endpoints: models, who am I, health. None of them counts, queues or touches a replica."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from scibox.core.errors import NotFound
from scibox.service.pipeline import Pipeline
from scibox.service.status import Status
from scibox.wire import info, waiting

from .request import bearer

RETRY_AFTER_S = 5  # of /ready; load balancers ask about as often


class Info:
    """Answers about the service itself."""

    def __init__(self, pipeline: Pipeline, status: Status) -> None:
        self._pipeline = pipeline
        self._status = status

    async def health(self, request: Request) -> Response:
        """Whether the service lives; needs no key. Only a deadlock makes it fail."""
        return _json(info.render_health(self._status.state, self._status.version))

    async def ready(self, request: Request) -> Response:
        """Whether a call with a good key would be answered; needs no key."""
        hurdles = self._status.hurdles()
        if not hurdles:
            return _json(info.render_readiness(hurdles))
        headers = {"retry-after": str(RETRY_AFTER_S)}
        return Response(info.render_readiness(hurdles), 503, headers, media_type="application/json")

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
