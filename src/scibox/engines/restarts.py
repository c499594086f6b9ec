"""When to start an engine again: pure, with the clock as an argument."""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST_DELAY_S = 0.5  # of the second restart in a row; the first comes at once
MAX_DELAY_S = 30.0
HEALTHY_S = 60.0  # an engine that ran this long died of something new
PERMANENT_CODES = frozenset({64, 65})  # child.EXIT_BAD_SETTINGS, child.EXIT_CANNOT_LOAD
FIRST_START_TRIES = 3


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often an engine has ended since it was last healthy for long; times in seconds of one clock."""

    failures: int = 0
    ready_at: float | None = None
    was_ready: bool = False

    def ready(self, now: float) -> Restarts:
        """The engine answers."""
        return replace(self, ready_at=now, was_ready=True)

    def ended(self, now: float) -> Restarts:
        """The engine is gone, or never became ready."""
        healthy = self.ready_at is not None and now - self.ready_at >= HEALTHY_S
        return replace(self, failures=1 if healthy else self.failures + 1, ready_at=None)

    @property
    def delay_s(self) -> float:
        """Seconds to wait before the next start: 0, 0.5, 1, 2, ... 30."""
        if self.failures <= 1:
            return 0.0
        return min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self.failures - 2, 16))

    def is_hopeless(self, exit_code: int | None) -> bool:
        """Whether to give up: only an engine that never answered, and that says so itself or fails again.

        One that has answered before is started again for ever: its files may come back.
        """
        if self.was_ready:
            return False
        return exit_code in PERMANENT_CODES or self.failures >= FIRST_START_TRIES
