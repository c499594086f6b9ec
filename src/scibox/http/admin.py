"""`/admin/v1`: what operators do with owners, keys and limits. Nobody else is answered (PROMISES K3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from scibox.core.errors import Forbidden
from scibox.core.events import Emit, Notice
from scibox.core.types import Key
from scibox.service.office import Office
from scibox.service.pipeline import Pipeline
from scibox.wire.admin import keys as wire
from scibox.wire.admin import owners, table

from .marks import fields_of
from .request import bearer, header, read_body, read_json

T = TypeVar("T")
PREFIX = "/admin/v1"
MOST_BYTES = 4 * 2**20  # of a body: ten thousand keys
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
        key = await pipeline.enter(bearer(request.scope))
        if key.role != "operator":
            raise Forbidden(
                "This is for operators, and your key is a member's; GET /v1/key says what it may do. Whoever "
                "runs the service makes an operator's key with: scibox keys create NAME --operator"
            )
        request.scope["state"]["operator"] = key
        return await handle(request)

    return answer


class AdminRoutes:
    """Owners and keys."""

    def __init__(self, office: Office, emit: Emit) -> None:
        self._office = office
        self._admin = office.admin
        self._emit = emit

    def lines(self) -> list[Line]:
        """Where they are; for `operator_only`."""
        owner, key = "/owners/{name:path}", "/keys/{key_id}"
        return [
            ("GET", "/owners", self.list_owners),
            ("POST", "/owners", self.create_owner),
            ("GET", owner, self.get_owner),
            ("POST", owner, self.change_owner),
            ("DELETE", owner, self.delete_owner),
            ("GET", "/keys", self.list_keys),
            ("POST", "/keys", self.create_key),
            ("POST", "/keys/bulk", self.create_keys),
            ("GET", key, self.get_key),
            ("POST", key, self.change_key),
            ("POST", f"{key}/rotate", self.rotate_key),
            ("POST", f"{key}/revoke", self.revoke_key),
        ]

    async def list_owners(self, request: Request) -> Response:
        """The owners, newest first."""
        page = owners.parse_list(request.query_params)
        listed, keys, has_more = await self._office.ask(self._admin.owners, page)
        return _json(owners.render_list(listed, keys, has_more))

    async def create_owner(self, request: Request) -> Response:
        """Make an owner."""
        asked = owners.parse_new(await _body(request), self._admin.now())
        owner = await self._change(request, f"made the owner {asked.name}", self._admin.add_owner, asked)
        return _json(owners.render(owner, 0))

    async def get_owner(self, request: Request) -> Response:
        """One owner."""
        return _json(owners.render(*await self._office.ask(self._admin.owner, _owner(request))))

    async def change_owner(self, request: Request) -> Response:
        """Change an owner's weight, limits or note."""
        name, change = _owner(request), owners.parse_change(await _body(request))
        changed = await self._change(
            request, f"changed the owner {name}", self._admin.change_owner, name, change
        )
        return _json(owners.render(*changed))

    async def delete_owner(self, request: Request) -> Response:
        """Forget an owner that has no keys left."""
        name = _owner(request)
        await self._change(request, f"removed the owner {name}", self._admin.remove_owner, name)
        return _json(owners.render_deleted(name))

    async def list_keys(self, request: Request) -> Response:
        """The keys, newest first."""
        asked = wire.parse_list(request.query_params)
        keys, has_more = await self._office.ask(self._admin.keys, asked)
        return _json(wire.render_list(keys, has_more, self._admin.now()))

    async def create_key(self, request: Request) -> Response:
        """Make a key."""
        draft = wire.parse_new(await _body(request), self._admin.now())
        made = await self._change(request, f"made a key of {draft.owner}", self._admin.create, draft)
        return _json(wire.render(made, self._admin.now()))

    async def create_keys(self, request: Request) -> Response:
        """Make many keys, from JSON or from a table: all of them or none."""
        now, again = self._admin.now(), wire.parse_again(request.query_params)
        if (
            header(fields_of(request.scope["headers"]), b"content-type").partition(";")[0].strip().lower()
            == "text/csv"
        ):
            raw = await read_body(request.scope, request.receive, MOST_BYTES)
            drafts = [*table.parse(raw, now).drafts]
        else:
            drafts, is_asked = wire.parse_bulk(await _body(request), now)
            again = again or is_asked
        made = await self._change(
            request, f"made keys of a table of {len(drafts)}", self._admin.create_many, drafts, again
        )
        return _json(wire.render_bulk(made.keys, made.skipped, now))

    async def get_key(self, request: Request) -> Response:
        """One key."""
        key = await self._office.ask(self._admin.key, _key_id(request))
        return _json(wire.render(key, self._admin.now()))

    async def change_key(self, request: Request) -> Response:
        """Change a key's name, role, expiry, models or limits; enable or disable it."""
        key_id = _key_id(request)
        change, force = wire.parse_change(await _body(request), self._admin.now())
        key = await self._change(
            request, f"changed the key {key_id}", self._admin.change, key_id, change, force
        )
        return _json(wire.render(key, self._admin.now()))

    async def rotate_key(self, request: Request) -> Response:
        """Give a key a new secret."""
        key_id, overlap_s = _key_id(request), wire.parse_rotate(await _body(request))
        key = await self._change(request, f"rotated the key {key_id}", self._admin.rotate, key_id, overlap_s)
        return _json(wire.render(key, self._admin.now()))

    async def revoke_key(self, request: Request) -> Response:
        """End a key for ever."""
        key_id, force = _key_id(request), wire.parse_revoke(await _body(request))
        key = await self._change(request, f"revoked the key {key_id}", self._admin.revoke, key_id, force)
        return _json(wire.render(key, self._admin.now()))

    async def _change(self, request: Request, what: str, work: Callable[..., T], *arguments: object) -> T:
        """Do it, and say in the log who did what."""
        result = await self._office.change(work, *arguments)
        by: Key = request.scope["state"]["operator"]
        self._emit(Notice(f"{by.key_id} of {by.owner} {what}"))
        return result


async def _body(request: Request) -> bytes:
    return await read_json(request.scope, request.receive, MOST_BYTES)


def _owner(request: Request) -> str:
    return str(request.path_params["name"])


def _key_id(request: Request) -> str:
    return str(request.path_params["key_id"])


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
