"""`/v1/batches`: none of these calls a model; the runner does, in the background."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from scibox.core.errors import SciBoxError
from scibox.core.types import Key
from scibox.service.batches import Batches
from scibox.service.pipeline import Pipeline
from scibox.wire.stored import batches as wire
from scibox.wire.stored import pages

from .marks import fields_of
from .request import bearer, explain, read_json

LISTED, MOST_LISTED = 20, 100


class BatchRoutes:
    """The endpoints; every one needs a key and shows the batches of its owner."""

    def __init__(self, pipeline: Pipeline, batches: Batches, max_body_bytes: int) -> None:
        self._pipeline = pipeline
        self._batches = batches
        self._max_body_bytes = max_body_bytes

    def routes(self) -> list[BaseRoute]:
        """Where they are."""
        one = "/batches/{batch_id}"
        return [
            Route("/batches", self.create, methods=["POST"]),
            Route("/batches", self.list),
            Route(one, self.get),
            Route(f"{one}/cancel", self.cancel, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        """Accept a batch."""
        key = await self._key(request)
        raw = await read_json(request.scope, request.receive, self._max_body_bytes)
        try:
            asked = wire.parse(raw, self._batches.endpoints)
        except SciBoxError as error:
            raise explain(fields_of(request.scope["headers"]), error) from error
        return _json(wire.render(await self._batches.create(key, asked)))

    async def list(self, request: Request) -> Response:
        """The owner's batches."""
        owner = (await self._key(request)).owner
        page = pages.parse(request.query_params, LISTED, MOST_LISTED)
        batches, has_more = await self._batches.list(owner, page)
        return _json(wire.render_list(batches, has_more))

    async def get(self, request: Request) -> Response:
        """One batch."""
        owner = (await self._key(request)).owner
        return _json(wire.render(await self._batches.get(owner, str(request.path_params["batch_id"]))))

    async def cancel(self, request: Request) -> Response:
        """Stop one batch."""
        owner = (await self._key(request)).owner
        return _json(wire.render(await self._batches.cancel(owner, str(request.path_params["batch_id"]))))

    async def _key(self, request: Request) -> Key:
        return await self._pipeline.enter(bearer(request.scope))


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
