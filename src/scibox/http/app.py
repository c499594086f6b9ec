"""The door: which path leads where, and one shape for every error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from scibox.core.errors import InvalidRequest, MethodNotAllowed, NotFound, SciBoxError
from scibox.core.events import Emit, Notice
from scibox.gate.repeats import Repeats
from scibox.service.batches import Batches
from scibox.service.files import Files
from scibox.service.office import Office
from scibox.service.pipeline import Pipeline
from scibox.service.replicas import Fleet
from scibox.service.status import Status
from scibox.service.usage import Usage
from scibox.wire import errors
from scibox.wire.document import openapi
from scibox.wire.face import Face
from scibox.wire.faces import FACES

from . import paths
from .admin import AdminRoutes, operator_only
from .batches import BatchRoutes
from .calls import Calls
from .cors import Cors
from .ending import Ending
from .files import FileRoutes
from .front import Front
from .info import Info
from .key import KeyRoutes
from .replicas import ReplicaRoutes
from .request import ClientGone
from .respond import error_headers, request_id
from .running import Reload, RunningRoutes
from .splitting import Splitting
from .usage import UsageRoutes

STATIC = Path(__file__).parent / "static" / "swagger"
# Everything comes from this server; Swagger UI draws its icons from data: addresses.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Door:
    """What the door needs to know. `ending` ends all calls; `reload` takes over a changed configuration."""

    pipeline: Pipeline
    files: Files
    batches: Batches
    office: Office
    usage: Usage
    emit: Emit
    status: Status
    reload: Reload
    fleet: Fleet
    ending: Ending
    repeats: Repeats
    heartbeat_s: float
    max_body_bytes: int
    cors_origins: Sequence[str] = ("*",)
    may_rotate: bool = False


def build(door: Door) -> Front:
    """The ASGI application."""
    routes = [*api(door), *_pages(door)]
    known = sorted(paths.shown(route) for route in routes if isinstance(route, Route))

    def refuse(request: Request, error: Exception) -> Response:
        answer = _render(request, _translate(request, error, known))
        if answer.status_code == 405:
            answer.headers["allow"] = ", ".join(paths.methods(routes, request.scope))
        return answer

    def crash(request: Request, error: Exception) -> Response:
        door.emit(Notice(f"{request.method} {_path(request)} failed: {error!r}", is_warning=True))
        failure = SciBoxError("The service failed; try again, and give the operator the x-request-id.")
        answer = _render(request, failure)
        answer.headers["connection"] = "close"  # the server closes after a crash: the client must know
        return answer

    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: refuse,
            SciBoxError: refuse,
            ClientGone: lambda _, __: Response(status_code=499),  # to nobody
            Exception: crash,
        },
    )
    app.router.redirect_slashes = False
    return Front(
        app,
        routes,
        calls(door),
        Cors(door.cors_origins),
        lambda: door.status.is_draining or door.status.is_leaving,
    )


def calls(door: Door) -> dict[str, Calls]:
    """The endpoints that ask a model, by their path."""

    def endpoint(path: str, face: Face) -> Calls:
        return Calls(
            path,
            face,
            door.pipeline,
            door.emit,
            door.ending,
            repeats=door.repeats,
            heartbeat_s=door.heartbeat_s,
            max_body_bytes=door.max_body_bytes,
        )

    found = {path: endpoint(path, face) for path, face in FACES.items()}
    return {**found, "/v2/rerank": endpoint("/rerank", FACES["/rerank"])}  # Cohere's clients


def _elsewhere(_: Request) -> Response:
    """A POST to an endpoint of `calls` is not asked by ASGI: its connection asks it itself."""
    raise NotFound("There is nothing at this form of the path; the API is described at /.")


def api(door: Door) -> list[BaseRoute]:
    """The API, a line for each path and method; `paths.py` says in what other forms they may be written."""
    info = Info(door.pipeline, door.status)
    usage = UsageRoutes(door.pipeline, door.usage)
    running = RunningRoutes(door.status, door.reload)
    splitting = Splitting(door.pipeline, door.ending, door.max_body_bytes)
    return [
        *(Route(path, _elsewhere, methods=["POST"]) for path in [*FACES, "/v2/rerank"]),
        *FileRoutes(door.pipeline, door.files).routes(),
        *BatchRoutes(door.pipeline, door.batches, door.max_body_bytes).routes(),
        Route("/responses/{id:path}", info.response, methods=["GET", "DELETE"]),
        Route("/messages/count_tokens", splitting.count, methods=["POST"]),
        Route("/tokenize", splitting.tokenize, methods=["POST"]),
        Route("/detokenize", splitting.detokenize, methods=["POST"]),
        Route("/models", info.models),
        Route("/models/{name:path}", info.model),
        Route("/key", info.key),
        Route("/queue", info.queue),
        *KeyRoutes(door.pipeline, door.office, door.emit, may_rotate=door.may_rotate).routes(),
        Route("/health", info.health),
        Route("/ready", info.ready),
        *usage.routes(),
        *operator_only(
            door.pipeline,
            [
                *AdminRoutes(door.office, door.emit).lines(),
                *ReplicaRoutes(door.fleet, door.emit).lines(),
                *usage.lines(),
                *running.lines(),
            ],
        ),
    ]


def _pages(door: Door) -> list[BaseRoute]:
    """Swagger UI at `/` and the document that it shows."""
    document = openapi.render(door.status.version)
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


def _translate(request: Request, error: Exception, known: Sequence[str]) -> SciBoxError:
    """Starlette's errors in our words."""
    if isinstance(error, SciBoxError):
        return error
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = _path(request)
    if status == 404:
        hint = paths.hint(path, known)
        return NotFound(f"There is nothing at {path[:200]}.{hint} The API is described at /.")
    if status == 405:
        return MethodNotAllowed(f"{request.method} is not for {path[:200]}; see / for the method that is.")
    if status < 500:
        return InvalidRequest("The request could not be read; see / for what it should be.")
    return SciBoxError("The service failed; try again, and give the operator the x-request-id.")


def _path(request: Request) -> str:
    """The path as the client wrote it."""
    return str(request.scope["state"]["path"])


def _render(request: Request, error: SciBoxError) -> Response:
    headers = {name.decode(): value.decode() for name, value in error_headers(error)}
    path = request.scope["path"]
    face = next((face for place, face in FACES.items() if path.startswith(place)), None)
    body = face.error(error, request_id(request.scope)) if face else errors.render(error)
    return Response(body, error.status, headers, media_type="application/json")
