"""The fair queue of one model: who starts next in a slot, of all who wait.

Interactive calls go before batches. A batch call does not take the last free slot of a model with several, so
that a person's call finds one; yet batches never starve: while they wait and interactive calls go before
them, they earn a twentieth of that service, and one whose cost is earned takes the next slot, the last free
one too. The two ranks have counters of their own: a night's batch does not put its owner's people behind in
the morning.

The queue counts the slots. It asks nobody: the desk takes a call from `pick`, asks the limits, and if one
blocks puts the call back; then the blocked key, owner or rank is parked, and others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from .admission import Place, Rank, Wish
from .estimate import Pace, gap_s, until_s, walk
from .flows import Flow, Line, Waiting, Walked
from .limits import Verdict
from .parking import Parking, Spot
from .turns import Turns

BATCH_SHARE = 1 / 20
RECENT_S = 5.0  # a walk that newcomers are placed by
FEW = 24  # waiting calls whose order is walked through for each newcomer,
MANY = 64  # unless so many owners have been seen: all of them may send again, so a walk looks at each


class FairQueue:
    """Work-conserving and fair in LLM tokens, by owners' weights. Times are monotonic seconds. O(log n)."""

    def __init__(self, model: str, slots: int) -> None:
        self.model = model
        self.slots = slots  # of all deployments together; may change at any time
        self._interactive, self._batch = Turns(), Turns()
        self._ranks: dict[Rank, Turns] = {"interactive": self._interactive, "batch": self._batch}
        self._waiting: dict[str, Waiting] = {}
        self._running: dict[str, Waiting] = {}
        self._parking = Parking()
        self._pace = Pace()
        self._earned = 0.0  # by the batches that wait, in weighted LLM tokens

    def __len__(self) -> int:
        """Calls that wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Slots that are taken."""
        return len(self._running)

    def waiting_of(self, owner: str) -> int:
        """Calls of an owner that wait."""
        interactive, batch = self._interactive.flows.get(owner), self._batch.flows.get(owner)
        return (interactive.waiting if interactive else 0) + (batch.waiting if batch else 0)

    def enter(self, wish: Wish, now: float) -> None:
        """A call begins to wait; then `pick`, it may be its turn at once."""
        self._waiting[wish.call_id] = self._ranks[wish.rank].enter(wish, now)

    def remove(self, call_id: str) -> bool:
        """A call waits no longer: its client left, or its patience has ended. False: it did not wait."""
        call = self._waiting.pop(call_id, None)
        if call is None:
            return False
        call.flow.turns.remove(call)
        return True

    def pick(self, now: float) -> Waiting | None:
        """The call that starts now, in a free slot; None: no slot is free, or nobody who waits may start.

        Call it until it says None whenever a call has entered or ended, a subject was woken, or `next_wake`
        has come. Then either the call starts, or `put_back`; it may be asked for others in between.
        """
        if now >= self._parking.due_at:
            for spot in self._parking.wake_due(now):
                self._free(spot)
        free = self.slots - len(self._running)
        if free <= 0:
            return None
        call = self._next(free)
        if call is None:
            return None
        call_id = call.wish.call_id
        del self._waiting[call_id]
        self._running[call_id] = call
        call.flow.turns.start(call, now)
        if self._batch.waiting or self._earned:
            self._earn(call)
        return call

    def put_back(self, call_id: str, verdict: Verdict, now: float) -> None:
        """A limit blocks a picked call: it gives its slot back and waits where it stood.

        Whoever shares the subject is parked for the verdict's `wait_s`, or until `wake`: a key's calls, an
        owner's, or (the model's own limit) all of the rank. A final verdict is no reason to wait: `finish`.
        """
        call = self._running.pop(call_id)
        turns = call.flow.turns
        turns.put_back(call)
        self._waiting[call_id] = call
        if verdict.subject.startswith("key:"):
            self._parking.park(call.line, verdict, now)
            turns.block(call.line)
        elif "owner:" in verdict.subject:
            self._parking.park(call.flow, verdict, now)
            turns.refresh(call.flow)
        else:
            self._parking.park(turns, verdict, now)

    def wake(self, subject: str) -> bool:
        """A call of that subject has ended or its limits have changed; whether anybody was parked for it."""
        spots = self._parking.wake(subject)
        for spot in spots:
            self._free(spot)
        return bool(spots)

    def next_wake(self) -> float | None:
        """When somebody's parking ends; None: no time will end it."""
        return self._parking.next_at()

    def charge(self, call_id: str, completion_tokens: int) -> None:
        """So many more LLM tokens have been generated for a running call."""
        if call := self._running.get(call_id):
            call.flow.turns.charge(call, completion_tokens)

    def finish(self, call_id: str, tokens: int | None, now: float) -> None:
        """A running call has ended after so many LLM tokens (None: unknown), and frees its slot."""
        call = self._running.pop(call_id, None)
        if call is not None:
            call.flow.turns.finish(call, tokens)
            if tokens:
                self._pace.learn(now - call.picked_at, call.charged)

    def places(self, now: float, most: int | None = None) -> Sequence[Place]:
        """Where the waiting calls stand, in the order in which they will probably start: the first `most`.

        O(n log n): about 4 us for each. Newcomers are placed by it for some seconds; look about each second.
        """
        walked = walk(self._ranks.values(), self._running.values(), self.slots, self._pace, now)
        places: list[Place] = []
        etas_s: dict[Flow, list[float]] = {}
        for number, (call, eta_s) in enumerate(islice(walked, most), 1):
            places.append(Place(call.wish.call_id, self.model, number, eta_s, now - call.entered_at))
            etas_s.setdefault(call.flow, []).append(eta_s)
        for flow, seen_s in etas_s.items():
            flow.walked = Walked(now, seen_s[0], seen_s[-1], len(seen_s))
            flow.come_since = flow.waiting - len(seen_s)
        return places

    def estimate(self, call_id: str, now: float) -> Place | None:
        """Where a call stands that has just begun to wait, cheaply; None: it does not wait.

        Exact when few wait; else as if all calls cost about the same.
        """
        call = self._waiting.get(call_id)
        if call is None:
            return None
        flow, turns = call.flow, call.flow.turns
        if len(self._waiting) <= FEW and len(turns.flows) <= MANY:
            return next(place for place in self.places(now) if place.call_id == call_id)
        ahead = turns.ahead_of(call)
        if call.wish.rank == "batch":
            ahead += self._interactive.waiting
        eta_s = (ahead + 1) * self._pace.mean_hold_s / (self.slots or 1)
        if call.line.blocked_by or flow.blocked_by or turns.blocked_by:
            eta_s = max(eta_s, self._blocked_s(call, now))
        call.seen_s = eta_s
        walked = flow.walked
        if walked.calls and now - walked.at < RECENT_S:
            eta_s = walked.eta_s(flow.come_since, now)
        else:
            eta_s = flow.bias.apply(eta_s)
        return Place(call.wish.call_id, self.model, 1 + round(ahead), eta_s, now - call.entered_at)

    def _blocked_s(self, call: Waiting, now: float) -> float:
        """How long limits will hold a call back that has just come."""
        turns, flow, line, longest_s = call.flow.turns, call.flow, call.line, 0.0
        spots: tuple[tuple[Spot, int], ...] = (
            (line, line.waiting),
            (flow, flow.waiting),
            (turns, turns.waiting),
        )
        for spot, calls in spots:
            if spot.blocked_by:
                gaps_s = (calls - 1) * gap_s(spot.blocked_by, call, self._pace.mean_hold_s)
                longest_s = max(longest_s, until_s(spot, self._pace, now) + gaps_s)
        return longest_s

    def _next(self, free: int) -> Waiting | None:
        batch = self._batch.first() if self._batch.waiting else None
        if batch is None:
            self._earned = 0.0
        elif self._earned and self._earned >= batch.flow.turns.cost(batch):
            return batch
        interactive = self._interactive.first()
        if interactive is not None:
            return interactive
        return batch if free > 1 or self.slots == 1 else None

    def _earn(self, picked: Waiting) -> None:
        if picked.wish.rank == "batch":
            self._earned = 0.0
        elif self._batch.waiting:
            self._earned += picked.charged * BATCH_SHARE / (1 - BATCH_SHARE)

    def _free(self, spot: Spot) -> None:
        match spot:
            case Line():
                spot.flow.turns.free(spot)
            case Flow():
                spot.turns.refresh(spot)
            case _:
                pass  # a rank: asked again by itself
