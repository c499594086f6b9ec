"""What is true of every request: its id, its time, its path in one form, OPTIONS, cross-origin headers."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import paths
from .cors import Cors, Headers
from .request import header

# A client's own id goes back as it came, where it is one: OpenAI takes up to 512 ASCII characters.
_OWN_ID = re.compile(r"[A-Za-z0-9._:/=+@-]{1,128}")


class Entrance:
    """What is served now; a reload puts another application in its place, requests under way keep theirs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        await self.app(scope, receive, send)


class Front:
    """The outermost application: middleware, and nothing that knows of keys, models or limits."""

    def __init__(
        self, app: ASGIApp, routes: Sequence[BaseRoute], cors: Cors, is_draining: Callable[[], bool]
    ) -> None:
        self._app = app
        self._cors = cors
        self._is_draining = is_draining
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, receive, send, self._cors, self._is_draining)
        if scope["method"] == "OPTIONS":
            methods = paths.methods(self.routes, scope)
            if methods:
                await request.answer_options(methods)
                return
        await self._app(scope, request.receive, request.send)


class _Request:
    """One request on its way in, and the headers that its answer carries."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, cors: Cors, is_draining: Callable[[], bool]
    ) -> None:
        self._is_draining = is_draining
        self._scope = scope
        self._receive = receive
        self._send = send
        self._cors = cors
        self._began_at = time.perf_counter()
        self._id = new_id()
        self._origin = header(scope, b"origin")
        # A client that was not told to go on may leave its body out, and then nobody knows where it ends.
        self._awaits_continue = header(scope, b"expect").lower() == "100-continue"
        scope["state"] = {**scope.get("state", {}), "request_id": self._id, "path": scope["path"]}
        scope["path"] = paths.plain(scope["path"])

    async def receive(self) -> Message:
        """A message of the client's."""
        self._awaits_continue = False
        return await self._receive()

    async def send(self, message: Message) -> None:
        """A message to the client."""
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *self._headers()]
        await self._send(message)

    async def answer_options(self, methods: Sequence[str]) -> None:
        """204 and what may be asked of this path (RFC 9110, 9.3.7); to a preflight, whether its page may."""
        headers: Headers = [(b"allow", ", ".join(methods).encode())]
        if header(self._scope, b"access-control-request-method"):
            asked = header(self._scope, b"access-control-request-headers")
            headers += self._cors.preflight(self._origin, methods, asked)
        else:
            headers += self._cors.answer(self._origin)
        start = {"type": "http.response.start", "status": 204, "headers": [*headers, *self._own_headers()]}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": b""})

    def _headers(self) -> Headers:
        return [*self._own_headers(), *self._cors.answer(self._origin)]

    def _own_headers(self) -> Headers:
        spent_ms = int((time.perf_counter() - self._began_at) * 1000)
        headers = [
            (b"x-request-id", self._id.encode()),
            (b"openai-processing-ms", str(spent_ms).encode()),
        ]
        own_id = header(self._scope, b"x-client-request-id") or header(self._scope, b"x-request-id")
        if _OWN_ID.fullmatch(own_id):
            headers.append((b"x-client-request-id", own_id.encode()))
        if self._awaits_continue or self._is_draining():  # a kept connection would only lead to a refusal
            headers.append((b"connection", b"close"))
        return headers


def new_id() -> str:
    """A request id: `req_` and 96 random bits."""
    return f"req_{os.urandom(12).hex()}"
