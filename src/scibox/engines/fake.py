"""A fake engine: answers like llama-server, and fails as its script says. The tests of all rooms use it.

It keeps the ground truth: what it was asked, what it has answered, and which clients left early. Headers
leave with the first byte of the body (as llama-server does it), so a fault after 0 chunks shows no headers.
Run as a child it is the smallest engine there is: `python -m scibox.engines.fake`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httptools
import msgspec

from scibox.engines.child import begin
from scibox.engines.fake_answers import answer, reset
from scibox.engines.fake_dialect import Usage
from scibox.engines.fake_script import Answered, Broken, Left, Received, Running, Script


class FakeEngine:
    """A server at `unix:/path` or `http://127.0.0.1:port` (0: any free one; `address` then tells which).

    `script` holds for every call; scripts in `next_scripts` are used up first, one per call. A call is one
    of chat and embeddings; `in_flight`, `abandoned` (the client left early), `broken` (by the script) and
    `answers` count calls, `requests` holds everything that came, models and health too; `report` hears of
    each call's end. `prompt_end` is what its chat template writes last, `owned_by` what it says of itself in
    `/v1/models`.
    """

    def __init__(
        self,
        address: str,
        *,
        name: str = "fake",
        script: Script | None = None,
        context: int = 8192,
        dimensions: int = 32,
        loading: bool = False,
        prompt_end: str = "",
        owned_by: str = "scibox",
        report: Callable[[Answered | Left], None] | None = None,
    ) -> None:
        self.address = address
        self.name = name
        self.script = script or Script()
        self.next_scripts: deque[Script] = deque()
        self.context = context
        self.dimensions = dimensions
        self.loading = loading
        self.prompt_end = prompt_end
        self.owned_by = owned_by
        self.requests: list[Received] = []
        self.answers: list[Answered] = []
        self._report = report
        self.in_flight = 0
        self.abandoned = 0
        self.broken = 0
        self.connections = 0
        self.created = int(time.time())
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def finished(self) -> int:
        """Calls answered to the last byte."""
        return len(self.answers)

    async def start(self) -> None:
        """Listen; OSError when the address cannot be had."""
        if self.address.startswith("unix:"):
            self._server = await asyncio.start_unix_server(self._accept, self.address.removeprefix("unix:"))
            return
        host, _, port = self.address.removeprefix("http://").rstrip("/").rpartition(":")
        self._server = await asyncio.start_server(self._accept, host, int(port))
        self.address = f"http://{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening and drop every connection; the same object may start again at the same address."""
        if self._server is None:
            return
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._server = None
        if self.address.startswith("unix:"):
            _unlink(self.address.removeprefix("unix:"))

    async def __aenter__(self) -> FakeEngine:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def take_script(self) -> Script:
        """The script for the call that begins now."""
        return self.next_scripts.popleft() if self.next_scripts else self.script

    @contextmanager
    def call(self, request: Received) -> Iterator[Running]:
        """Count a call while it runs, and how it ended when it did not end well."""
        self.in_flight += 1
        running = Running(request.headers.get("x-request-id", ""))
        try:
            yield running
        except Broken:
            self.broken += 1
            raise
        except (asyncio.CancelledError, ConnectionError):
            self.abandoned += 1
            if self._report:
                self._report(Left(running.request_id, running.completion_tokens))
            raise
        finally:
            self.in_flight -= 1

    def answered(self, id: str, usage: Usage, running: Running) -> None:  # noqa: A002 - as the wire has it
        """The last byte of an answer was handed to the socket."""
        answered = Answered(id, usage, running.request_id)
        self.answers.append(answered)
        if self._report:
            self._report(answered)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.script.refuse:
            reset(writer)
            return
        task = asyncio.ensure_future(Connection(self, reader, writer).run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())  # also when cancelled before its first step


class Connection:
    """One client: reads all the time, so that leaving is seen at once, and answers requests in turn."""

    def __init__(
        self, engine: FakeEngine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.engine = engine
        self.reader = reader
        self.writer = writer
        self.parser = httptools.HttpRequestParser(self)
        self.pending: asyncio.Queue[Received] = asyncio.Queue()
        self.path = b""
        self.headers: dict[str, str] = {}
        self.body = bytearray()

    async def run(self) -> None:
        """Serve until the client leaves or the script ends the connection."""
        self.engine.connections += 1
        answering = asyncio.ensure_future(self._answer_all())
        reading = asyncio.ensure_future(self._read_all())
        try:
            await asyncio.wait({answering, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.engine.connections -= 1
            for task in (answering, reading):
                task.cancel()
            await asyncio.gather(answering, reading, return_exceptions=True)
            self.writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await self.writer.wait_closed()

    async def _read_all(self) -> None:
        with suppress(ConnectionError, httptools.HttpParserError):
            while data := await self.reader.read(65_536):
                self.parser.feed_data(data)

    async def _answer_all(self) -> None:
        with suppress(Broken, ConnectionError):
            while True:
                await answer(self.engine, self.writer, await self.pending.get())

    def on_message_begin(self) -> None:
        """httptools: a request begins."""
        self.path, self.headers, self.body = b"", {}, bytearray()

    def on_url(self, url: bytes) -> None:
        """httptools: a piece of the path."""
        self.path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """httptools: a piece of the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """httptools: the request is whole."""
        body = bytes(self.body)
        decoded = None
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            decoded = msgspec.json.decode(body) if body else None
        path = self.path.decode("latin-1").partition("?")[0]
        received = Received(self.parser.get_method().decode(), path, self.headers, body, decoded)
        self.engine.requests.append(received)
        self.pending.put_nowait(received)


def _unlink(path: str) -> None:
    Path(path).unlink(missing_ok=True)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fake as a child: `load_s` is how long it pretends to load, 503 from `/health` meanwhile."""

    socket: str
    name: str = "fake"
    context: int = 8192
    dimensions: int = 32
    load_s: float = 0.0
    chunk_delay_s: float = 0.0


async def serve(settings: Settings) -> None:
    """Answer on the settings' socket until the process ends."""
    engine = FakeEngine(
        f"unix:{settings.socket}",
        name=settings.name,
        script=Script(chunk_delay_s=settings.chunk_delay_s),
        context=settings.context,
        dimensions=settings.dimensions,
        loading=settings.load_s > 0,
    )
    async with engine:
        await asyncio.sleep(settings.load_s)
        engine.loading = False
        await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(serve(begin(Settings))))
