"""Events as log lines: one line per call, never a prompt, an answer or a secret."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from typing import TextIO

from scibox.core.entries import Entry
from scibox.core.events import Event, Notice, Refused


class Log:
    """Writes events to a stream for people; `emit` never fails and never waits for long.

    The lines of the calls that end in one turn of the event loop are written together.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._waiting: list[str] = []
        self._second = 0
        self._stamp = ""

    def emit(self, event: Event) -> None:
        """One event, one line."""
        now = int(time.time())
        if now != self._second:
            self._second, self._stamp = now, time.strftime("%H:%M:%S", time.localtime(now))
        self._waiting.append(f"{self._stamp} {line(event)}\n")
        if isinstance(event, Entry):
            if len(self._waiting) > 1:
                return  # the first of them has seen to it
            with suppress(RuntimeError):  # no loop runs in this thread
                asyncio.get_running_loop().call_soon(self.flush)
                return
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        try:
            self._stream.write("".join(waiting))
            self._stream.flush()
        except (OSError, ValueError):  # a closed terminal must not end a call
            return


def line(event: Event) -> str:
    """What the line says after the time."""
    match event:
        case Entry():
            first = "-" if event.first_chunk_s is None else f"{event.first_chunk_s:.3f}s"
            return (
                f"{event.outcome.value:<14} {event.kind} model={event.model} owner={event.owner}"
                f" key={event.key_id} prompt_tokens={event.usage.prompt_tokens}"
                f" completion_tokens={event.usage.completion_tokens} first={first}"
                f" total={event.total_s:.3f}s stream={'yes' if event.stream else 'no'}"
                f"{f' code={event.code}' if event.code else ''} request={event.request_id}"
            )
        case Refused():
            return f"refused        {event.status} {event.code} request={event.request_id}"
        case Notice():
            return f"{'warning' if event.is_warning else 'notice':<14} {event.message}"
