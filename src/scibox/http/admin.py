"""`/admin/v1`: what operators do with owners, keys and limits. Nobody else is answered (PROMISES K3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from scibox.core.errors import Forbidden
from scibox.service.admin import Admin
from scibox.service.pipeline import Pipeline
from scibox.wire.admin import keys as wire

from .request import bearer

PREFIX = "/admin/v1"
Handle = Callable[[Request], Awaitable[Response]]
Line = tuple[str, str, Handle]  # method, path below `PREFIX`, what answers


def operator_only(pipeline: Pipeline, lines: Iterable[Line]) -> list[BaseRoute]:
    """Routes under /admin/v1: whatever stands there is asked only after the check, whoever adds it."""
    return [
        Route(f"{PREFIX}{path}", _checked(pipeline, handle), methods=[method])
        for method, path, handle in lines
    ]


def _checked(pipeline: Pipeline, handle: Handle) -> Handle:
    async def answer(request: Request) -> Response:
        key = pipeline.enter(bearer(request.scope))
        if key.role != "operator":
            raise Forbidden(
                "This is for operators, and your key is a member's; GET /v1/key says what it may do. Whoever "
                "runs the service makes an operator's key with: scibox keys create NAME --operator"
            )
        return await handle(request)

    return answer


class AdminRoutes:
    """Owners and keys."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def lines(self) -> list[Line]:
        """Where they are; for `operator_only`."""
        return [("GET", "/keys", self.list_keys)]

    async def list_keys(self, request: Request) -> Response:
        """The keys, newest first."""
        asked = wire.parse_list(request.query_params)
        keys, has_more = await self._admin.keys(asked)
        return _json(wire.render_list(keys, has_more, self._admin.now()))


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
