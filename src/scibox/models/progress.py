"""Telling a person how a download goes: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol, TextIO

LINE_EVERY_S = 5.0  # often enough to show life, seldom enough for a log


class Progress(Protocol):
    """What a fetch says while it works."""

    def note(self, text: str) -> None:
        """Say one sentence."""

    def start(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        """Begin (or begin again) a counted step with `done_bytes` already there."""

    def advance(self, count: int) -> None:
        """Count `count` more bytes of the step."""

    def finish(self) -> None:
        """End the step; without a step it does nothing."""


class Silent:
    """Says nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def start(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        """Count nothing."""

    def advance(self, count: int) -> None:
        """Count nothing."""

    def finish(self) -> None:
        """End nothing."""


class Bar:
    """A tqdm bar on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from tqdm import tqdm  # noqa: PLC0415  imported late: most starts show no bar

        self._stream = stream
        self._tqdm: Any = tqdm  # it ships no types
        self._bar: Any = None

    def note(self, text: str) -> None:
        """Write a sentence above the bar."""
        self._tqdm.write(text, file=self._stream)

    def start(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        """Draw a new bar."""
        self.finish()
        self._bar = self._tqdm(
            desc=label, initial=done_bytes, total=total_bytes, unit="B", unit_scale=True, file=self._stream
        )

    def advance(self, count: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(count)

    def finish(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Lines:
    """A plain line every few seconds, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._label = ""
        self._done = 0
        self._total: int | None = None
        self._next_at = 0.0

    def note(self, text: str) -> None:
        """Write a sentence."""
        print(text, file=self._stream, flush=True)

    def start(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        """Say what begins."""
        self._label, self._done, self._total = label, done_bytes, total_bytes
        self._next_at = time.monotonic() + LINE_EVERY_S
        self.note(self._line())

    def advance(self, count: int) -> None:
        """Count, and write a line when one is due."""
        self._done += count
        now = time.monotonic()
        if now >= self._next_at:
            self._next_at = now + LINE_EVERY_S
            self.note(self._line())

    def finish(self) -> None:
        """Say how far it came."""
        if self._label:
            self.note(self._line())
            self._label = ""

    def _line(self) -> str:
        if not self._total:
            return f"{self._label}: {self._done / 1e6:.0f} MB"
        share = 100 * self._done // self._total
        return f"{self._label}: {self._done / 1e6:.0f} of {self._total / 1e6:.0f} MB ({share} %)"


def progress_on(stream: TextIO | None = None) -> Progress:
    """Return a bar where `stream` (stderr) is a terminal, lines where it is not."""
    stream = stream or sys.stderr
    return Bar(stream) if stream.isatty() else Lines(stream)
