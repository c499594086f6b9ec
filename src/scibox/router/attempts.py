"""Where a call goes next, until it is answered: replicas of the granted deployment, then other deployments.

    could not be reached, is busy   another replica at once: it has worked on nothing
    failed, broke off, was late     another replica after a short pause, if the budget of retries allows
    refuses the gateway itself      the next deployment: its equals are configured alike
    a child of ours is restarted    waited for, where nobody else can answer
    no replica takes calls          the error, and when to come again

No replica is tried twice, but a child of ours that comes back. A call that has lost its server several times
may be what kills them: it is not given to another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scibox.core.errors import (
    SciBoxError,
    UpstreamBroken,
    UpstreamBusy,
    UpstreamLost,
    UpstreamMisconfigured,
    UpstreamUnavailable,
)
from scibox.core.prefixes import beginning
from scibox.core.pulse import Flight
from scibox.core.spending import Budget
from scibox.core.types import Call

from .replica import Replica, Route, Witness
from .trouble import resting, words_on

RESTART_PATIENCE_S = 15.0  # a child of ours that died is back within seconds: wait for it
RETRY_PAUSE_S = 0.05  # before a retry on the mean: whatever hit the first may pass
MOST_RETRIES = 3  # of a call in one deployment, whatever the budget
MOST_DEATHS = 2  # children of ours that may die of one call
MOST_LOSSES = 3  # servers of all kinds


class Attempts:
    """Of one call. Never sleeps, never connects. `now` is in monotonic seconds, `luck` in 0..1."""

    __slots__ = (
        "_avoid",
        "_budget",
        "_call",
        "_given_up",
        "_is_on_its_own",
        "_losses",
        "_luck",
        "_order",
        "_patient_until",
        "_polls",
        "_retries",
        "_route",
        "_was_told_to_wait",
        "deployment",
        "failure",
        "pause_s",
    )

    def __init__(
        self, call: Call, route: Route, first: int, budget: Budget, luck: Callable[[], float]
    ) -> None:
        self._call = call
        self._route = route
        self._budget = budget
        self._luck = luck
        count = len(route.deployments)
        self.deployment = first if first < count else 0  # the index of the one whose replica is tried
        self.failure: SciBoxError | None = None  # the last
        self.pause_s = 0.0  # before what `next` has returned is tried
        self._order = (self.deployment, *(at for at in range(count) if at != self.deployment))
        self._avoid: list[Replica] = []  # those that have failed this call
        self._given_up: list[Replica] = []  # children of ours that are not waited for
        self._retries: dict[int, int] = {}  # by deployment: attempts there that cost its replicas work
        self._losses = 0
        self._patient_until: float | None = None
        self._was_told_to_wait = False
        self._polls = 0
        self._is_on_its_own = False

    def next(self, now: float) -> Flight[Replica] | None:
        """The attempt begins there; None: ask again in a moment. Raises what the caller is told at last."""
        self.pause_s = 0.0
        self._is_on_its_own = False
        for at in self._order if self._losses < MOST_LOSSES else ():
            flight = self._retry(at, now) if at in self._retries else self._begin(at, now)
            if flight is not None:
                self.deployment = at
                return flight
        return self._anyway(now)

    def beside(self, now: float) -> Flight[Replica] | None:
        """Another replica of the same deployment, for a second attempt beside the one on its way."""
        return self._begin(self.deployment, now)

    def begun(self, flight: Flight[Replica]) -> None:
        """It is on its way: whatever comes next goes to others."""
        self._avoid.append(flight.member)

    @property
    def is_fresh(self) -> bool:
        """Whether what `next` has returned is no retry and no last resort."""
        return not self.pause_s and not self._is_on_its_own

    @property
    def is_poll(self) -> bool:
        """Whether what `next` has returned only looks again whether a child is back: not a new attempt."""
        return self._is_on_its_own and self._polls > 1

    def failed(self, flight: Flight[Replica], error: SciBoxError, now: float) -> None:
        """What became of an attempt; the caller's own faults do not come here."""
        replica = flight.member
        self.failure = error
        self._avoid.append(replica)
        replica.failed(words_on(error), error.code)
        if isinstance(error, UpstreamBusy):
            flight.refuse(now, error.opens_in_s)
        elif self._is_on_its_own and isinstance(error, UpstreamUnavailable):
            flight.abandon(now)  # it was known to be away
        else:
            flight.fail(now, self._luck())
        if isinstance(error, UpstreamMisconfigured):
            self._avoid += self._route.deployments[self.deployment].replicas
        elif isinstance(error, UpstreamLost):
            self._losses += 1
            if self._losses >= MOST_DEATHS:
                self._avoid += [one for one in self._route.replicas if one.is_local]
        if not isinstance(error, UpstreamUnavailable | UpstreamLost):
            self._given_up.append(replica)
        if not _is_free(error, replica):
            self._retries.setdefault(self.deployment, 0)

    def _retry(self, at: int, now: float) -> Flight[Replica] | None:
        """Another replica of a deployment that has worked on this call in vain."""
        if self._retries[at] >= MOST_RETRIES or not self._budget.left(now):
            return None
        flight = self._begin(at, now)
        if flight is not None:
            self._budget.take(now)
            self._retries[at] += 1
            self.pause_s = RETRY_PAUSE_S * (0.5 + self._luck())
        return flight

    def _begin(self, at: int, now: float) -> Flight[Replica] | None:
        choice, call = self._route.deployments[at].choice, self._call
        if len(choice) == 1 and not self._avoid:
            return choice.begin(now, size=call.text_bytes, tells_first=call.stream)
        start = beginning(call.fields) if call.kind == "chat" else b""
        return choice.begin(now, start, call.text_bytes, call.stream, self._avoid)

    def _anyway(self, now: float) -> Flight[Replica] | None:
        """Nobody takes the call: go where it is worth a try all the same, wait, or give up."""
        restarting = self._restarting()
        if restarting:
            if self._patient_until is None:
                self._patient_until = now + RESTART_PATIENCE_S
            if now <= self._patient_until:
                if self.failure is not None and not self._was_told_to_wait:
                    self._was_told_to_wait = True
                    return None
                self._was_told_to_wait = False
                return self._go(*restarting[self._polls % len(restarting)], now)
        elif self.failure is None:
            # A server that answers, if only with errors: it costs nobody's time, and what makes it fail may
            # be one caller's input.
            failing = [(at, one) for at, one in self._each() if one.fault == UpstreamBroken.code]
            if failing:
                return self._go(*min(failing, key=lambda each: each[1].pulse.in_flight), now)
        raise self._refusal(now)

    def _restarting(self) -> list[tuple[int, Replica]]:
        """Children of ours that may be back soon."""
        if self._losses >= MOST_DEATHS:
            return []
        return [
            (at, one)
            for at, one in self._each()
            if one.is_local and not any(one is other for other in self._given_up)
        ]

    def _each(self) -> list[tuple[int, Replica]]:
        deployments = self._route.deployments
        return [(at, one) for at in self._order for one in deployments[at].replicas if not one.is_draining]

    def _go(self, at: int, replica: Replica, now: float) -> Flight[Replica]:
        self._polls += 1
        self._is_on_its_own = True
        self.deployment = at
        return replica.pulse.begin(now, self._call.text_bytes, self._call.stream)

    def _refusal(self, now: float) -> SciBoxError:
        """The last failure, or why there is none; with the time after which another try is of use."""
        deployments = self._route.deployments
        wait_s = min((one.choice.wait_s(now) for one in deployments), default=math.inf)
        failure = self.failure or resting([one.fault for _, one in self._each()])
        if isinstance(failure, UpstreamUnavailable) and 0.0 < wait_s < math.inf:
            failure.retry_after_s = min(60, max(1, math.ceil(wait_s)))
        return failure


def _is_free(error: SciBoxError, replica: Replica) -> bool:
    """Whether the replica has not worked on the call: it was not reached, or has said so itself."""
    if isinstance(error, UpstreamUnavailable):
        return replica.is_local or isinstance(error, UpstreamBusy) or error.code == UpstreamUnavailable.code
    return isinstance(error, UpstreamMisconfigured)


@dataclass(frozen=True, slots=True)
class Way:
    """One call on its way through the router; `ends_at` is of the loop's clock."""

    call: Call
    route: Route
    witness: Witness
    ends_at: float
    attempts: Attempts
