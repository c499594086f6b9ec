"""The load of the comparison: kept connections that ask, and notice when an answer is whole.

No HTTP library: what it costs is taken from the core that the mock upstream has too.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding: *chunked")
_EVENT = b'"delta":'
LOST_S = 20.0


class Failed(Exception):
    """A gateway that does not answer as it should; the text says what it did."""


class Connection(asyncio.Protocol):
    """One kept connection; `asked` is called with the seconds when an answer is whole."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._done: Callable[[Connection], None] = lambda _: None
        self._reset()

    def _reset(self) -> None:
        self._data = b""
        self._wanted: int | None = None  # bytes of the whole answer; 0: chunked
        self.asked_at = self.first_at = self.took_s = 0.0
        self.events = 0
        self.is_ok = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def ask(self, request: bytes, done: Callable[[Connection], None], at: float | None = None) -> None:
        """Send a request; `at` is when it should have left, where that was earlier."""
        self._reset()
        self._done = done
        self.asked_at = time.perf_counter() if at is None else at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._wanted is None:
            data = self._data + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._data = data
                return
            self._begin(data, end)
            return
        if self._wanted:
            self._size += len(data)
            if self._size >= self._wanted:
                self._end()
        else:
            self._chunks(data)

    def _begin(self, data: bytes, end: int) -> None:
        self.is_ok = data.startswith(b"HTTP/1.1 200")
        if not self.is_ok:
            self._data = data
        length = _LENGTH.search(data, 0, end + 2)
        if length:
            self._wanted = end + 4 + int(length[1])
            self._size = len(data)
            if self._size >= self._wanted:
                self._end()
        elif _CHUNKED.search(data, 0, end + 2):
            self._wanted, self._data = 0, b""
            self._chunks(data[end + 4 :])
        else:
            raise Failed(f"an answer without a length: {data[:300]!r}")

    def _chunks(self, data: bytes) -> None:
        data = self._data + data
        found = data.count(_EVENT)
        if found:
            self.events += found
            if not self.first_at:
                self.first_at = time.perf_counter()
        if data.endswith(b"0\r\n\r\n"):
            self._end()
            return
        # What follows the last event that was counted, for one that came in two pieces.
        self._data = data[data.rfind(_EVENT) + len(_EVENT) :][-16:] if found else data[-16:]

    def _end(self) -> None:
        self.took_s = time.perf_counter() - self.asked_at
        if not self.is_ok:
            raise Failed(f"refused: {self._data[:600]!r}")
        self._done(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_ok = False

    def close(self) -> None:
        self._transport.abort()


async def connections(port: int, count: int) -> list[Connection]:
    loop = asyncio.get_running_loop()
    found: list[Connection] = []
    for first in range(0, count, 100):
        some = [loop.create_connection(Connection, "127.0.0.1", port) for _ in range(min(100, count - first))]
        found += [connection for _, connection in await asyncio.gather(*some)]
    return found


@dataclass
class Taken:
    """What a load has seen."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)  # time to the first event
    events: int = 0
    missing: int = 0  # events that a stream should have had

    @property
    def calls(self) -> int:
        return len(self.latencies_s)


Request = Callable[[], bytes]


async def _guarded(work: asyncio.Future[None], limit_s: float) -> None:
    """The load's end; an error in a protocol's callback goes to the loop's handler, which ends it too."""
    loop = asyncio.get_running_loop()

    def on_error(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        if not work.done():
            work.set_exception(context.get("exception") or Failed(str(context)))  # type: ignore[arg-type]

    loop.set_exception_handler(on_error)
    try:
        await asyncio.wait_for(work, limit_s)
    except TimeoutError:
        raise Failed(f"answers are missing after {limit_s:.0f} s") from None
    finally:
        loop.set_exception_handler(None)


async def closed(port: int, request: Request, count: int, seconds: float) -> Taken:
    """As many calls as `count` connections can make, each after the last."""
    pool = await connections(port, count)
    taken, ended = Taken(), asyncio.get_running_loop().create_future()
    began = time.perf_counter()
    until = began + seconds
    open_calls = count

    def done(connection: Connection) -> None:
        nonlocal open_calls
        taken.latencies_s.append(connection.took_s)
        if time.perf_counter() < until:
            connection.ask(request(), done)
            return
        open_calls -= 1
        if not open_calls and not ended.done():
            ended.set_result(None)

    for connection in pool:
        connection.ask(request(), done)
    await _guarded(ended, seconds + LOST_S)
    taken.seconds = time.perf_counter() - began
    for connection in pool:
        connection.close()
    return taken


async def paced(port: int, request: Request, per_s: float, seconds: float, count: int = 64) -> Taken:
    """So many calls per second, whether the earlier ones have been answered or not; late ones count from their time."""
    idle = deque(await connections(port, count))
    pool = list(idle)
    taken, loop = Taken(), asyncio.get_running_loop()
    ended = loop.create_future()
    total, sent = int(per_s * seconds), 0
    waiting: deque[float] = deque()
    began = time.perf_counter()

    def done(connection: Connection) -> None:
        taken.latencies_s.append(connection.took_s)
        if waiting:
            connection.ask(request(), done, waiting.popleft())
        else:
            idle.append(connection)
        if len(taken.latencies_s) == total and not ended.done():
            ended.set_result(None)

    def tick() -> None:
        nonlocal sent
        now = time.perf_counter()
        while sent < total and began + sent / per_s <= now:
            if idle:
                idle.popleft().ask(request(), done)
            else:
                waiting.append(began + sent / per_s)
            sent += 1
        if sent < total:
            loop.call_later(max(0.0, began + sent / per_s - time.perf_counter()), tick)

    tick()
    await _guarded(ended, seconds + LOST_S)
    taken.seconds = time.perf_counter() - began
    for connection in pool:
        connection.close()
    return taken


async def streams(  # noqa: PLR0917 - a bench
    port: int, request: Request, count: int, events: int, seconds: float, pace_s: float
) -> Taken:
    """`count` streams at a time, each followed by the next; every stream should have so many events.

    An event of each comes every `pace_s`; they begin one after the other, until half of the first has come.
    """
    pool = await connections(port, count)
    taken, loop = Taken(), asyncio.get_running_loop()
    ended = loop.create_future()
    began = time.perf_counter()
    until = began + seconds
    running = count

    def done(connection: Connection) -> None:
        nonlocal running
        taken.latencies_s.append(connection.took_s)
        taken.first_s.append(connection.first_at - connection.asked_at)
        taken.events += connection.events
        taken.missing += max(0, events - connection.events)
        if time.perf_counter() < until:
            connection.ask(request(), done)
            return
        running -= 1
        if not running and not ended.done():
            ended.set_result(None)

    for number, connection in enumerate(pool):  # streams of callers who know nothing of each other
        loop.call_later(number * events * pace_s / 2 / count, connection.ask, request(), done)
    await _guarded(ended, seconds + LOST_S + 3 * events * pace_s)
    taken.seconds = time.perf_counter() - began
    for connection in pool:
        connection.close()
    return taken
