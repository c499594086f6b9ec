"""The desk for other processes: workers ask it over the intercom, as `remote.py` does."""

from __future__ import annotations

from collections import defaultdict

from msgspec import Raw, Struct, msgpack

from scibox.core.admission import Allowance, Desk, Grant, Place, Subject, Wish
from scibox.intercom.hub import Caller, Hub, Turn


class Entering(Struct, frozen=True, array_like=True):
    """`desk.enter`: answered with a `Grant`, noted with `Place`s if it `hears` them."""

    wish: Wish
    hears: bool


class Charged(Struct, frozen=True, array_like=True):
    """`desk.charge`."""

    call_id: str
    completion_tokens: int


class Moved(Struct, frozen=True, array_like=True):
    """`desk.move`."""

    call_id: str
    deployment: int


class Left(Struct, frozen=True, array_like=True):
    """`desk.leave`."""

    call_id: str
    tokens: int | None


_entering = msgpack.Decoder(Entering).decode
_charged = msgpack.Decoder(Charged).decode
_moved = msgpack.Decoder(Moved).decode
_left = msgpack.Decoder(Left).decode
_subjects = msgpack.Decoder(list[Subject]).decode
_owner = msgpack.Decoder(str).decode
_models = msgpack.Decoder(list[str]).decode


class Switchboard:
    """Keeps account of which worker holds what: all of it is free at once when that worker dies."""

    def __init__(self, hub: Hub, desk: Desk) -> None:
        self._desk = desk
        self._entering = 0
        # LLM tokens of each call so far, by worker: its prompt, and what was charged.
        self._held: defaultdict[Caller, dict[str, int]] = defaultdict(dict)
        hub.asked |= {
            "desk.enter": self._enter,
            "desk.allowances": self._allowances,
            "desk.places": self._places,
            "desk.has_room": self._has_room,
        }
        hub.told |= {"desk.charge": self._charge, "desk.move": self._move, "desk.leave": self._leave}
        hub.gone.append(self._free)

    @property
    def calls(self) -> int:
        """Calls of the workers, those that wait too."""
        return self._entering + sum(len(held) for held in self._held.values())

    async def _enter(self, caller: Caller, turn: Turn) -> Grant:
        asked = _entering(turn.body)
        self._entering += 1
        try:
            grant = await self._desk.enter(asked.wish, turn.note if asked.hears else None)
        finally:
            self._entering -= 1
        self._held[caller][asked.wish.call_id] = asked.wish.prompt_tokens
        return grant

    def _charge(self, caller: Caller, body: Raw) -> None:
        told = _charged(body)
        self._desk.charge(told.call_id, told.completion_tokens)
        if told.call_id in self._held[caller]:
            self._held[caller][told.call_id] += told.completion_tokens

    def _move(self, caller: Caller, body: Raw) -> None:
        told = _moved(body)
        if told.call_id in self._held[caller]:
            self._desk.move(told.call_id, told.deployment)

    def _leave(self, caller: Caller, body: Raw) -> None:
        told = _left(body)
        self._held[caller].pop(told.call_id, None)
        self._desk.leave(told.call_id, told.tokens)

    async def _allowances(self, caller: Caller, turn: Turn) -> list[Allowance]:
        return list(await self._desk.allowances(_subjects(turn.body)))

    async def _places(self, caller: Caller, turn: Turn) -> list[Place]:
        return list(await self._desk.places(_owner(turn.body)))

    async def _has_room(self, caller: Caller, turn: Turn) -> str | None:
        return await self._desk.has_room(_models(turn.body))

    def _free(self, caller: Caller) -> None:
        """Its calls have ended with it; what they used is what was told of them."""
        for call_id, tokens in self._held.pop(caller, {}).items():
            self._desk.leave(call_id, tokens)
