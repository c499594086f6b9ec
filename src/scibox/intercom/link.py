"""A worker's end of the intercom: asks the main process, and calls again when the connection is lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import cast

from msgspec import Raw

from .frames import Answer, Ask, Drop, Failed, Message, NoFrame, Note, Splitter, Tell, body, error, frame

RETRIES_S = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)  # the last one again and again
Heard = Callable[[Raw], None]


class LinkLost(Exception):
    """The main process cannot be asked now."""


class _Open:
    """What was asked and is not answered yet."""

    __slots__ = ("on_note", "on_stray", "result")

    def __init__(self, on_note: Heard | None, on_stray: Heard | None) -> None:
        self.result: asyncio.Future[Raw] = asyncio.get_running_loop().create_future()
        self.on_note = on_note
        self.on_stray = on_stray


class Link:
    """One connection for everything a worker asks and tells. `told` hears what the main process tells."""

    def __init__(self, path: Path) -> None:
        self.told: dict[str, Heard] = {}
        self.changed: list[Callable[[], None]] = []  # called when the connection is there or lost
        self._path = path
        self._refs = itertools.count()
        self._asked: dict[int, _Open] = {}
        self._connection: _Connection | None = None
        self._calling: asyncio.Task[None] | None = None
        self._is_over = False

    @property
    def is_up(self) -> bool:
        """Whether the main process can be asked."""
        return self._connection is not None

    async def connect(self) -> None:
        """The first connection; OSError where there is none to be had."""
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: _Connection(self), str(self._path))

    def close(self) -> None:
        """Hang up for good."""
        self._is_over = True
        if self._calling is not None:
            self._calling.cancel()
        if self._connection is not None:
            self._connection.transport.close()

    def tell(self, what: str, about: object = None) -> None:
        """Something that the main process should know; lost while it cannot be reached. Never waits."""
        self._send(Tell(what, Raw(body(about))))

    async def ask(
        self, what: str, about: object, on_note: Heard | None = None, on_stray: Heard | None = None
    ) -> Raw:
        """The answer, or the error that the main process raised, or `LinkLost`.

        `on_note` hears how it stands meanwhile. Cancelled, it tells the main process so; the answer may be on
        its way already, and `on_stray` is who undoes what it granted.
        """
        if self._connection is None:
            raise LinkLost
        ref = next(self._refs)
        asked = self._asked[ref] = _Open(on_note, on_stray)
        self._send(Ask(ref, what, Raw(body(about))))
        try:
            return await asked.result
        except asyncio.CancelledError:
            if ref not in self._asked and not asked.result.cancelled() and not asked.result.exception():
                self._stray(asked, asked.result.result())  # it came in this very moment
            self._send(Drop(ref))
            raise

    def _send(self, message: Message) -> None:
        if self._connection is not None:
            self._connection.transport.write(frame(message))

    # what the connection calls

    def opened(self, connection: _Connection) -> None:
        """The main process can be asked from now on."""
        self._connection = connection
        for changed in self.changed:
            changed()

    def lost(self) -> None:
        """It cannot be asked any more: whoever waits must know, and it is called again."""
        if self._connection is None:
            return
        self._connection = None
        asked, self._asked = self._asked, {}
        for one in asked.values():
            if not one.result.done():
                one.result.set_exception(LinkLost())
        if self._is_over:
            return
        for changed in self.changed:
            changed()
        self._calling = asyncio.create_task(self._call_again())

    def take(self, message: Message) -> None:
        """Something that the main process says."""
        match message:
            case Note():
                one = self._asked.get(message.ref)
                if one is not None and one.on_note is not None and not one.result.done():
                    one.on_note(message.body)
            case Answer():
                if (one := self._asked.pop(message.ref, None)) is not None:
                    if one.result.done():  # cancelled
                        self._stray(one, message.body)
                    else:
                        one.result.set_result(message.body)
            case Failed():
                one = self._asked.pop(message.ref, None)
                if one is not None and not one.result.done():
                    one.result.set_exception(error(message.fault))
            case Tell():
                if (heard := self.told.get(message.what)) is not None:
                    heard(message.body)
            case _:
                raise NoFrame(f"{type(message).__name__} from the main process")

    def _stray(self, one: _Open, answer: Raw) -> None:
        if one.on_stray is not None:
            one.on_stray(answer)

    async def _call_again(self) -> None:
        for delay_s in itertools.chain(RETRIES_S, itertools.repeat(RETRIES_S[-1])):
            await asyncio.sleep(delay_s)
            try:
                await self.connect()
            except OSError:
                continue
            return


class _Connection(asyncio.Protocol):
    def __init__(self, link: Link) -> None:
        self._link = link
        self._splitter = Splitter()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._link.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._splitter.feed(data):
                self._link.take(message)
        except NoFrame:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.lost()
