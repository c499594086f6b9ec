"""`/v1/usage` for callers, `/admin/v1/usage` for operators: what calls cost, and which failed."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from scibox.service.pipeline import Pipeline
from scibox.service.usage import Usage
from scibox.wire import usage as wire

from .admin import Line
from .request import bearer


class UsageRoutes:
    """The endpoints: a caller sees its owner's calls, an operator all."""

    def __init__(self, pipeline: Pipeline, usage: Usage) -> None:
        self._pipeline = pipeline
        self._usage = usage

    def routes(self) -> list[BaseRoute]:
        """Where callers find them."""
        return [Route("/usage", self.own), Route("/usage/errors", self.own_failed)]

    def lines(self) -> list[Line]:
        """Where operators find them; for `operator_only`."""
        return [("GET", "/usage", self.all), ("GET", "/usage/errors", self.all_failed)]

    async def own(self, request: Request) -> Response:
        """Of the key's owner."""
        return await self._sums(request, await self._owner(request))

    async def own_failed(self, request: Request) -> Response:
        """The last failed calls of the key's owner."""
        return await self._failed(request, await self._owner(request))

    async def all(self, request: Request) -> Response:
        """Of everybody."""
        return await self._sums(request, None)

    async def all_failed(self, request: Request) -> Response:
        """The last failed calls of everybody, or of one owner."""
        return await self._failed(request, None)

    async def _owner(self, request: Request) -> str:
        return (await self._pipeline.enter(bearer(request.scope))).owner

    async def _sums(self, request: Request, owner: str | None) -> Response:
        query = wire.parse(request.query_params.multi_items(), self._usage.now(), owner)
        page = await self._usage.sums(
            query.scope,
            query.dimensions,
            lambda report: wire.render(query, report.rows, is_complete=not report.behind_bytes),
        )
        return _json(page)

    async def _failed(self, request: Request, owner: str | None) -> Response:
        whose, limit = wire.parse_failed(request.query_params.multi_items(), owner)
        calls = await self._usage.failed(whose, limit)
        return _json(
            wire.render_failed(
                wire.FailedCall(
                    id=call.request_id,
                    created_at=int(call.opened_at),
                    api_key_id=call.key_id,
                    model=call.model,
                    endpoint=call.endpoint,
                    outcome=call.outcome,
                    code=call.code or None,
                )
                for call in calls
            )
        )


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
