"""Events as log lines: one line per call, never a prompt, an answer or a secret."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from scibox.core.entries import Entry
from scibox.core.events import Event, Notice, Refused


class Log:
    """Writes events to a stream for people; `emit` never fails and never waits for long."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def emit(self, event: Event) -> None:
        """One event, one line."""
        stamp = time.strftime("%H:%M:%S")
        try:
            self._stream.write(f"{stamp} {line(event)}\n")
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
