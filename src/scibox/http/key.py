"""`/v1/key` for the holder of a secret: revoke it, wherever it has turned up; renew it, if allowed."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from scibox.core.errors import Forbidden
from scibox.core.events import Emit, Notice
from scibox.service.office import Office
from scibox.service.pipeline import Pipeline
from scibox.wire import info
from scibox.wire.admin import keys as wire

from .info import iso
from .request import bearer, read_json

MOST_BYTES = 2**16


class KeyRoutes:
    """What holders do with their keys. `may_rotate`: whether the operator allows new secrets."""

    def __init__(self, pipeline: Pipeline, office: Office, emit: Emit, *, may_rotate: bool) -> None:
        self._pipeline = pipeline
        self._office = office
        self._emit = emit
        self._may_rotate = may_rotate

    def routes(self) -> list[BaseRoute]:
        """Where they are."""
        return [
            Route("/key", self.revoke, methods=["DELETE"]),
            Route("/key/rotate", self.rotate, methods=["POST"]),
        ]

    async def revoke(self, request: Request) -> Response:
        """End the key of this secret for ever; also one that is revoked, has expired or is disabled."""
        key = await self._pipeline.holder(bearer(request.scope))
        await self._office.change(self._office.admin.give_up, key)
        self._emit(Notice(f"{key.key_id} of {key.owner} was revoked by whoever has its secret"))
        return _json(info.render_revoked(key))

    async def rotate(self, request: Request) -> Response:
        """A new secret for the same key."""
        key = await self._pipeline.enter(bearer(request.scope))
        if not self._may_rotate:
            raise Forbidden(
                "Only operators rotate keys here (the setting gate.holders_rotate is off); ask for a new "
                "secret. If yours has leaked, revoke it at once: DELETE /v1/key."
            )
        overlap_s = wire.parse_rotate(await read_json(request.scope, request.receive, MOST_BYTES))
        made = await self._office.change(self._office.admin.rotate, key.key_id, overlap_s)
        self._emit(Notice(f"{key.key_id} of {key.owner} was rotated by its holder"))
        assert made.secret is not None
        return _json(info.render_rotated(key.key_id, made.secret, iso(made.old_until or 0.0)))


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
