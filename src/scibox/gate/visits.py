"""What the desk remembers: of each model its queue and its slots, of each call where it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from scibox.core.admission import Grant, Place, Wish
from scibox.core.errors import SciBoxError
from scibox.core.fairness import FairQueue
from scibox.core.returning import Returning

MOST_LOOKED_AT = 2_000  # waiting calls: 10 to 30 ms (bench/gate.py), in which nothing else goes on


class ModelQueue:
    """A model's queue, and which of its deployments' slots are taken."""

    def __init__(self, name: str) -> None:
        self.queue = FairQueue(name, 0)
        self.returning = Returning()
        self.used: list[int] = []
        self._slots: tuple[int, ...] = ()
        self.timer: asyncio.TimerHandle | None = None
        self.timer_at = 0.0
        self.is_dispatching = False
        self.looking: asyncio.TimerHandle | None = None
        self._looked_at = 0.0
        self._places: dict[str, Place] = {}
        self.has_ended = False  # one of its calls has: how long they take is known

    def fit(self, slots: Sequence[int]) -> None:
        """Take the deployments' slots as they are now."""
        known = tuple(slots)
        if known == self._slots:
            return
        self._slots = known
        self.queue.slots = sum(slots)
        if len(self.used) < len(slots):
            self.used += [0] * (len(slots) - len(self.used))

    def look(self, now: float) -> None:
        """Work out where those stand who wait, the first of them."""
        self._looked_at = now
        self._places = {place.call_id: place for place in self.queue.places(now, MOST_LOOKED_AT)}

    def where(self, call_id: str, now: float) -> tuple[int, float]:
        """Position and expected wait of a call that waits: as of the last look, else an estimate."""
        place = self._places.get(call_id)
        if place is not None:
            return place.position, max(0.0, place.eta_s - (now - self._looked_at))
        place = self.queue.estimate(call_id, now)
        assert place is not None, "it waits"
        return place.position, place.eta_s

    def take_slot(self, slots: Sequence[int]) -> int:
        """The first deployment, in the order of preference, that has a free slot."""
        for index, count in enumerate(slots):
            if self.used[index] < count:
                self.used[index] += 1
                return index
        self.used[0] += 1
        return 0


class Visit:
    """A call at the desk, from its coming to its leaving."""

    __slots__ = (
        "came_at", "deployment", "due_in", "entered_at", "expected_s", "grant", "impatient_at", "is_back",
        "model", "on_place", "refusal", "started_at", "turn", "wish",
    )  # fmt: skip

    def __init__(
        self, wish: Wish, model: ModelQueue, now: float, on_place: Callable[[Place], None] | None
    ) -> None:
        self.wish = wish
        self.model = model
        self.entered_at = now
        self.on_place = on_place
        self.is_back = False  # it comes again, as a refusal has told it to
        self.came_at = 0
        self.expected_s = 0.0
        self.deployment: int | None = None  # whose slot it has, or is about to have
        self.started_at: float | None = None
        self.grant: Grant | None = None
        self.refusal: SciBoxError | None = None
        self.turn: asyncio.Future[None] | None = None  # done when there is a grant or a refusal
        self.impatient_at: float | None = None  # when its patience ends; None: it has not begun to wait
        self.due_in: set[Visit] | None = None  # those that are to be told their place, or turned away, then

    def decide(self) -> None:
        """It need not wait any more."""
        if self.due_in is not None:
            self.due_in.discard(self)
        if self.turn is not None and not self.turn.done():
            self.turn.set_result(None)
