"""`/admin/v1/replicas`: what operators do with replicas while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from scibox.core.events import Emit, Notice
from scibox.core.types import Key
from scibox.service.replicas import Fleet
from scibox.wire.admin import replicas as wire

from .admin import MOST_BYTES, Line
from .request import read_json

T = TypeVar("T")


class ReplicaRoutes:
    """List, add, drain, remove."""

    def __init__(self, fleet: Fleet, emit: Emit) -> None:
        self._fleet = fleet
        self._emit = emit
        self._changing: set[asyncio.Task[Any]] = set()  # Any: of any result

    def lines(self) -> list[Line]:
        """Where they are; for `operator_only`."""
        one = "/replicas/{replica_id}"
        return [
            ("GET", "/replicas", self.list_replicas),
            ("POST", "/replicas", self.add),
            ("PATCH", one, self.change),
            ("DELETE", one, self.remove),
        ]

    async def list_replicas(self, request: Request) -> Response:
        """All of them."""
        return _json(wire.render(await self._fleet.listed()))

    async def add(self, request: Request) -> Response:
        """One more replica of a model."""
        asked = wire.parse_new(await read_json(request.scope, request.receive, MOST_BYTES))
        return _json(
            wire.render(
                await self._change(request, f"added a replica of {asked.model}", self._fleet.add(asked))
            )
        )

    async def change(self, request: Request) -> Response:
        """Drain it, or give it calls again."""
        asked = wire.parse_change(await read_json(request.scope, request.receive, MOST_BYTES))
        name, what = _id(request), "drained" if asked.draining else "undrained"
        work = self._fleet.drain(name, asked.draining, asked.force)
        return _json(wire.render(await self._change(request, f"{what} the replica {name}", work)))

    async def remove(self, request: Request) -> Response:
        """Drain it for good."""
        now, force = wire.parse_remove(request.query_params)
        name = _id(request)
        work = self._fleet.remove(name, now, force)
        return _json(wire.render(await self._change(request, f"removed the replica {name}", work)))

    async def _change(self, request: Request, what: str, work: Coroutine[Any, Any, T]) -> T:
        """Do it to its end, whether its client stays or not, and say in the log who did it."""
        task = asyncio.create_task(work)
        self._changing.add(task)
        task.add_done_callback(self._changing.discard)
        result = await asyncio.shield(task)
        by: Key = request.scope["state"]["operator"]
        self._emit(Notice(f"{by.key_id} of {by.owner} {what}"))
        return result


def _id(request: Request) -> str:
    return str(request.path_params["replica_id"])


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
