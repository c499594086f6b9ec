"""One batch at work: its input is examined, its lines go the way of every call, its results become files.

Whatever ends the process, the work goes on from what is recorded (`store/lines.py`): a line that has a
result does not run again, a line that has none does.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from msgspec.structs import replace

from scibox.core import batches as life
from scibox.core.batches import Batch, Problem
from scibox.core.errors import Draining, InvalidRequest, KeysUnavailable, SciBoxError, Unauthorized
from scibox.core.events import Emit, Notice
from scibox.core.files import File
from scibox.core.types import Key
from scibox.store.lines import Stretch, read
from scibox.store.shelf import Shelf
from scibox.wire.face import Face
from scibox.wire.stored import batches as wire
from scibox.wire.stored.batches import Line, WrongLine
from scibox.wire.stored.files import OUTPUT_PURPOSE

from .disk import Disk
from .files import Limits
from .pipeline import Pipeline
from .recorder import Recorder, persist

T = TypeVar("T")
NO_BOUND = 2**62
KEY_POLL_S = 1.0
GONE = Problem("input_file_missing", "The input file is gone; upload it again and make a new batch.")
Reason = Literal["done", "cancelled", "expired", "stopped"] | Problem
"""Why no more lines run. `stopped`: the service ends, the batch does not."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Of each batch, `concurrency` lines wait for their turn or run; the gate says how many run in all.

    A line whose model cannot answer now is tried again after each of `delays_s`.
    """

    concurrency: int = 2
    delays_s: tuple[float, ...] = (1.0, 5.0, 30.0)


@dataclass(slots=True)
class Tools:
    """What all batches work with. `now` is Unix time in seconds; a reload sets the two bounds anew."""

    pipeline: Pipeline
    faces: Mapping[str, Face]
    shelf: Shelf
    disk: Disk
    pace: Pace
    limits: Limits
    max_line_bytes: int
    emit: Emit
    now: Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a call brought, as it will be recorded."""

    request_id: str
    status: int
    body: bytes
    retry_after_s: int | None = None


class Work:
    """Brings one batch to its end, unless it is interrupted before."""

    def __init__(self, batch: Batch, tools: Tools) -> None:
        self.batch = batch
        self.is_draining = False  # no new line starts
        self._tools = tools
        self._face = tools.faces.get(batch.endpoint.removeprefix("/v1"))
        self._input = tools.shelf.content(batch.input_file_id)
        self._reason: Reason | None = None
        self._interrupted = asyncio.Event()
        self._has_given_back = False  # a line that was to run did not
        if self._face is None:  # this version of the service is another one
            self.interrupt(Problem("invalid_endpoint", f"{batch.endpoint} is not served here any more."))

    def interrupt(self, reason: Reason) -> None:
        """End the lines that run and start no more; the first reason counts."""
        self._reason = self._reason or reason
        self._interrupted.set()

    async def run(self) -> None:
        """Work until the batch is over or the service stops."""
        if self.batch.status == "validating":
            await self._examine()
        if self.batch.is_over:
            return
        tools = self._tools
        recorder = Recorder(self.batch, tools.shelf, tools.disk, tools.emit, self._on_recorded)
        await persist(recorder.open, self.batch.batch_id, tools.emit)
        try:
            reason = self._reason or await self._perform(recorder)
            if reason != "stopped" and len(recorder.done) == self.batch.total:
                reason = "done"
            if reason == "expired":
                await self._record_expired(recorder)
            sizes = await recorder.close()
            if reason != "stopped":
                await self._finish(reason, recorder, sizes)
        finally:
            recorder.drop()

    async def _examine(self) -> None:
        """Validate the input: the batch begins, or fails with what is wrong in which line."""
        total, problems = await self._persist(
            _examine, self._input, self.batch.endpoint, self._tools.max_line_bytes
        )
        if problems:
            await self._change(functools.partial(_end, status="failed", now=self._now(), problems=problems))
        else:
            await self._change(functools.partial(life.begin, total=total, now=self._now()))

    async def _perform(self, recorder: Recorder) -> Reason:
        """Run the lines that have no result yet; says why it ended."""
        if self.batch.status == "cancelling":
            return "cancelled"
        all_lines = asyncio.create_task(self._run_lines(recorder))
        interrupted = asyncio.create_task(self._interrupted.wait())
        try:
            await asyncio.wait(
                {all_lines, interrupted},
                timeout=max(0.0, self.batch.expires_at - self._now()),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for task in (all_lines, interrupted):
                task.cancel()
            await asyncio.gather(all_lines, interrupted, return_exceptions=True)
        if self._reason is not None:
            return self._reason
        if all_lines.cancelled():
            return "expired"
        all_lines.result()
        return "stopped" if self._has_given_back else "done"

    async def _run_lines(self, recorder: Recorder) -> None:
        slots = asyncio.Semaphore(self._tools.pace.concurrency)
        async with asyncio.TaskGroup() as group, aclosing(self._left(recorder)) as lines:
            async for line in lines:
                await slots.acquire()
                await recorder.room()
                if self.batch.is_late(self._now()):
                    self.interrupt("expired")
                if self.is_draining:
                    self._has_given_back = True
                    return
                task = group.create_task(self._run_line(line, recorder))
                task.add_done_callback(lambda _: slots.release())

    async def _left(self, recorder: Recorder) -> AsyncGenerator[Line, None]:
        """The lines without a result, in the order of the input."""
        offset, number = 0, 1
        while True:
            stretch = await self._persist(_stretch, self._input, self.batch.endpoint, offset, number)
            if stretch is None:
                self.interrupt(GONE)
                return
            found, offset, number = stretch
            if not found:
                return
            for line in found:
                if line.custom_id not in recorder.done:
                    yield line

    async def _run_line(self, line: Line, recorder: Recorder) -> None:
        """One line to its result; what may pass is tried again."""
        delays_s = self._tools.pace.delays_s
        attempts = 0
        while True:
            answer = await self._ask(line)
            if answer is None:
                self._has_given_back = True
                return
            attempts += answer.status != life.LIMITED
            delay_s = life.retry_after_s(answer.status, answer.retry_after_s, attempts, delays_s)
            if delay_s is None:
                result = wire.render_answered(
                    _result_id(), line.custom_id, answer.request_id, answer.status, answer.body
                )
                recorder.record(line.custom_id, result, is_failure=answer.status != 200)
                return
            await asyncio.sleep(delay_s)

    async def _ask(self, line: Line) -> _Answer | None:
        """One call, or None when it was not let in and the batch cannot go on."""
        pipeline, face = self._tools.pipeline, self._face
        assert face is not None, "a batch without a face runs no lines"
        request_id = f"req_{secrets.token_hex(12)}"
        try:
            key = await self._key()
            asked = face.parse(request_id, line.body)
            if asked.call.stream:
                raise InvalidRequest("A line of a batch cannot be streamed.", param="stream")
            call = replace(
                asked.call,
                endpoint=self.batch.endpoint.removeprefix("/v1"),
                is_background=True,
                patience_s=life.WINDOW_S,
            )
            try:
                async with aclosing(pipeline.serve(key, call)) as chunks:
                    [chunk] = [chunk async for chunk in chunks]
            except SciBoxError as error:
                raise asked.told(error) from None
            return _Answer(request_id, 200, asked.reply.whole(chunk.data))
        except (Draining, KeysUnavailable):  # the service stops
            return None
        except Unauthorized as error:  # the key was revoked before, or while the line waited or ran
            self.interrupt(Problem(error.code, f"The batch cannot go on: {error.message}"))
            return None
        except SciBoxError as error:
            return _Answer(request_id, error.status, face.error(error, request_id), error.retry_after_s)
        except Exception as error:
            self._tools.emit(Notice(f"a line of {self.batch.batch_id} failed: {error!r}", is_warning=True))
            failure = SciBoxError("The service failed; give the operator this request_id.")
            return _Answer(request_id, failure.status, face.error(failure, request_id))

    async def _key(self) -> Key:
        """The key of the batch; waits while it is not known here and the database cannot be asked."""
        while True:
            try:
                return await self._tools.pipeline.recall(self.batch.key_id)
            except KeysUnavailable:
                if self.is_draining:
                    raise
                await asyncio.sleep(KEY_POLL_S)

    def _on_recorded(self, batch: Batch, stored_bytes: int) -> None:
        if batch.status == "cancelling":
            self.interrupt("cancelled")
        limit = self._tools.limits.max_owner_bytes
        if stored_bytes > limit:
            self.interrupt(
                Problem(
                    "storage_limit_reached",
                    f"The batch cannot go on: your files would be larger than {limit} bytes together. "
                    "Delete some, then send what is left as a new batch.",
                )
            )

    async def _record_expired(self, recorder: Recorder) -> None:
        message = "This request could not be executed before the completion window expired."
        async with aclosing(self._left(recorder)) as lines:
            async for line in lines:
                await recorder.room()
                result = wire.render_unanswered(_result_id(), line.custom_id, "batch_expired", message)
                recorder.record(line.custom_id, result, is_failure=True)

    async def _finish(self, reason: Reason, recorder: Recorder, sizes: tuple[int, int]) -> None:
        """The results become files of the owner in the moment in which the batch ends."""
        if reason == "done":
            await self._change(functools.partial(life.finalize, now=self._now()))
        output, errors = sizes
        made: list[File] = []
        if output:
            made.append(self._file(self.batch.reserved_output_id, "output", output))
        if errors:
            made.append(self._file(self.batch.reserved_error_id, "error", errors))
        problems = (reason,) if isinstance(reason, Problem) else ()
        change = functools.partial(
            _end,
            status="failed" if problems else "expired" if reason == "expired" else "completed",
            now=self._now(),
            completed=recorder.completed,
            failed=recorder.failed,
            output_file_id=self.batch.reserved_output_id if output else None,
            error_file_id=self.batch.reserved_error_id if errors else None,
            problems=problems,
        )
        await self._change(change, made)

    def _file(self, file_id: str, kind: str, size: int) -> File:
        now = self._now()
        lifetime_s = self.batch.output_lifetime_s or self._tools.limits.keep_s
        name = f"{self.batch.batch_id}_{kind}.jsonl"
        return File(file_id, self.batch.owner, name, OUTPUT_PURPOSE, size, now, now + lifetime_s)

    async def _change(self, change: Callable[[Batch], Batch], made: Sequence[File] = ()) -> None:
        self.batch = await self._persist(
            self._tools.shelf.change, self.batch.owner, self.batch.batch_id, change, made
        )

    async def _persist(self, work: Callable[..., T], *arguments: object) -> T:
        run = functools.partial(self._tools.disk.run, work, *arguments)
        return await persist(run, self.batch.batch_id, self._tools.emit)

    def _now(self) -> float:
        return self._tools.now()


def _examine(path: Path, endpoint: str, limit_bytes: int) -> tuple[int, tuple[Problem, ...]]:
    """How many calls are in an input file, and what is wrong with it."""
    problems: list[Problem] = []
    seen: set[str] = set()
    count = 0
    stretch = Stretch((), 0, 1)
    while True:
        try:
            stretch = read(path, limit_bytes, stretch.offset, stretch.number)
        except FileNotFoundError:
            return 0, (GONE,)
        count += len(stretch.lines)
        if not count:
            return 0, (Problem("empty_file", "The input file has no lines."),)
        if count > life.MOST_LINES:
            message = f"The input file has more than {life.MOST_LINES} lines; split it into several batches."
            return count, (Problem("too_many_lines", message),)
        if not stretch.lines or len(problems) >= life.MOST_PROBLEMS:
            return count, tuple(problems[: life.MOST_PROBLEMS])
        for number, raw in stretch.lines:
            try:
                line = wire.parse_line(raw, endpoint, limit_bytes)
                if line.custom_id in seen:
                    raise WrongLine(
                        "duplicate_custom_id",
                        f"The custom_id '{line.custom_id[:100]}' is in this file twice.",
                        "custom_id",
                    )
                seen.add(line.custom_id)
            except WrongLine as wrong:
                problems.append(wrong.at(number))


def _stretch(path: Path, endpoint: str, offset: int, number: int) -> tuple[list[Line], int, int] | None:
    """The next calls of an input file, or None when it is gone.

    It was examined before, perhaps under another bound on its lines: what was let in then runs.
    """
    try:
        stretch = read(path, NO_BOUND, offset, number)
    except FileNotFoundError:
        return None
    lines = [wire.parse_line(raw, endpoint, NO_BOUND) for _, raw in stretch.lines]
    return lines, stretch.offset, stretch.number


def _end(
    batch: Batch,
    *,
    status: Literal["completed", "expired", "failed"],
    now: float,
    completed: int = 0,
    failed: int = 0,
    output_file_id: str | None = None,
    error_file_id: str | None = None,
    problems: tuple[Problem, ...] = (),
) -> Batch:
    """The batch at its end; one that has ended already (a commit whose answer was lost) stays."""
    if batch.is_over:
        return batch
    return life.end(
        life.count(batch, completed, failed),
        status,
        now,
        output_file_id=output_file_id,
        error_file_id=error_file_id,
        problems=problems,
    )


def _result_id() -> str:
    return f"batch_req_{secrets.token_hex(12)}"
