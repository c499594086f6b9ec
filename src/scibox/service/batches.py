"""Batches of owners: create, look, cancel. The runner does the work. An owner sees nobody else's."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable

from scibox.core import batches as life
from scibox.core.batches import Batch
from scibox.core.errors import InvalidRequest, NotFound
from scibox.core.files import Page
from scibox.core.types import Key
from scibox.store.shelf import NoSuchObject, OverLimit
from scibox.wire.stored.batches import BatchRequest
from scibox.wire.stored.files import PURPOSE

from .files import Files, no_such_file
from .work import Tools

MOST_UNDER_WAY = 100  # batches of one owner that are not over


class Batches:
    """The use cases; `changed` tells the runner to look."""

    def __init__(self, tools: Tools, files: Files, changed: Callable[[], None]) -> None:
        self.endpoints = frozenset(f"/v1{path}" for path in tools.faces)
        self._shelf = tools.shelf
        self._disk = tools.disk
        self._now = tools.now
        self._files = files
        self._changed = changed

    async def create(self, key: Key, request: BatchRequest) -> Batch:
        """Accept a batch; from here on it survives a restart."""
        try:
            file = await self._files.get(key.owner, request.input_file_id)
        except NotFound:
            raise no_such_file(request.input_file_id, "input_file_id") from None
        if file.purpose != PURPOSE:
            raise InvalidRequest(
                f"The file '{file.file_id}' has the purpose '{file.purpose}'; upload one for '{PURPOSE}'.",
                param="input_file_id",
            )
        batch = _new(key, request, self._now())
        try:
            await self._disk.run(self._shelf.add_batch, batch, MOST_UNDER_WAY)
        except NoSuchObject:  # removed in this moment
            raise no_such_file(file.file_id, "input_file_id") from None
        except OverLimit:
            raise InvalidRequest(
                f"You have {MOST_UNDER_WAY} batches that are not over; wait for one, or cancel one.",
                code="too_many_batches",
            ) from None
        self._changed()
        return batch

    async def get(self, owner: str, batch_id: str) -> Batch:
        """One batch."""
        try:
            return await self._disk.run(self._shelf.batch, owner, batch_id)
        except NoSuchObject:
            raise _no_such_batch(batch_id) from None

    async def list(self, owner: str, page: Page) -> tuple[list[Batch], bool]:
        """A page of an owner's batches, and whether more follow."""
        try:
            return await self._disk.run(self._shelf.batches, owner, page)
        except NoSuchObject as error:
            raise _no_such_batch(str(error), "after") from None

    async def cancel(self, owner: str, batch_id: str) -> Batch:
        """Stop a batch; what was done so far stays."""
        change = functools.partial(life.cancel, now=self._now())
        try:
            batch = await self._disk.run(self._shelf.change, owner, batch_id, change)
        except NoSuchObject:
            raise _no_such_batch(batch_id) from None
        self._changed()
        return batch


def _new(key: Key, request: BatchRequest, now: float) -> Batch:
    expiry = request.output_expires_after
    return Batch(
        batch_id=f"batch_{secrets.token_hex(12)}",
        owner=key.owner,
        key_id=key.key_id,
        endpoint=request.endpoint,
        input_file_id=request.input_file_id,
        reserved_output_id=f"file-{secrets.token_hex(12)}",
        reserved_error_id=f"file-{secrets.token_hex(12)}",
        created_at=now,
        expires_at=now + life.WINDOW_S,
        metadata=request.metadata,
        output_lifetime_s=None if expiry is None else float(expiry.seconds),
    )


def _no_such_batch(batch_id: str, param: str | None = None) -> NotFound:
    return NotFound(
        f"There is no batch '{batch_id[:100]}'; see GET /v1/batches for those there are.", param=param
    )
