"""The ticket of one call: its turn, what it has used, its entry. Closed exactly once, whatever happens.

The entry is in the journal before the last chunk is handed on; closing never awaits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol

from scibox.core.admission import Desk, Grant, Place, Wish
from scibox.core.entries import Entry, Opened
from scibox.core.errors import (
    Busy,
    Draining,
    RateLimited,
    Unauthorized,
)
from scibox.core.streams import Course, ending_of
from scibox.core.types import NO_USAGE, Call, Chunk, Ending, Key, ModelCard, Usage

from .estimates import Known

CHARGED_AT_ONCE = 32  # LLM tokens: a message to the desk for each would cost more than it tells
BYTES_PER_TOKEN = 4  # of an answer that nobody has counted
_NOT_YET = Grant(0, 0, 0.0)


class Audience(Protocol):
    """Who is told what becomes of the call's turn."""

    def queued(self, place: Place) -> None:
        """It still waits, there."""

    def admitted(self, grant: Grant) -> None:
        """It starts now."""


class Journal(Protocol):
    """Where entries go."""

    def check(self) -> None:
        """Raise `StorageUnavailable` when nothing more could be kept."""

    def opened(self, record: Opened) -> None:
        """A call is about to start."""

    def ended(self, entry: Entry) -> None:
        """A call has ended, and this is what it was."""

    async def settled(self) -> None:
        """Returns when all of it is as safe as it was asked to be."""


class Books(Protocol):
    """What a ticket needs of the gate."""

    desk: Desk
    journal: Journal
    is_ending: bool  # the calls that still run are ended, since the service stops

    def clock(self) -> float:
        """Monotonic seconds."""

    def open(self, ticket: Ticket) -> None:
        """The ticket is under way; raises when nothing may begin any more."""

    def ended(self, ticket: Ticket, entry: Entry) -> None:
        """Its call has ended: one entry for each."""

    def close(self, ticket: Ticket) -> None:
        """The ticket is done with."""


class Ticket:
    """Use it with `async with`: entering waits for the call's turn, leaving settles.

    `others` names models that the caller might use instead.
    """

    __slots__ = (
        "_audience",
        "_books",
        "_charged",
        "_delivered",
        "_embedded",
        "_generated",
        "_has_usage",
        "_others",
        "_revoked",
        "_task",
        "attempts",
        "call",
        "card",
        "course",
        "deployment",
        "first_chunk_s",
        "grant",
        "key",
        "known",
        "opened_at",
        "opened_clock",
        "replica",
        "texts",
        "usage",
        "wish",
    )

    def __init__(
        self,
        books: Books,
        key: Key,
        call: Call,
        card: ModelCard,
        wish: Wish,
        *,
        audience: Audience,
        others: Callable[[], Sequence[str]],
        opened_at: float,
        known: Known,
    ) -> None:
        self._books = books
        self._audience = audience
        self._others = others
        self.key = key
        self.call = call
        self.card = card
        self.wish = wish
        self.known = known  # of how long such calls are
        self.opened_at = opened_at  # Unix
        self.opened_clock = books.clock()
        self.grant = _NOT_YET
        self.deployment: int | None = None  # that it was tried on last
        self.replica = ""
        self.attempts = 0
        self.usage = NO_USAGE
        self.first_chunk_s: float | None = None
        self.texts = 0
        self._has_usage = False
        self._embedded = (0, 0)  # LLM tokens of the texts that have vectors, and those known before
        self._generated = 0
        self._charged = 0
        self._delivered = 0
        self.course = Course()
        self._revoked: Unauthorized | None = None
        self._task: asyncio.Task[object] | None = None

    async def __aenter__(self) -> Ticket:
        self._task = asyncio.current_task()
        wish, call, desk = self.wish, self.call, self._books.desk
        try:
            self._books.open(self)
            try:
                self.grant = await desk.enter(wish, self._audience.queued if call.stream else None)
            except (RateLimited, Busy) as error:
                await self._suggest_another(error)
                raise
        except BaseException as error:
            self._leave(error)
            if self._is_revoked(error):
                raise self._revoked from None  # type: ignore[misc]  # `_is_revoked`
            raise
        self.deployment = self.grant.deployment
        self._books.journal.opened(
            Opened(
                call.request_id,
                self.opened_at,
                self.key.key_id,
                self.key.owner,
                self.card.name,
                call.kind,
                call.endpoint,
                wish.prompt_tokens,
                wish.texts,
            )
        )
        self._audience.admitted(self.grant)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)
        if error is not None and self._is_revoked(error):
            raise self._revoked from None  # type: ignore[misc]  # `_is_revoked`

    def tried(self, deployment: int, address: str) -> None:
        """An attempt on that replica begins."""
        self.attempts += 1
        self.deployment = deployment
        self.replica = address

    def embedded(self, texts: int, prompt_tokens: int, cached_tokens: int) -> None:
        """So many texts more have their vectors; `cached_tokens` of theirs were known already."""
        self.texts += texts
        self._embedded = (self._embedded[0] + prompt_tokens, self._embedded[1] + cached_tokens)

    def count(self, chunk: Chunk) -> None:
        """Note what a chunk says, before it is handed on."""
        self.course.begin()
        if self.first_chunk_s is None:
            self.first_chunk_s = self._books.clock() - self.opened_clock
        if chunk.deltas:
            self._generated += chunk.deltas
            if self._generated - self._charged >= CHARGED_AT_ONCE:
                self._books.desk.charge(self.call.request_id, self._generated - self._charged)
                self._charged = self._generated
        if chunk.usage is not None and (chunk.usage.prompt_tokens or chunk.usage.completion_tokens):
            self.usage = chunk.usage
            self._has_usage = True
        if chunk.is_last:
            if not self._generated and not self._has_usage:
                self._generated = len(chunk.data) // BYTES_PER_TOKEN if self.call.kind == "chat" else 0
            self._end(Ending.FINISHED, "")

    def handed_on(self) -> None:
        """All that was counted has left for the client."""
        self._delivered = self._generated

    async def recorded(self) -> None:
        """Wait until the entry is as safe as it was asked to be."""
        await self._books.journal.settled()

    def revoke(self, reason: Unauthorized) -> None:
        """End the call now, whatever it waits for: its key is not valid any more."""
        if self._task is not None and self._revoked is None:
            self._revoked = reason
            self._task.cancel()

    def _is_revoked(self, error: BaseException) -> bool:
        """Whether this error is the end that `revoke` has asked for, and nobody else has cancelled the task.

        The same way as `asyncio.timeout`: https://docs.python.org/3.11/library/asyncio-task.html#timeouts.
        A `GeneratorExit` is what our cancellation has become when it struck in who consumes the chunks.
        """
        if self._revoked is None or not isinstance(error, asyncio.CancelledError | GeneratorExit):
            return False
        assert self._task is not None
        return self._task.uncancel() <= 0

    async def _suggest_another(self, refusal: RateLimited | Busy) -> None:
        """Name a model that could answer now, where there is one."""
        others = self._others()
        name = await self._books.desk.has_room(others) if others else None
        if name is not None:
            refusal.message += f" '{name}' has room now."

    def _leave(self, error: BaseException | None) -> None:
        """Settle, if the last chunk has not done so already. Never awaits; harmless twice."""
        if not self.course.is_over:
            self._end(*self._ending(error))
        self._books.close(self)

    def _end(self, outcome: Ending, code: str) -> None:
        self.course.end(outcome)
        books, call, key, card = self._books, self.call, self.key, self.card
        usage = self.usage if self._has_usage else self._final(outcome)
        completion_tokens = usage.completion_tokens
        books.desk.leave(call.request_id, usage.prompt_tokens + completion_tokens)
        is_whole = outcome is Ending.FINISHED
        total_s = books.clock() - self.opened_clock
        entry = Entry(  # in the order of its fields: by name it would cost seven times as much
            call.request_id,
            self.opened_at,
            key.key_id,
            key.owner,
            card.name,
            call.kind,
            call.endpoint or call.path,
            outcome,
            code,
            call.stream,
            call.is_background,
            usage,
            completion_tokens if is_whole else self._delivered,
            not self._has_usage and usage != NO_USAGE,
            self.wish.texts if is_whole else self.texts,
            self.deployment,
            self.replica,
            self.attempts,
            total_s if self.deployment is None else self.grant.waited_s,  # never started: all of its time
            self.first_chunk_s,
            total_s,
            0.0 if card.price is None else card.price.of(usage),
        )
        books.ended(self, entry)

    def _ending(self, error: BaseException | None) -> tuple[Ending, str]:
        """How a call ended and with which code, from what left its `async with`."""
        if error is None:
            return Ending.FINISHED, ""
        if isinstance(error, Exception):
            return ending_of(error)
        # GeneratorExit and CancelledError: the door has closed the call.
        if self._revoked is not None:
            return Ending.REVOKED, "key_revoked"
        return (Ending.INTERRUPTED, Draining.code) if self._books.is_ending else (Ending.CLIENT_GONE, "")

    def _final(self, outcome: Ending) -> Usage:
        """Of a call whose engine has not told it as a whole: estimated, where it has worked."""
        if self._embedded[0]:
            self._has_usage = True  # of the texts that are done, the engine has told it
            return Usage(self._embedded[0], cached_tokens=self._embedded[1])
        # An engine that refused the call or failed before its first word has not been of use to anybody.
        has_worked = self.first_chunk_s is not None or (
            self.attempts > 0 and outcome in {Ending.CLIENT_GONE, Ending.REVOKED, Ending.DEADLINE}
        )
        return Usage(self.wish.prompt_tokens, self._generated) if has_worked else NO_USAGE
