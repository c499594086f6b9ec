"""Connections from one listening socket to several processes.

The main process accepts and hands each connection to the worker that has fewest. From a socket that workers
share, whoever wakes first takes: that puts 60 of 64 connections on one of two. Sockets of their own
(SO_REUSEPORT) spread by chance, lose what waits in the queue of a worker that ends, and let a second service
take the same port. Here nothing waits at a worker that is not there, and a new one is used at once.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress

AT_ONCE = 64  # connections accepted in one turn of the event loop
PAUSE_S = 0.05  # when nobody can take one more, or there are no descriptors left
_BYTE = b"+"  # descriptors travel with a byte


class Lane:
    """The way to one worker; the descriptor `end` is inherited by it, and by the next in its place."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        self.end = self._theirs.fileno()
        self.is_open = False  # whether the worker takes connections
        self._handed = 0
        self._taken = 0
        self._held = 0

    @property
    def load(self) -> int:
        """Connections that the worker has, and those on their way."""
        return self._held + self._handed - self._taken

    def told(self, taken: int, held: int) -> None:
        """What the worker says: how many it has taken so far, and how many it has now."""
        self._taken, self._held = taken, held

    def hand(self, connection: socket.socket) -> bool:
        """Whether the worker will get it; False where it has too many to take already."""
        try:
            socket.send_fds(self._ours, [_BYTE], [connection.fileno()])
        except OSError:
            return False
        self._handed += 1
        return True

    def shut(self) -> list[socket.socket]:
        """The worker is gone: what it has not taken, for somebody else."""
        self.is_open = False
        self._handed = self._taken = self._held = 0
        return taken(self._theirs)

    def close(self) -> None:
        """There will be no other worker in this place."""
        self._ours.close()
        self._theirs.close()


class Usher:
    """Accepts, and hands on. While no lane is open, connections wait in the kernel."""

    def __init__(self, listener: socket.socket, warn: Callable[[str], None]) -> None:
        self._listener = listener
        self._warn = warn
        self._lanes: list[Lane] = []  # the one that got a connection last is the last
        self._waiting: list[socket.socket] = []  # accepted, and nobody can take them now
        self._is_accepting = False
        self._is_stopped = False
        self._resume: asyncio.TimerHandle | None = None

    def add(self, lane: Lane) -> None:
        """One more place for a worker."""
        self._lanes.append(lane)

    def open(self, lane: Lane) -> None:
        """Its worker takes connections from now on."""
        lane.is_open = True
        self._go_on()

    def shut(self, lane: Lane) -> None:
        """Its worker is gone."""
        self._waiting += lane.shut()
        self._go_on()

    def remove(self, lane: Lane) -> None:
        """There will be no other worker in its place."""
        self.shut(lane)
        self._lanes.remove(lane)
        lane.close()

    def stop(self) -> None:
        """Accept no more; connections that nobody has taken are closed."""
        self._is_stopped = True
        self._pause()
        if self._resume is not None:
            self._resume.cancel()
        for connection in self._waiting:
            connection.close()
        self._waiting.clear()

    def _go_on(self) -> None:
        if self._is_stopped:
            return
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            self._hand(connection)
        if self._waiting:
            self._pause()
            self._try_later()
        elif not self._is_accepting and any(lane.is_open for lane in self._lanes):
            self._is_accepting = True
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:  # no descriptors left, above all
                self._warn(f"no connection can be accepted now: {os.strerror(error.errno or errno.EIO)}")
                self._pause()
                self._try_later()
                return
            if not self._hand(connection):
                self._pause()
                self._try_later()
                return

    def _hand(self, connection: socket.socket) -> bool:
        for lane in sorted((lane for lane in self._lanes if lane.is_open), key=lambda lane: lane.load):
            if lane.hand(connection):
                self._lanes.remove(lane)  # of several that have as few, the next is another
                self._lanes.append(lane)
                connection.close()  # the worker has its own descriptor
                return True
        self._waiting.append(connection)
        return False

    def _pause(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            asyncio.get_running_loop().remove_reader(self._listener.fileno())

    def _try_later(self) -> None:
        if self._resume is None:
            self._resume = asyncio.get_running_loop().call_later(PAUSE_S, self._on_time)

    def _on_time(self) -> None:
        self._resume = None
        self._go_on()


class Taking:
    """A worker's end: `take` gets each connection; `tell` hears how many have come and how many are here."""

    def __init__(
        self,
        descriptor: int,
        take: Callable[[socket.socket], None],
        held: Callable[[], int],
        tell: Callable[[int, int], None],
    ) -> None:
        self._end = socket.socket(fileno=descriptor)
        self._end.setblocking(False)
        self._take = take
        self._held = held
        self._tell = tell
        self._taken = 0
        self._told = (0, 0)

    async def run(self, every_s: float = 0.1) -> None:
        """For ever; cancelled, it takes no more."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._end.fileno(), self._come)
        try:
            while True:
                await asyncio.sleep(every_s)
                now = (self._taken, self._held())
                if now != self._told:
                    self._told = now
                    self._tell(*now)
        finally:
            loop.remove_reader(self._end.fileno())
            self._end.close()

    def _come(self) -> None:
        for connection in taken(self._end):
            self._taken += 1
            self._take(connection)


def taken(end: socket.socket) -> list[socket.socket]:
    """The connections that wait at this end; never waits itself."""
    found: list[socket.socket] = []
    with suppress(BlockingIOError):
        while True:
            data, descriptors, _, _ = socket.recv_fds(end, AT_ONCE, AT_ONCE)
            found += [socket.socket(fileno=descriptor) for descriptor in descriptors]
            if not data:
                break
    return found
