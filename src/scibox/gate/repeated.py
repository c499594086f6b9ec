"""Repeats over the intercom: the main process keeps them, so that a repeat finds them from any worker."""

from __future__ import annotations

from collections import defaultdict

from msgspec import Raw, Struct, msgpack

from scibox.intercom.hub import Caller, Hub, Turn
from scibox.intercom.link import Link, LinkLost

from .repeats import Answer, Repeats


class Begun(Struct, frozen=True, array_like=True):
    """`repeats.begin`: answered with an `Answer`, or with nothing: the asker leads."""

    name: bytes
    digest: bytes


class Finished(Struct, frozen=True, array_like=True):
    """`repeats.finish`."""

    name: bytes
    answer: Answer
    is_kept: bool


_begun = msgpack.Decoder(Begun).decode
_finished = msgpack.Decoder(Finished).decode
_name = msgpack.Decoder(bytes).decode
_answer: msgpack.Decoder[Answer | None] = msgpack.Decoder(Answer | None)


class RepeatsBoard:
    """Keeps account of which worker leads what: all of it is abandoned when that worker goes."""

    def __init__(self, hub: Hub, repeats: Repeats) -> None:
        self._repeats = repeats
        self._leads: defaultdict[Caller, set[bytes]] = defaultdict(set)
        hub.asked |= {"repeats.begin": self._begin, "repeats.unwanted": self._unwanted}
        hub.told |= {"repeats.finish": self._finish, "repeats.abandon": self._abandon}
        hub.gone.append(self._free)

    async def _begin(self, caller: Caller, turn: Turn) -> Answer | None:
        asked = _begun(turn.body)
        answer = await self._repeats.begin(asked.name, asked.digest)
        if answer is None:
            self._leads[caller].add(asked.name)
        return answer

    async def _unwanted(self, caller: Caller, turn: Turn) -> None:
        await self._repeats.unwanted(_name(turn.body))

    def _finish(self, caller: Caller, body: Raw) -> None:
        told = _finished(body)
        if self._is_its(caller, told.name):
            self._repeats.finish(told.name, told.answer, is_kept=told.is_kept)

    def _abandon(self, caller: Caller, body: Raw) -> None:
        name = _name(body)
        if self._is_its(caller, name):
            self._repeats.abandon(name)

    def _is_its(self, caller: Caller, name: bytes) -> bool:
        """Whether that worker leads it, which ends now; not if its connection was lost in between."""
        leads = self._leads[caller]
        if name not in leads:
            return False
        leads.discard(name)
        return True

    def _free(self, caller: Caller) -> None:
        for name in self._leads.pop(caller, set()):
            self._repeats.abandon(name)


class RemoteRepeats:
    """`Repeats`, as a worker sees them; while the main process is away, each call is made."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def begin(self, name: bytes, digest: bytes) -> Answer | None:
        """As `Repeats` says."""

        def stray(body: Raw) -> None:  # the lead came when nobody waited for it any more
            if _answer.decode(body) is None:
                self.abandon(name)

        try:
            return _answer.decode(await self._link.ask("repeats.begin", Begun(name, digest), on_stray=stray))
        except LinkLost:
            return None

    def finish(self, name: bytes, answer: Answer, *, is_kept: bool) -> None:
        """As `Repeats` says."""
        self._link.tell("repeats.finish", Finished(name, answer, is_kept))

    def abandon(self, name: bytes) -> None:
        """As `Repeats` says."""
        self._link.tell("repeats.abandon", name)

    async def unwanted(self, name: bytes) -> None:
        """As `Repeats` says."""
        try:
            await self._link.ask("repeats.unwanted", name)
        except LinkLost:
            return
