"""A worker's desk: it asks that of the main process. While that is away, a worker goes on with its part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Raw, msgpack

from scibox.core.admission import Allowance, Desk, Grant, Place, Subject, Wish
from scibox.core.events import Emit, Notice
from scibox.core.sharing import share, shared_wish
from scibox.intercom.link import Link, LinkLost

from .switchboard import Charged, Entering, Left, Moved

_grant = msgpack.Decoder(Grant).decode
_place = msgpack.Decoder(Place).decode
_allowances = msgpack.Decoder(list[Allowance]).decode
_places = msgpack.Decoder(list[Place]).decode
_name: Callable[[Raw], str | None] = msgpack.Decoder(str | None).decode


class RemoteDesk:
    """The one desk, as a worker sees it. `local` has one of so many `parts` of the slots.

    Calls that run when the main process is lost go on; it does not know of them when it is back, so for as
    long as they last a little more may start than is allowed.
    """

    def __init__(self, link: Link, local: Desk, parts: int, emit: Emit) -> None:
        self._link = link
        self._local = local
        self._parts = parts
        self._emit = emit
        self._was_lost = False
        self._at_local: set[str] = set()  # calls that the local desk has let in, or has waiting
        link.changed.append(self._tell_change)

    async def enter(self, wish: Wish, on_place: Callable[[Place], None] | None) -> Grant:
        """As `Desk` says."""

        def noted(body: Raw) -> None:
            if on_place is not None:
                on_place(_place(body))

        def stray(_: Raw) -> None:
            self._link.tell("desk.leave", Left(wish.call_id, 0))

        try:
            return _grant(
                await self._link.ask("desk.enter", Entering(wish, on_place is not None), noted, stray)
            )
        except LinkLost:
            return await self._enter_locally(wish, on_place)

    def charge(self, call_id: str, completion_tokens: int) -> None:
        """As `Desk` says."""
        if call_id in self._at_local:
            self._local.charge(call_id, completion_tokens)
        else:
            self._link.tell("desk.charge", Charged(call_id, completion_tokens))

    def move(self, call_id: str, deployment: int) -> None:
        """As `Desk` says."""
        if call_id in self._at_local:
            self._local.move(call_id, deployment)
        else:
            self._link.tell("desk.move", Moved(call_id, deployment))

    def leave(self, call_id: str, tokens: int | None) -> None:
        """As `Desk` says."""
        if call_id in self._at_local:
            self._at_local.discard(call_id)
            self._local.leave(call_id, tokens)
        else:
            self._link.tell("desk.leave", Left(call_id, tokens))

    async def allowances(self, subjects: Sequence[Subject]) -> Sequence[Allowance]:
        """As `Desk` says."""
        try:
            return _allowances(await self._link.ask("desk.allowances", list(subjects)))
        except LinkLost:
            own = [share(subject, self._parts) for subject in subjects]
            return await self._local.allowances(own)

    async def places(self, owner: str) -> Sequence[Place]:
        """As `Desk` says."""
        try:
            return _places(await self._link.ask("desk.places", owner))
        except LinkLost:
            return await self._local.places(owner)

    async def has_room(self, models: Sequence[str]) -> str | None:
        """As `Desk` says."""
        try:
            return _name(await self._link.ask("desk.has_room", list(models)))
        except LinkLost:
            return await self._local.has_room(models)

    async def _enter_locally(self, wish: Wish, on_place: Callable[[Place], None] | None) -> Grant:
        self._at_local.add(wish.call_id)
        try:
            return await self._local.enter(shared_wish(wish, self._parts), on_place)
        except BaseException:
            self._at_local.discard(wish.call_id)
            raise

    def _tell_change(self) -> None:
        if not self._link.is_up:
            self._was_lost = True
            message = f"the main process cannot be asked: this worker serves 1/{self._parts} of every limit"
            self._emit(Notice(message, is_warning=True))
        elif self._was_lost:
            self._emit(Notice("the main process can be asked again: limits are whole"))
