"""What is told of the service itself: whether it can answer, what is broken, in words, and a few facts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

from scibox.core.admission import Load
from scibox.core.conditions import Condition
from scibox.gate.gate import Gate
from scibox.wire.admin import status as wire

State = Literal["ok", "starting"]
Part = Callable[[], Iterable[Condition]]
SLOW_S = 2.0


class Models(Protocol):
    """The models that are served, with their engines and upstreams: `deployed.Deployed`."""

    @property
    def is_ready(self) -> bool:
        """Whether every engine can answer."""

    def answering(self) -> Sequence[str]:
        """The models that can probably answer now."""

    def names(self) -> Sequence[str]:
        """All of them."""

    def conditions(self) -> Sequence[Condition]:
        """How their engines and upstreams are."""


def _unknown(model: str) -> Load:
    return Load(model, 0, 0, 0)


class Status:
    """Asks the parts when it is asked.

    `parts` tell at once how they are; `slow_parts` may have to ask the disk, so they do it in a thread.
    `elsewhere` counts the calls that run in other processes, `load` tells how busy a model is.
    """

    def __init__(
        self,
        gate: Gate,
        models: Models,
        version: str,
        *,
        parts: Sequence[Part] = (),
        slow_parts: Sequence[Part] = (),
        elsewhere: Callable[[], int] = int,
        load: Callable[[str], Load] = _unknown,
    ) -> None:
        self.models = models
        self.is_leaving = False  # clients are to come again to another process of the service
        self._gate = gate
        self._elsewhere = elsewhere
        self._load = load
        self._parts = (models.conditions, *parts)
        self._slow_parts = slow_parts
        self._began_at = time.monotonic()
        self.version = version

    @property
    def state(self) -> State:
        """Whether everything is loaded."""
        return "ok" if self.models.is_ready else "starting"

    @property
    def is_draining(self) -> bool:
        """Whether the service is stopping."""
        return self._gate.is_draining

    def hurdles(self) -> list[str]:
        """Why a call with a good key would not be answered now. Names nothing: anybody may ask."""
        found = []
        if self.is_draining:
            found.append("The service is stopping.")
        if not self.models.answering():
            found.append(
                "No model can answer now: the engines are starting or broken, or no upstream can be reached."
            )
        return found

    async def report(self) -> wire.Status:
        """Everything, for the operator."""
        conditions = [condition for part in self._parts for condition in part()]
        slow = await asyncio.gather(*(self._slowly(part) for part in self._slow_parts))
        broken = [one for one in [*conditions, *(one for found in slow for one in found)] if not one.is_ok]
        hurdles = self.hurdles()
        answering = self.models.answering()
        return wire.Status(
            status="not_ready" if hurdles else "degraded" if broken else "ok",
            hurdles=hurdles,
            broken=[wire.Broken(one.part, one.words, wire.iso(one.since)) for one in broken],
            version=self.version,
            uptime_s=round(time.monotonic() - self._began_at, 1),
            calls_in_flight=self._gate.in_flight + self._elsewhere(),
            models=[self._model(name, name in answering) for name in self.models.names()],
        )

    def _model(self, name: str, can_answer: bool) -> wire.ModelStatus:
        load = self._load(name)
        return wire.ModelStatus(name, can_answer, load.slots, load.running, load.waiting)

    async def _slowly(self, part: Part) -> list[Condition]:
        try:
            async with asyncio.timeout(SLOW_S):
                return list(await asyncio.to_thread(part))
        except TimeoutError:
            return [Condition("disk", False, "The disk of the data folder does not answer: look at it.")]
