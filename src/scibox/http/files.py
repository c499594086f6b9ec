"""`/v1/files`: uploads go to disk piece by piece, downloads come from it so."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from scibox.core.errors import InvalidRequest
from scibox.service.files import Content, Files, too_large
from scibox.service.pipeline import Pipeline
from scibox.wire.stored import files as wire
from scibox.wire.stored import pages
from scibox.wire.stored.multipart import OVERHEAD_BYTES, Form

from .marks import fields_of
from .request import ClientGone, bearer, refuse_packed

MOST_LISTED = 10_000


class FileRoutes:
    """The endpoints; every one needs a key and shows the files of its owner."""

    def __init__(self, pipeline: Pipeline, files: Files) -> None:
        self._pipeline = pipeline
        self._files = files

    def routes(self) -> list[BaseRoute]:
        """Where they are."""
        one = "/files/{file_id}"
        return [
            Route("/files", self.create, methods=["POST"]),
            Route("/files", self.list),
            Route(one, self.get),
            Route(one, self.delete, methods=["DELETE"]),
            Route(f"{one}/content", self.content),
        ]

    async def create(self, request: Request) -> Response:
        """Store a file."""
        owner = await self._owner(request)
        limit = self._files.limits.max_file_bytes
        refuse_packed(fields_of(request.scope["headers"]))
        if int(request.headers.get("content-length", 0)) > limit + OVERHEAD_BYTES:
            raise too_large(limit)
        form = Form(request.headers.get("content-type", ""))
        async with aclosing(_pieces(request, form, limit + OVERHEAD_BYTES)) as pieces:
            file = await self._files.receive(owner, pieces, lambda: wire.parse(form))
        return _json(wire.render(file))

    async def list(self, request: Request) -> Response:
        """The owner's files."""
        owner = await self._owner(request)
        query = request.query_params
        page = pages.parse(query, MOST_LISTED, MOST_LISTED, ("order", "purpose"))
        files, has_more = await self._files.list(owner, page, query.get("purpose") or None)
        return _json(wire.render_list(files, has_more))

    async def get(self, request: Request) -> Response:
        """One file."""
        return _json(wire.render(await self._files.get(await self._owner(request), _file_id(request))))

    async def delete(self, request: Request) -> Response:
        """Remove one file."""
        file_id = _file_id(request)
        await self._files.remove(await self._owner(request), file_id)
        return _json(wire.render_deleted(file_id))

    async def content(self, request: Request) -> Response:
        """The bytes of one file; a browser must not make anything of them."""
        return _Download(await self._files.content(await self._owner(request), _file_id(request)))

    async def _owner(self, request: Request) -> str:
        return (await self._pipeline.enter(bearer(request.scope))).owner


class _Download(StreamingResponse):
    """A stored file on its way; closed however that ends."""

    def __init__(self, content: Content) -> None:
        headers = {
            "content-length": str(content.file.size_bytes),
            "content-disposition": wire.disposition(content.file.name),
            "x-content-type-options": "nosniff",
        }
        self._content = content
        self._blocks = content.blocks()
        super().__init__(self._blocks, headers=headers, media_type="application/octet-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            async with aclosing(self._blocks):
                await super().__call__(scope, receive, send)
        finally:
            self._content.close()


async def _pieces(request: Request, form: Form, limit_bytes: int) -> AsyncGenerator[bytes, None]:
    """The content of the form's file as it comes; the form is whole at the end."""
    size = 0
    try:
        async for received in request.stream():
            size += len(received)
            if size > limit_bytes:
                raise InvalidRequest("The form has too much beside its file.", code="malformed_form")
            if content := form.feed(received):
                yield content
    except ClientDisconnect:
        raise ClientGone from None
    form.close()


def _file_id(request: Request) -> str:
    return str(request.path_params["file_id"])


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
