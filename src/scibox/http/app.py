"""The door: which path leads where, an id for every request, one shape for every error."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scibox.core.errors import InvalidRequest, MethodNotAllowed, NotFound, SciBoxError
from scibox.core.events import Emit, Notice
from scibox.core.names import nearest
from scibox.service.pipeline import Pipeline
from scibox.wire import chat, embeddings, errors, openapi
from scibox.wire.face import Face, Plain

from .calls import Calls
from .info import Info, State
from .respond import error_headers

STATIC = Path(__file__).parent / "static" / "swagger"
# Everything comes from this server; Swagger UI draws its icons from data: addresses.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Door:
    """What the door needs to know. `state` says whether every engine is ready; `ending` ends all calls."""

    pipeline: Pipeline
    emit: Emit
    state: Callable[[], State]
    ending: asyncio.Event
    version: str
    heartbeat_s: float
    max_body_bytes: int


def build(door: Door) -> ASGIApp:
    """The ASGI application."""
    routes = [*_api(door, "/v1"), *_api(door, ""), *_pages(door)]
    paths = sorted({route.path for route in routes if isinstance(route, Route)})

    def refuse(request: Request, error: Exception) -> Response:
        return _render(_translate(request, error, paths))

    def crash(request: Request, error: Exception) -> Response:
        door.emit(Notice(f"{request.method} {request.url.path} failed: {error!r}", is_warning=True))
        return _render(SciBoxError("The service failed; try again, and give the operator the x-request-id."))

    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: refuse, SciBoxError: refuse, Exception: crash},
    )
    app.router.redirect_slashes = False
    return RequestIds(app)


def _api(door: Door, prefix: str) -> list[BaseRoute]:
    """The API, with and without `/v1`: half of all wrong addresses miss just that."""
    info = Info(door.pipeline, door.state, door.version)

    def calls(face: Face) -> Calls:
        return Calls(
            face,
            door.pipeline,
            door.emit,
            door.ending,
            heartbeat_s=door.heartbeat_s,
            max_body_bytes=door.max_body_bytes,
        )

    return [
        Route(f"{prefix}/chat/completions", calls(Plain(chat.parse)), methods=["POST"]),
        Route(f"{prefix}/embeddings", calls(Plain(embeddings.parse)), methods=["POST"]),
        Route(f"{prefix}/models", info.models),
        Route(f"{prefix}/models/{{name:path}}", info.model),
        Route(f"{prefix}/key", info.key),
        Route(f"{prefix}/health", info.health),
    ]


def _pages(door: Door) -> list[BaseRoute]:
    """Swagger UI at `/` and the document that it shows."""
    document = openapi.render(door.version)
    index = (STATIC / "index.html").read_bytes()
    security = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff"}

    def swagger(request: Request) -> Response:
        return Response(index, media_type="text/html; charset=utf-8", headers=security)

    def description(request: Request) -> Response:
        return Response(document, media_type="application/json")

    return [
        Route("/", swagger),
        Route("/openapi.json", description),
        Mount("/static/swagger", StaticFiles(directory=STATIC)),
    ]


def _translate(request: Request, error: Exception, paths: Sequence[str]) -> SciBoxError:
    """Starlette's errors in our words."""
    if isinstance(error, SciBoxError):
        return error
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = request.url.path
    if status == 404:
        close = nearest(path, paths)
        hint = f" Did you mean {close}?" if close else ""
        return NotFound(f"There is nothing at {path[:200]}.{hint} The API is described at /.")
    if status == 405:
        return MethodNotAllowed(f"{request.method} is not for {path[:200]}; see / for the method that is.")
    if status < 500:
        return InvalidRequest("The request could not be read; see / for what it should be.")
    return SciBoxError("The service failed; try again, and give the operator the x-request-id.")


def _render(error: SciBoxError) -> Response:
    headers = {name.decode(): value.decode() for name, value in error_headers(error)}
    return Response(errors.render(error), error.status, headers, media_type="application/json")


class RequestIds:
    """Middleware: every request has an id, every answer shows it in `x-request-id`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id()
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        await self._app(scope, receive, send_with_id)


def new_id() -> str:
    """A request id: `req_` and 96 random bits."""
    return f"req_{os.urandom(12).hex()}"
