"""The running service itself, for operators: what is broken, and taking over a changed configuration."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from scibox.core.errors import Conflict, OperatorError
from scibox.service.status import Status
from scibox.wire.admin import status as wire

from .admin import Line

Reload = Callable[[], Awaitable[wire.Reloaded]]


class RunningRoutes:
    """`reload` raises OperatorError where the new configuration cannot be taken over."""

    def __init__(self, status: Status, reload: Reload) -> None:
        self._status = status
        self._reload = reload

    def lines(self) -> list[Line]:
        """Where they are; for `operator_only`."""
        return [("GET", "/status", self.status), ("POST", "/reload", self.reload)]

    async def status(self, request: Request) -> Response:
        """What is broken, in words."""
        return _json(wire.render(await self._status.report()))

    async def reload(self, request: Request) -> Response:
        """Take over the configuration as it is now, whole or not at all."""
        try:
            return _json(wire.render(await self._reload()))
        except OperatorError as error:
            message = f"Nothing has changed, since the configuration cannot be taken over: {error}"
            raise Conflict(message, code="configuration_refused", should_retry=False) from error


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
