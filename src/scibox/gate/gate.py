"""Who may enter, and what is owed for a call: authenticate, admit, settle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from scibox.core.admission import (
    Allowance,
    Desk,
    Grant,
    Place,
    Subject,
    Wish,
    of_key,
    of_model,
    of_owner,
)
from scibox.core.entries import Entry
from scibox.core.errors import Draining, Unauthorized
from scibox.core.events import Emit
from scibox.core.types import Call, Key, Limits, ModelCard, Owner

from .estimates import Estimates, Known
from .keyring import KeyRing
from .ticket import Audience, Journal, Ticket

MOST_CUSTOMERS = 8_192  # that are kept
WATCH_S = 0.25  # with the ring's own: a call of a revoked key ends within a second (PROMISES R4)


class Unheard:
    """An audience for calls whose caller waits for the answer only."""

    def queued(self, place: Place) -> None:
        """Not told."""

    def admitted(self, grant: Grant) -> None:
        """Not told."""


UNHEARD = Unheard()


class Gate:
    """Lets calls in, one ticket each. `clock` is monotonic, `now` is Unix time; both in seconds."""

    def __init__(
        self,
        ring: KeyRing,
        desk: Desk,
        journal: Journal,
        emit: Emit,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        patience_s: float = 60.0,
        background_calls: int = 2,
    ) -> None:
        self.desk = desk
        self.journal = journal
        self.clock = clock
        self.in_flight = 0  # tickets, of those that wait too
        self.idle = asyncio.Event()  # set while no call is in flight
        self.idle.set()
        self._ring = ring
        self._emit = emit
        self._now = now
        self.configure(patience_s, background_calls)
        self._estimates = Estimates()
        self._customers: dict[tuple[str, str], _Customer] = {}  # by key id and model
        self.is_draining = False
        self.is_ending = False
        self._open: set[Ticket] = set()

    def configure(self, patience_s: float, background_calls: int) -> None:
        """How long calls wait that do not say it, and how many run that nobody waits for; from now on."""
        self._patience_s = patience_s
        self._background = Subject("background", Limits(calls_in_flight=background_calls))

    def authenticate(self, secret: str) -> Awaitable[Key]:
        """The key of a secret, or `Unauthorized`, or `KeysUnavailable`."""
        return self._ring.identify(secret, self._now())

    async def holder(self, secret: str) -> Key:
        """The key of a secret, also one that opens nothing any more; or an error as of `authenticate`."""
        return await self._ring.holder(secret, self._now())

    async def recall(self, key_id: str) -> Key:
        """The key of a batch made earlier, as it is now, or `Unauthorized`."""
        return await self._ring.recall_newest(key_id, self._now())

    def ticket(
        self,
        key: Key,
        call: Call,
        card: ModelCard,
        audience: Audience = UNHEARD,
        others: Callable[[], Sequence[str]] = tuple,
    ) -> Ticket:
        """A ticket for a call on that model; `others` are models that the caller might use instead."""
        customer = self._customer(key, card)
        wish = self._wish(customer, call)
        return Ticket(
            self,
            key,
            call,
            card,
            wish,
            audience=audience,
            others=others,
            opened_at=self._now(),
            known=customer.known,
        )

    async def move(self, ticket: Ticket, card: ModelCard) -> None:
        """The ticket's call waits for that model instead, with what is left of its patience."""
        customer = self._customer(ticket.key, card)
        wish = self._wish(customer, ticket.call)
        left_s = max(0.0, wish.patience_s - (self.clock() - ticket.opened_clock))
        await ticket.move(card, replace(wish, patience_s=left_s), customer.known)

    async def allowances(self, key: Key, cards: Sequence[ModelCard]) -> Sequence[Allowance]:
        """What is left of the limits that hold for calls of this key, on these models."""
        found = {subject.name: subject for card in cards or (None,) for subject in self._limited(key, card)}
        return await self.desk.allowances(tuple(found.values())) if found else ()

    def quotas(self, cards: Iterable[ModelCard]) -> list[Subject]:
        """Everybody who has a quota: keys, owners, these models, and owners on them."""
        known, keys = self._ring.known.owners, self._ring.keys()
        owners = {key.owner for key in keys} | known.keys()
        found = [Subject(of_key(key.key_id), key.limits) for key in keys if _has_quota(key.limits)]
        found += [
            Subject(of_owner(owner.name), owner.limits)
            for owner in known.values()
            if _has_quota(owner.limits)
        ]
        for card in cards:
            if _has_quota(card.limits):
                found.append(Subject(of_model(card.name), card.limits))
            if _has_quota(card.owner_limits):
                found += [Subject(of_model(card.name, owner), card.owner_limits) for owner in owners]
        return found

    async def places(self, key: Key) -> Sequence[Place]:
        """Where the calls of the key's owner stand."""
        return await self.desk.places(key.owner)

    def drain(self) -> None:
        """Refuse new calls from now on; running ones go on."""
        self.is_draining = True

    def end(self) -> None:
        """The calls that still run are to be ended now."""
        self.is_ending = True

    async def watch(self) -> None:
        """End the calls of keys that are not valid any more, for ever."""
        while True:
            await asyncio.sleep(WATCH_S)
            ended: dict[str, Unauthorized | None] = {}  # what is said of each key now
            for ticket in list(self._open):
                key_id = ticket.key.key_id
                if key_id not in ended:
                    ended[key_id] = self._refusal(key_id)
                if (reason := ended[key_id]) is not None:
                    ticket.revoke(reason)

    def _refusal(self, key_id: str) -> Unauthorized | None:
        """Why the calls of a key that began in time may not go on; None: they may."""
        try:
            self._ring.recall(key_id, self._now())
        except Unauthorized as reason:
            return None if reason.code == "key_expired" else reason
        return None

    def open(self, ticket: Ticket) -> None:
        """The ticket is under way."""
        if not self.in_flight:
            self.idle.clear()
        self.in_flight += 1
        self._open.add(ticket)
        if self.is_draining:
            raise Draining("The service is stopping; try again in a minute.", retry_after_s=30)
        self.journal.check()

    def ended(self, ticket: Ticket, entry: Entry) -> None:
        """A call has ended: one entry, one event."""
        self.journal.ended(entry)
        if entry.usage.prompt_tokens and not entry.is_estimate:
            ticket.known.learn(ticket.call, entry.usage)
        self._emit(entry)

    def close(self, ticket: Ticket) -> None:
        """The ticket is done with: its answer has left, or never will. Never awaits."""
        if ticket not in self._open:
            return
        self._open.remove(ticket)
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()

    def _wish(self, customer: _Customer, call: Call) -> Wish:
        key, card, known, subjects = customer.key, customer.card, customer.known, customer.subjects
        prompt_tokens = known.prompt_tokens(call)
        room = None if card.context is None else card.context - prompt_tokens
        return Wish(  # in the order of its fields: by name it would cost several times as much
            call.request_id,
            key.key_id,
            key.owner,
            customer.owner.weight,
            card.name,
            "batch" if call.is_background else "interactive",
            prompt_tokens,
            known.completion_tokens(call, room),
            0 if call.kind == "chat" else call.items,
            self._patience_s if call.patience_s is None else call.patience_s,
            (self._background, *subjects) if call.is_background else subjects,
        )

    def _customer(self, key: Key, card: ModelCard) -> _Customer:
        """What holds for calls of a key on a model; the last answers are kept while nothing changes."""
        at = (key.key_id, card.name)
        kept, owner = self._customers.get(at), self._ring.known.owners.get(key.owner)
        if kept is not None and kept.key is key and kept.listed is owner and kept.card is card:
            return kept
        if len(self._customers) >= MOST_CUSTOMERS:
            self._customers.clear()
        some = owner or self._ring.owner(key.owner)
        known, subjects = self._estimates.of(key.owner, card.name), _subjects(key, some.limits, card)
        kept = self._customers[at] = _Customer(key, card, owner, some, subjects, known)
        return kept

    def _limited(self, key: Key, card: ModelCard | None) -> tuple[Subject, ...]:
        """Who is limited, of those whom calls of a key concern."""
        if card is not None:
            return self._customer(key, card).subjects
        return _subjects(key, self._ring.owner(key.owner).limits, None)


@dataclass(slots=True)
class _Customer:
    """What holds for calls of a key on a model, and what that was made of."""

    key: Key
    card: ModelCard
    listed: Owner | None  # None: nothing is known of the owner
    owner: Owner
    subjects: tuple[Subject, ...]  # that are limited
    known: Known  # of how long its calls are


def _subjects(key: Key, owner_limits: Limits, card: ModelCard | None) -> tuple[Subject, ...]:
    owner, model = key.owner, (card.root or card.name) if card else ""
    found = [(of_key(key.key_id), key.limits), (of_owner(owner), owner_limits)]
    if card is not None:
        found += [(of_model(model), card.limits), (of_model(model, owner), card.owner_limits)]
    return tuple(Subject(name, limits) for name, limits in found if not limits.are_none)


def _has_quota(limits: Limits) -> bool:
    return limits.tokens_per_day is not None or limits.tokens_per_month is not None
