"""Server-sent events: any split of the bytes gives the same events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from scibox.core.errors import UpstreamBroken

MAX_EVENT_BYTES = 16 * 2**20
DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": heartbeat\n\n"


class EventSplitter:
    """Collects bytes, gives back the `data` of each whole event; comments, ids and names are dropped."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, received: bytes) -> list[bytes]:
        """The data of the events that these bytes complete, in order."""
        if not self._buffer and _is_one(received):  # nearly always
            return [received[6:-2]]
        if b"\r" in received or self._buffer[-1:] == b"\r":
            received = self._unify_line_ends(received)
        self._buffer += received
        events: list[bytes] = []
        start = 0
        while (end := self._buffer.find(b"\n\n", max(start, self._searched))) >= 0:
            data = _data(bytes(self._buffer[start:end]))
            if data is not None:
                events.append(data)
            start = end + 2
        if start:
            del self._buffer[:start]
        self._searched = max(0, len(self._buffer) - 2)  # a line feed, and a CR that may become one
        if len(self._buffer) > MAX_EVENT_BYTES:
            raise UpstreamBroken("The model server sent an event without an end; try again.")
        return events

    @property
    def is_mid_event(self) -> bool:
        """Whether bytes of an unfinished event are held."""
        return bool(self._buffer.strip())

    def _unify_line_ends(self, received: bytes) -> bytes:
        """CRLF and CR become LF; a CR at the very end waits in the buffer for its LF."""
        if self._buffer[-1:] == b"\r":
            del self._buffer[-1:]
            received = b"\r" + received
        held = b""
        if received.endswith(b"\r"):
            received, held = received[:-1], b"\r"
        return received.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held


def render(data: bytes) -> bytes:
    """One event, as every hand-written reader expects it: `data: `, one line, a blank line."""
    return b"data: " + data + b"\n\n"


def _is_one(received: bytes) -> bool:
    """Whether these bytes are one whole event of one line."""
    return (
        received.startswith(b"data: ")
        and received.endswith(b"\n\n")
        and received.find(b"\n") == len(received) - 2
        and b"\r" not in received
    )


def _data(event: bytes) -> bytes | None:
    """The data lines of an event joined by line feeds; None where it has none."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines: list[bytes] = []
    for line in event.split(b"\n"):
        if line.startswith(b"data:"):
            lines.append(line[6:] if line[5:6] == b" " else line[5:])
    return b"\n".join(lines) if lines else None
