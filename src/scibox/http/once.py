"""A call with an `Idempotency-Key` (PROMISES R6): made once, however often its client sends it.

It runs in a task of its own, so that it outlives a client that leaves: that client said that it may come
again. Then it goes on for `LINGER_S`, and after that for as long as a repeat waits for it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from hashlib import sha256

from scibox.core.errors import InvalidRequest
from scibox.gate.repeats import Answer, Repeats

from .incoming import Incoming

LINGER_S = 5.0  # OpenAI's clients come again after 0.5 to 8 s
MOST_CHARACTERS = 255

_WORD = re.compile(rb"[!-~]([ -~]*[!-~])?")
_REPLAYED = (b"idempotent-replayed", b"true")


@dataclass(frozen=True, slots=True)
class Made:
    """An answer, and whether a repeat would get the same: errors that may heal are not kept."""

    answer: Answer
    is_kept: bool
    is_replayed: bool = False


@dataclass(frozen=True, slots=True)
class Name:
    """What makes two requests the same call: `name` of who, where and which; `digest` of the body."""

    name: bytes
    digest: bytes


def name_of(incoming: Incoming, key_id: str, body: bytes) -> Name | None:
    """The name that a request's `Idempotency-Key` gives it; None without one, 400 with a malformed one."""
    if b"idempotency-key" not in incoming.headers:
        return None
    words = {value for name, value in incoming.pairs if name == b"idempotency-key"}
    word = words.pop()
    if words or len(word) > MOST_CHARACTERS or not _WORD.fullmatch(word):
        raise InvalidRequest(
            f"An Idempotency-Key has 1 to {MOST_CHARACTERS} printable ASCII characters; a new UUID is best.",
            param="Idempotency-Key",
            code="invalid_idempotency_key",
        )
    # Neither a key id nor a path has a zero byte in it.
    return Name(
        sha256(b"\0".join((key_id.encode(), incoming.path.encode(), word))).digest(), sha256(body).digest()
    )


class Once:
    """Makes calls of the same name once. `ending` ends those whose clients have left."""

    def __init__(self, repeats: Repeats, ending: asyncio.Event, linger_s: float = LINGER_S) -> None:
        self._repeats = repeats
        self._ending = ending
        self._linger_s = linger_s
        self._left: set[asyncio.Task[None]] = set()  # calls without their client; a task needs a holder

    async def make(self, call: Name, make: Callable[[], Coroutine[None, None, Made]]) -> Made:
        """What the call came to: made now, or by the first one. `make` may be cancelled, as every call."""
        first = await self._repeats.begin(call.name, call.digest)
        if first is not None:
            replayed = Answer(first.status, first.body, (*first.headers, _REPLAYED))
            return Made(replayed, is_kept=True, is_replayed=True)
        work = asyncio.create_task(make())
        work.add_done_callback(lambda task: self._tell(call.name, task))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if not work.done():
                staying = asyncio.create_task(self._stay(call.name, work))
                self._left.add(staying)
                staying.add_done_callback(self._left.discard)
            raise

    def _tell(self, name: bytes, work: asyncio.Task[Made]) -> None:
        # A callback, not a part of the task: one that is cancelled before its first step runs no line of it.
        if work.cancelled() or work.exception() is not None:
            self._repeats.abandon(name)
        else:
            made = work.result()
            self._repeats.finish(name, made.answer, is_kept=made.is_kept)

    async def _stay(self, name: bytes, work: asyncio.Task[Made]) -> None:
        """Let a call without its client go on while somebody may want its answer."""
        reasons = [asyncio.create_task(self._lonely(name)), asyncio.create_task(self._ending.wait())]
        try:
            await asyncio.wait({work, *reasons}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, *reasons):
                task.cancel()
            await asyncio.gather(work, *reasons, return_exceptions=True)

    async def _lonely(self, name: bytes) -> None:
        await asyncio.sleep(self._linger_s)
        await self._repeats.unwanted(name)
