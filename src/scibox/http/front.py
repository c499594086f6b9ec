"""What is true of every request: its id, its time, its path in one form, OPTIONS, cross-origin headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import paths
from .cors import Cors, Headers
from .incoming import Handle
from .marks import Fields, Marks, fields_of

MOST_KNOWN = 256  # forms of paths whose meaning is kept; a client can think of any number of them


class Entrance:
    """What is served now; a reload puts another application in its place, requests under way keep theirs."""

    def __init__(self, app: Front) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        await self.app(scope, receive, send)

    @property
    def front(self) -> Front:
        """The application of now."""
        return self.app


class Front:
    """The outermost application: middleware, and nothing that knows of keys, models or limits.

    `calls` are the endpoints that ask a model, by their path: those are not asked by ASGI (`incoming.py`).
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[BaseRoute],
        calls: Mapping[str, Handle],
        cors: Cors,
        is_draining: Callable[[], bool],
    ) -> None:
        self._app = app
        self._calls = calls
        self._known: dict[bytes, tuple[str, Handle]] = {}
        self._cors = cors
        self._is_draining = is_draining
        self.routes = routes

    @property
    def front(self) -> Front:
        """Itself: see `Entrance`."""
        return self

    def find(self, target: bytes) -> tuple[str, Handle] | None:
        """The endpoint that a POST to that target asks, with its path; None for any but those of `calls`."""
        found = self._known.get(target)
        if found is None:
            path = paths.plain(paths.of_target(target))
            handle = self._calls.get(path)
            if handle is None:
                return None
            found = path, handle
            if len(self._known) < MOST_KNOWN:
                self._known[target] = found
        return found

    def marks(self, fields: Fields) -> Marks:
        """What the answer to a request with these headers carries."""
        return Marks(fields, self._cors, self._is_draining)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, receive, send, self.marks(fields_of(scope["headers"])), self._cors)
        if scope["method"] == "OPTIONS":
            methods = paths.methods(self.routes, scope)
            if methods:
                await request.answer_options(methods)
                return
        await self._app(scope, request.receive, request.send)


class _Request:
    """One request by ASGI on its way in."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, marks: Marks, cors: Cors) -> None:
        self._receive = receive
        self._send = send
        self._marks = marks
        self._cors = cors
        scope["state"] = {
            **scope.get("state", {}),
            "request_id": marks.request_id,
            "path": scope["path"],
        }
        scope["path"] = paths.plain(scope["path"])

    async def receive(self) -> Message:
        """A message of the client's."""
        self._marks.awaits_continue = False
        return await self._receive()

    async def send(self, message: Message) -> None:
        """A message to the client."""
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *self._marks.headers()]
        await self._send(message)

    async def answer_options(self, methods: Sequence[str]) -> None:
        """204 and what may be asked of this path (RFC 9110, 9.3.7); to a preflight, whether its page may."""
        headers: Headers = [(b"allow", ", ".join(methods).encode())]
        fields = self._marks.fields
        origin = fields.get(b"origin", b"").decode("latin-1")
        if fields.get(b"access-control-request-method"):
            asked = fields.get(b"access-control-request-headers", b"").decode("latin-1")
            headers += self._cors.preflight(origin, methods, asked)
        else:
            headers += self._cors.answer(origin)
        headers += self._marks.own_headers()
        await self._send({"type": "http.response.start", "status": 204, "headers": headers})
        await self._send({"type": "http.response.body", "body": b""})
