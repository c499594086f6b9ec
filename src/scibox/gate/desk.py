"""The desk in this process: limits, slots and the fair queue of every model.

The arithmetic is in core/limits.py and core/fairness.py. A slot that is free goes at once to the call whose
turn it is, if its limits allow it; else that call goes back and others go on. Nothing here waits but `enter`;
on one event loop that is the lock.
"""

from __future__ import annotations

import asyncio
import functools
import math
import random
from collections.abc import Callable, Sequence

from scibox.core.admission import Allowance, Grant, Load, Place, Subject, Wish
from scibox.core.errors import SciBoxError
from scibox.core.limits import Limiter, Moment, Verdict
from scibox.core.returning import SURE

from . import refusals
from .deadlines import Deadlines
from .visits import ModelQueue, Visit

LOOK_S = 1.0
FIRST_PLACE_S = 1.0  # then it is clear that the call is not refused at once
NEXT_PLACE_S = 2.0
PLACES_PER_S = 1_000  # told at most, by all queues together of a model


class LocalDesk:
    """`Desk` of one process. `slots` tells those of each deployment of a model.

    `clock` is monotonic, `now` is Unix time.
    """

    def __init__(
        self,
        slots: Callable[[str], Sequence[int]],
        limiter: Limiter,
        clock: Callable[[], float],
        now: Callable[[], float],
        *,
        queue_per_model: int = 1_000,
        queue_per_owner: int = 200,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self.limiter = limiter
        self._slots = slots
        self._clock = clock
        self._now = now
        self.queue_per_model = queue_per_model
        self.queue_per_owner = queue_per_owner
        self._luck = luck
        self._models: dict[str, ModelQueue] = {}
        self._calls: dict[str, Visit] = {}
        self._deadlines = Deadlines(clock, self._on_due)
        self._verdicts: dict[str, tuple[Verdict, float]] = {}  # what blocks, by subject, and until when
        self._parked: dict[str, set[str]] = {}  # models with calls that a subject's limits block

    async def enter(self, wish: Wish, on_place: Callable[[Place], None] | None) -> Grant:
        """Wait until the call may start; a refusal is raised."""
        now = self._clock()
        model = self._models.get(wish.model) or self._model(wish.model)
        call = self._calls[wish.call_id] = Visit(wish, model, now, on_place)
        try:
            call.is_back = model.returning.is_expected(wish.owner, now)
            model.queue.enter(wish, now)
            self._dispatch(model, now)
            is_asked = call.deployment is not None  # limits that answer later: `_on_verdict` goes on
            if call.grant is None and call.refusal is None and not is_asked:
                self._begin_to_wait(call, now)
            if call.grant is None and call.refusal is None:
                call.turn = asyncio.get_running_loop().create_future()
                await call.turn
        except BaseException:
            self.leave(wish.call_id, 0)
            raise
        if call.refusal is not None:
            raise call.refusal
        assert call.grant is not None
        return call.grant

    def charge(self, call_id: str, completion_tokens: int) -> None:
        """That many LLM tokens more have been generated for it."""
        call = self._calls.get(call_id)
        if call is not None:
            call.model.queue.charge(call_id, completion_tokens)

    def move(self, call_id: str, deployment: int) -> None:
        """Its slot is one of that deployment from now on, also where none is free: it is there already."""
        call = self._calls.get(call_id)
        used = call.model.used if call is not None else []
        if call is not None and call.deployment is not None and deployment < len(used):
            used[call.deployment] -= 1
            used[deployment] += 1
            call.deployment = deployment

    def leave(self, call_id: str, tokens: int | None) -> None:
        """The call has ended, or waits no longer."""
        call = self._calls.pop(call_id, None)
        if call is None:
            return
        model, now = call.model, self._clock()
        if call.grant is None:
            call.decide()
            if model.queue.remove(call_id):
                return
        self._give_back(call, tokens, now)
        model.has_ended = model.has_ended or bool(tokens)
        self.limiter.settle(call_id, tokens, Moment(now, self._now()))
        self._dispatch(model, now)
        if self._verdicts or self._parked:
            for subject in call.wish.subjects:
                self._wake(subject.name)

    def look(self) -> None:
        """The slots of models may have changed: start what may start now."""
        now = self._clock()
        for model in list(self._models.values()):
            self._dispatch(model, now)

    def load(self, name: str) -> Load:
        """How busy a model is."""
        model = self._model(name)
        return Load(name, sum(self._slots(name)), model.queue.running, len(model.queue))

    async def allowances(self, subjects: Sequence[Subject]) -> Sequence[Allowance]:
        """What is left of these limits."""
        answer: asyncio.Future[Sequence[Allowance]] = asyncio.get_running_loop().create_future()
        self.limiter.allowances(
            subjects,
            Moment(self._clock(), self._now()),
            lambda left: None if answer.done() else answer.set_result(left),
        )
        return await answer

    async def places(self, owner: str) -> Sequence[Place]:
        """Where the calls of an owner stand."""
        now = self._clock()
        return [self._place(call, now) for call in self._calls.values() if call.wish.owner == owner]

    async def has_room(self, models: Sequence[str]) -> str | None:
        """The first of these models that would start a call now."""
        for name in models:
            model = self._model(name)
            model.fit(self._slots(name))
            if not len(model.queue) and model.queue.running < model.queue.slots:
                return name
        return None

    def _model(self, name: str) -> ModelQueue:
        model = self._models.get(name)
        if model is None:
            model = self._models[name] = ModelQueue(name)
        return model

    def _dispatch(self, model: ModelQueue, now: float) -> None:
        """Start every call that may start now. Limits may be asked elsewhere and answer later."""
        queue, slots = model.queue, self._slots(model.queue.model)
        model.fit(slots)
        if queue.running >= queue.slots:
            return  # the end of a call will ask again
        model.is_dispatching = True
        while queue.running < queue.slots and (picked := queue.pick(now)) is not None:
            call = self._calls[picked.wish.call_id]
            call.deployment = model.take_slot(slots)
            at = Moment(now, self._now())
            self.limiter.take(call.wish, at, functools.partial(self._on_verdict, call))
            now = self._clock()  # who is put back for no time at all must not be asked in the same moment
        model.is_dispatching = False
        if len(queue) and queue.running < queue.slots:  # else the end of a call will ask again
            self._set_timer(model)

    def _set_timer(self, model: ModelQueue) -> None:
        """Look again when the next limit frees somebody."""
        at = model.queue.next_wake()
        if model.timer is not None and model.timer_at != at:
            model.timer.cancel()
            model.timer = None
        if at is not None and model.timer is None:
            model.timer_at = at
            loop = asyncio.get_running_loop()
            model.timer = loop.call_later(max(0.0, at - self._clock()), self._on_timer, model)

    def _on_timer(self, model: ModelQueue) -> None:
        model.timer = None
        self._dispatch(model, self._clock())

    def _on_verdict(self, call: Visit, verdict: Verdict) -> None:
        """What the limits say of a call that holds a slot already."""
        wish = call.wish
        now = self._clock()
        if wish.call_id not in self._calls:  # it left meanwhile, and has given its slot back
            if verdict.taken:
                self.limiter.settle(wish.call_id, 0, Moment(now, self._now()))
        elif verdict.taken:
            self._start(call, verdict, now)
        elif verdict.is_final:
            self._give_back(call, 0, now)
            self._refuse(call, refusals.by_final_limit(wish, verdict))
        else:
            self._free_slot(call)
            call.model.queue.put_back(wish.call_id, verdict, now)
            until = math.inf if verdict.wait_s is None else now + verdict.wait_s
            self._verdicts[verdict.subject] = (verdict, until)
            self._parked.setdefault(verdict.subject, set()).add(wish.model)
            if call.turn is not None and call.impatient_at is None:  # it has not waited yet
                self._begin_to_wait(call, now)
            elif now - call.entered_at >= wish.patience_s > 0:  # it ended while the limits were asked
                self._on_impatient(call)
        if not call.model.is_dispatching:
            self._dispatch(call.model, now)

    def _start(self, call: Visit, verdict: Verdict, now: float) -> None:
        call.started_at = now
        if verdict.left is not None:
            self._grant(call, verdict.left)
        elif call.wish.subjects:
            self.limiter.allowances(
                call.wish.subjects, Moment(now, self._now()), functools.partial(self._grant, call)
            )
        else:
            self._grant(call, ())

    def _grant(self, call: Visit, left: Sequence[Allowance]) -> None:
        assert call.deployment is not None
        assert call.started_at is not None
        waited_s = call.started_at - call.entered_at
        call.grant = Grant(call.deployment, call.came_at, waited_s, tuple(left), call.expected_s)
        call.decide()

    def _refuse(self, call: Visit, error: SciBoxError) -> None:
        self._calls.pop(call.wish.call_id, None)
        call.refusal = error
        call.decide()

    def _free_slot(self, call: Visit) -> None:
        if call.deployment is not None:
            call.model.used[call.deployment] -= 1
            call.deployment = None

    def _give_back(self, call: Visit, tokens: int | None, now: float) -> None:
        self._free_slot(call)
        call.model.queue.finish(call.wish.call_id, tokens, now)

    def _wake(self, subject: str) -> None:
        """A call of that subject has ended: who was blocked by its limits is asked again."""
        self._verdicts.pop(subject, None)
        for name in self._parked.pop(subject, ()):
            model = self._models[name]
            if model.queue.wake(subject):
                self._dispatch(model, self._clock())

    def _begin_to_wait(self, call: Visit, now: float) -> None:
        """Judge whether a call that cannot start now may wait, and for how long."""
        wish, model, queue = call.wish, call.model, call.model.queue
        place = queue.estimate(wish.call_id, now)
        assert place is not None, "it waits"
        if model.looking is None:
            model.looking = asyncio.get_running_loop().call_later(LOOK_S, self._look_around, model)
        owned = queue.waiting_of(wish.owner)
        ahead = 0 if call.is_back else model.returning.ahead(wish.owner, now)
        call.came_at = place.position
        call.expected_s = place.eta_s * (1 + ahead / owned)  # behind those that were told to come again
        # The pace of a limit is known; that of slots is an estimate: not all of the patience is lent on it.
        held_by = self._verdict(wish, now) if self._verdicts else None
        bearable_s = wish.patience_s if held_by else SURE * wish.patience_s
        excess_s = place.eta_s - bearable_s
        is_known = held_by is not None or model.has_ended  # else it is a guess
        if len(queue) > self.queue_per_model or owned > self.queue_per_owner:
            is_of_owner = owned > self.queue_per_owner
            bound = self.queue_per_owner if is_of_owner else self.queue_per_model
            retry_after_s = self._retry_after_s(call, place.eta_s, max(0.0, excess_s), now)
            full = refusals.by_full_queue(wish, bound, is_of_owner=is_of_owner, retry_after_s=retry_after_s)
            self._turn_away(call, full)
        elif call.expected_s > bearable_s and not call.is_back and is_known:
            self._turn_away(call, self._too_long(call, place.eta_s, excess_s, now))
        else:
            call.impatient_at = now + wish.patience_s
            self._set_due(call, now, FIRST_PLACE_S)

    def _verdict(self, wish: Wish, now: float) -> Verdict | None:
        """The limit that holds calls like this one back now."""
        for subject in wish.subjects:
            verdict, until = self._verdicts.get(subject.name, (None, 0.0))
            if until >= now:
                return verdict
        return None

    def _set_due(self, call: Visit, now: float, tell_s: float) -> None:
        """Come back to it when it is to be told its place, or its patience ends."""
        assert call.impatient_at is not None
        delay_s = max(0.0, call.impatient_at - now)
        if call.on_place is not None and tell_s < delay_s:
            delay_s = tell_s
        call.due_in = self._deadlines.add(call, now, delay_s)

    def _on_due(self, call: Visit) -> None:
        if call.grant is not None or call.refusal is not None or call.wish.call_id not in self._calls:
            return
        now = self._clock()
        assert call.impatient_at is not None
        if now >= call.impatient_at:
            self._on_impatient(call)
            return
        self._set_due(call, now, max(NEXT_PLACE_S, len(call.model.queue) / PLACES_PER_S))
        if call.on_place is not None and call.deployment is None:
            at = Moment(now, self._now())
            self.limiter.allowances(call.wish.subjects, at, functools.partial(self._tell, call))

    def _on_impatient(self, call: Visit) -> None:
        if call.deployment is not None:
            return  # its limits are being asked: `_on_verdict` comes
        now = self._clock()
        eta_s = self._place(call, now).eta_s
        self._turn_away(call, self._too_long(call, eta_s, eta_s, now))

    def _turn_away(self, call: Visit, error: SciBoxError) -> None:
        call.model.queue.remove(call.wish.call_id)
        self._refuse(call, error)

    def _too_long(self, call: Visit, eta_s: float, excess_s: float, now: float) -> SciBoxError:
        wish = call.wish
        retry_after_s = self._retry_after_s(call, eta_s, excess_s, now)
        verdict = self._verdict(wish, now)
        if verdict is not None:
            return refusals.by_limit(wish, verdict, eta_s, retry_after_s)
        return refusals.by_queue(wish, call.came_at, eta_s, retry_after_s)

    def _retry_after_s(self, call: Visit, eta_s: float, excess_s: float, now: float) -> int:
        model, owner = call.model, call.wish.owner
        pace_s = eta_s / max(1, model.queue.waiting_of(owner))
        return model.returning.refuse(owner, excess_s, pace_s, now, self._luck())

    def _place(self, call: Visit, now: float, left: tuple[Allowance, ...] = ()) -> Place:
        """Where it stands; 0 when it has started."""
        if call.deployment is None:
            position, eta_s = call.model.where(call.wish.call_id, now)
            waited_s, ran_s = now - call.entered_at, 0.0
        else:
            started_at = call.started_at or now
            position, eta_s, waited_s, ran_s = 0, 0.0, started_at - call.entered_at, now - started_at
        wish = call.wish
        return Place(
            wish.call_id, wish.model, position, eta_s, waited_s, ran_s, call.came_at, call.expected_s, left
        )

    def _look_around(self, model: ModelQueue) -> None:
        """Work out where those stand who wait: newcomers are judged by it, and told by it."""
        model.look(self._clock())
        waiting = len(model.queue)
        delay_s = max(LOOK_S, waiting / PLACES_PER_S)
        loop = asyncio.get_running_loop()
        model.looking = loop.call_later(delay_s, self._look_around, model) if waiting else None

    def _tell(self, call: Visit, left: Sequence[Allowance]) -> None:
        """Say where a call stands, if it still waits when its limits have been asked."""
        if call.on_place is not None and call.deployment is None and call.wish.call_id in self._calls:
            call.on_place(self._place(call, self._clock(), tuple(left)))
