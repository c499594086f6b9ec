"""Calls that clients send again under one `Idempotency-Key` (PROMISES R6): one is made, all get its answer.

The door begins every such call here. The first under a name *leads*: it makes the call and must say how it
went, exactly once: `finish` or `abandon`. Who comes while it runs waits inside `begin`, without a ticket, an
entry or a limit. If the leader abandons (its client left, or it died), one of the waiting leads instead.

The answers are in the memory of the process that keeps them, never on a disk. With several worker processes
that is the main one, so that a repeat finds its answer wherever it arrives; a `Repeats` that asks it over a
socket must behave so:
  * `begin` waits as long as its caller does: cancelling it withdraws from the queue of the waiting, and if
    the lead was given to it meanwhile, abandons that;
  * when the connection to a worker breaks, all calls that it leads are abandoned, all that wait withdraw;
  * while the keeper is away, `begin` lets the caller lead and `finish` is forgotten: repeats are an extra,
    no call fails for want of it; `unwanted` returns at once then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from scibox.core.errors import IdempotencyKeyReused

_OVERHEAD_BYTES = 512  # of each kept answer beside its body: names, headers, the objects themselves


class Answer(Struct, frozen=True):
    """A whole answer as it goes to the client; an error is one too."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Repeats(Protocol):
    """What was answered, by name: a digest of whose call it is, of the endpoint and of the client's word."""

    async def begin(self, name: bytes, digest: bytes) -> Answer | None:
        """The answer of the first call of that name, waited for; None: the caller leads.

        `digest` is the body's; `IdempotencyKeyReused` where the first call had another body.
        """

    def finish(self, name: bytes, answer: Answer, *, is_kept: bool) -> None:
        """The leader's answer, for all who wait; `is_kept`: for those who come later too. Never waits."""

    def abandon(self, name: bytes) -> None:
        """The leader gives up: one of the waiting leads now. Never waits."""

    async def unwanted(self, name: bytes) -> None:
        """Return when nobody waits for that leader's answer, which may be at once."""


class LocalRepeats:
    """Repeats in this process, of bounded age and size; the oldest go first."""

    def __init__(self, keep_s: float, keep_bytes: int, clock: Callable[[], float]) -> None:
        self._keep_s = keep_s
        self._keep_bytes = keep_bytes
        self._clock = clock
        self._runs: dict[bytes, _Run] = {}
        self._kept: dict[bytes, _Kept] = {}  # in the order of their age
        self.kept_bytes = 0

    async def begin(self, name: bytes, digest: bytes) -> Answer | None:
        """As `Repeats` says."""
        while True:
            self._forget_old()
            if (kept := self._kept.get(name)) is not None:
                _check(kept.digest, digest)
                return kept.answer
            run = self._runs.get(name)
            if run is None:
                self._runs[name] = _Run(digest)
                return None
            _check(run.digest, digest)
            if (answer := await run.wait()) is not None:
                return answer

    def finish(self, name: bytes, answer: Answer, *, is_kept: bool) -> None:
        """As `Repeats` says."""
        run = self._runs.pop(name)
        run.end(answer)
        size = len(answer.body) + _OVERHEAD_BYTES
        if not is_kept or size > self._keep_bytes:
            return
        self._kept[name] = _Kept(run.digest, answer, size, self._clock() + self._keep_s)
        self.kept_bytes += size
        while self.kept_bytes > self._keep_bytes:
            self._forget(next(iter(self._kept)))

    def abandon(self, name: bytes) -> None:
        """As `Repeats` says."""
        self._runs.pop(name).end(None)

    async def unwanted(self, name: bytes) -> None:
        """As `Repeats` says."""
        if (run := self._runs.get(name)) is not None:
            await run.idle.wait()

    def _forget_old(self) -> None:
        now = self._clock()
        while self._kept:
            oldest = next(iter(self._kept))
            if self._kept[oldest].until > now:
                return
            self._forget(oldest)

    def _forget(self, name: bytes) -> None:
        self.kept_bytes -= self._kept.pop(name).size


class _Kept(Struct, frozen=True):
    digest: bytes
    answer: Answer
    size: int
    until: float


class _Run:
    """A call on its way, and how many wait for its answer beside its leader."""

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self.idle = asyncio.Event()
        self.idle.set()
        self._waiting = 0
        self._answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()

    async def wait(self) -> Answer | None:
        """The answer; None where the leader has given up."""
        self._waiting += 1
        self.idle.clear()
        try:
            return await asyncio.shield(self._answer)  # one future for all: who leaves must not cancel it
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.idle.set()

    def end(self, answer: Answer | None) -> None:
        """Tell all who wait."""
        self._answer.set_result(answer)
        self.idle.set()


def _check(first: bytes, now: bytes) -> None:
    if first != now:
        raise IdempotencyKeyReused(
            "This Idempotency-Key was used for a call with another body; take a new one for each new call.",
            param="Idempotency-Key",
        )
