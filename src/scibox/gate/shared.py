"""Limits that hold over all nodes: counted on a Valkey or Redis server, by each node alone while it is away.

The server's part is shared.lua: every operation is one atomic order, a take is one round trip. This part
keeps, beside it, what this node itself has admitted (`Windows`), so that it can go on at once when the server
is away, slow or emptied: each node then admits its share, the limit divided by the nodes that were there.
Nothing waits for the server longer than `budget_s`.

Joined: every question goes to the server. Alone: this node's own windows answer; what it admits is noted
(`Arrears`). To join again it says hello (from then on orders stuck in older connections are void), tells
what it noted and which leases it holds, and asks again. A server that has lost everything, which its new
epoch shows, is told all that this node's windows hold; nodes take from it only when all have done so.

What is known not to be exact: what the others had taken (`Others`) is known from the last reply and is taken
to pass evenly, so a little more than the limit may pass in the first window alone. Takes that were under way
when a connection broke may count twice until their window has passed. Of a quota, an emptied server is told
what the best informed node knew: calls that ended in the last moment are missing until `load_used`. If a
quota is set while a node is alone, what that node has used meanwhile may count twice when it is back.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from msgspec import structs

from scibox.core.admission import Allowance, Subject, Wish
from scibox.core.events import Emit, Notice
from scibox.core.limits import TAKEN, Limiter, Moment, Verdict, Windows

from . import shares
from .arrears import Arrears, Batch, Units
from .line import Line, LineLost, Reply, check_url
from .others import Others
from .questions import Question, Questions
from .shares import CELL_US, TOKENS, Held, Running

BEAT_S = 1.0
RETRY_S = 0.3
ALONE_POLL_S = 1.0
POLL_S = 0.2  # until a limit that ends of calls free is asked again: those of other nodes are not heard
SETTLING_S = 3.0  # what an emptied server waits for the other nodes to tell
_SILENCE_S = 1.0  # then the connection is given up
_UNKNOWN = 2


class SharedLimiter(Limiter):
    """`Limiter` over all nodes that name the same server and prefix. `clock` is the one of `Moment.clock`."""

    def __init__(
        self,
        url: str,
        emit: Emit,
        *,
        prefix: str = "scibox",
        clock: Callable[[], float] = time.monotonic,
        budget_s: float = 0.05,
    ) -> None:
        check_url(url)
        self._url = url
        self._prefix = f"{{{prefix}}}:"  # the braces keep all keys in one slot of a cluster
        self._emit = emit
        self._clock = clock
        self._budget_s = budget_s
        self._node = os.urandom(6).hex()
        self._incarnation = 0
        self._epoch = b""
        self._born_us = 0  # when the server's epoch began
        self._trouble = ""
        self._offset_us = 0.0  # of the server's clock over this node's
        self._settles = 0
        self._unacknowledged: dict[
            int, list[tuple[str, int]]
        ] = {}  # settles: the quotas' keys, what was used
        self._own = Windows()
        self._others = Others()
        self._running: dict[str, Running] = {}
        self._arrears = Arrears()
        self._least: dict[str, int] = {}  # of quotas that are to be told: at least so much is used
        self._line: Line | None = None
        self._lines: list[Line] = []  # closed ones included, until they are gone
        self._is_joined = False
        self._needs_hello = True
        slow = f"no reply within {budget_s * 1000:g} ms"
        self._questions = Questions(budget_s, lambda: self._go_alone(slow))
        self._wake = asyncio.Event()
        self._joined = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.nodes = 1

    @property
    def is_degraded(self) -> bool:
        """Whether limits hold at this node's share, since the server is away."""
        return not self._is_joined

    @property
    def words(self) -> str:
        """What the operator should know and do while it is so."""
        share = f"1/{self.nodes} of every limit" if self.nodes > 1 else "every limit, as if it were alone"
        why = f" ({self._trouble})" if self._trouble else ""
        return f"The server of `shared.limits_url` is away{why}: see to it. This node serves {share}."

    async def start(self, within_s: float = 1.0) -> None:
        """Join; after `within_s` this node begins alone and goes on trying."""
        self._task = asyncio.create_task(self._keep())
        try:
            async with asyncio.timeout(within_s):
                await self._joined.wait()
        except TimeoutError:
            self._warn(f"the server of the shared limits is not there ({self._trouble or 'no reply'})")

    async def stop(self) -> None:
        """Leave: other nodes need not wait until this one is taken for dead."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        was_joined, self._is_joined = self._is_joined, False
        if self._line is not None and was_joined:
            with suppress(LineLost):  # then it is taken for dead when no beat comes
                await self._line.call("bye", [self._node, self._incarnation], self._budget_s * 4)
        if self._line is not None:
            self._line.close("the service stops")
        await self._bury()

    # The contract of `Limiter`

    def take(self, wish: Wish, at: Moment, done: Callable[[Verdict], None]) -> None:
        """Reserve for a call on the server, or alone."""
        if not wish.subjects:
            done(TAKEN)
        elif not self._is_joined:
            self._take_alone(wish, at, done)
        else:
            question = self._questions.ask(lambda: self._take_alone(wish, at, done))
            tokens = wish.prompt_tokens + wish.completion_tokens
            periods = shares.period_names(at)
            arguments = [tokens, wish.texts, *periods, shares.told(wish.subjects)]
            self._ask("take", arguments, lambda reply: self._on_taken(question, wish, at, done, reply))

    def settle(self, call_id: str, tokens: int | None, at: Moment) -> None:
        """A taken call has ended: told to the server without waiting, or noted."""
        call = self._running.pop(call_id, None)
        if call is None:
            return
        used = call.tokens if tokens is None else tokens
        self._own.settle(call_id, tokens, at)
        if self._is_joined and call.held is not None:
            windows = [(TOKENS + 1, *held, used) for held in call.held if held.units or used]
            self._settle_there(call, windows, used)
            return
        for key in call.quotas():
            self._arrears.use(key, used)
        taken_at = call.at.clock if call.held is None else None
        for name, cell, units in call.reserved(0) if call.held is None else call.held:
            if change := used - units:
                when = (taken_at, cell) if change < 0 else (at.clock, 0)
                self._arrears.add(Units(TOKENS, name, *when, change), at.clock)

    def allowances(
        self, subjects: Sequence[Subject], at: Moment, done: Callable[[Sequence[Allowance]], None]
    ) -> None:
        """What is left, of the server or of this node's share."""
        if not self._is_joined:
            self._left_alone(subjects, at, done)
        else:
            question = self._questions.ask(lambda: self._left_alone(subjects, at, done))
            periods = shares.period_names(at)

            def heard(reply: Reply) -> None:
                if self._answers(question, reply):
                    done(shares.allowances(subjects, reply[2], at))

            self._ask("left", [*periods, shares.told(subjects)], heard)

    def load_used(self, subject: Subject, day_tokens: int, month_tokens: int, at: Moment) -> None:
        """What the ledger says of today and this month; the server keeps the larger."""
        self._own.load_used(subject, day_tokens, month_tokens, at)
        names = shares.period_names(at)
        used = zip(names, (day_tokens, month_tokens), shares.amounts(subject.limits)[5:], strict=True)
        seeds = {f"{name}:{subject.name}": units for name, units, amount in used if amount >= 0}
        if self._is_joined:
            self._ask("seed", [list(seeds.items())], self._on_done)
        else:
            # The ledger has what is noted here too, which is told beside this.
            self._least |= {key: max(0, units - self._arrears.used(key)) for key, units in seeds.items()}

    # Joined

    def _ask(self, operation: str, arguments: list[Any], heard: Callable[[Reply], None]) -> None:
        assert self._line is not None
        self._line.ask(operation, [self._node, self._incarnation, *arguments], heard)

    def _answers(self, question: Question, reply: Reply) -> bool:
        """Whether this reply is the answer, and not one that comes too late."""
        if question.is_answered:
            return False
        if reply[0] == _UNKNOWN:
            self._on_done(reply)  # gives up this question with the others
            return False
        self._offset_us = reply[1] - self._clock() * 1e6
        self._questions.answered(question)
        return True

    def _on_taken(
        self, question: Question, wish: Wish, at: Moment, done: Callable[[Verdict], None], reply: Reply
    ) -> None:
        if not self._answers(question, reply):
            if reply[0] == 1:  # it was taken there, after it was answered here
                self._undo_there(Running(wish, at, reply[1]), reply[1], wish.texts)
            return
        if reply[0] == 0:
            _, _, subject, field, wait_us, is_final = reply
            self._own.allowances([wish.subjects[subject]], at, partial(self._hear_full, field, at))
            done(shares.verdict(wish.subjects[subject], field, wait_us, at, is_final=is_final))
            return
        now_us, used, left = reply[1:]
        self._running[wish.call_id] = Running(wish, at, now_us)
        own = self._own.count(wish, at)
        for subject, period, units in used:
            day, month = (units, 0) if period == 0 else (0, units)
            self._own.load_used(wish.subjects[subject], day, month, at)
        remaining = shares.allowances(wish.subjects, left, at)
        self._others.hear(remaining, own, at)
        done(Verdict(True, left=remaining))

    def _hear_full(self, field: int, at: Moment, own: Sequence[Allowance]) -> None:
        """A limit that is full: what this node has not taken of it, others have."""
        for left in own:
            if left.limit == shares.FIELDS[field]:
                self._others.hear_full(left.subject, left.limit, left.remaining, at)

    def _undo_there(self, call: Running, now_us: int, texts: int) -> None:
        """Tell that there was no such call."""
        windows = [
            (field + 1, subject.name, now_us // CELL_US[field], min(units, amount), 0)
            for subject in call.subjects
            for field, (units, amount) in enumerate(
                zip((1, 1, call.tokens, texts), shares.amounts(subject.limits)[:4], strict=True)
            )
            if amount >= 0 and units
        ]
        self._settle_there(call, windows, 0)

    def _settle_there(self, call: Running, windows: list[tuple[int, str, int, int, int]], used: int) -> None:
        """Tell the end of a call; of windows: field from 1, subject, cell, what it reserved, what it used."""
        keys = call.quotas()
        self._settles += 1
        number = self._settles
        self._unacknowledged[number] = [(key, used) for key in keys]

        def heard(reply: Reply) -> None:
            if reply[0] != _UNKNOWN:
                self._unacknowledged.pop(number, None)
            self._on_done(reply)

        charges = [(key, call.tokens, used) for key in keys]
        self._ask("settle", [number, windows, call.flights(), charges], heard)

    def _on_done(self, reply: Reply) -> None:
        if reply[0] == _UNKNOWN:
            self._needs_hello = True
            self._go_alone("the server has forgotten this node")

    # Alone

    def _go_alone(self, reason: str) -> None:
        if not self._is_joined:
            return
        self._is_joined = False
        self._joined.clear()
        self._trouble = reason
        self._warn(f"the server of the shared limits is away ({reason})")
        self._wake.set()
        self._questions.give_up()

    def _warn(self, what: str) -> None:
        share = f"at 1/{self.nodes} on each of {self.nodes} nodes" if self.nodes > 1 else "on this node alone"
        self._emit(Notice(f"{what}: limits hold {share} until it is back", is_warning=True))

    def _take_alone(self, wish: Wish, at: Moment, done: Callable[[Verdict], None]) -> None:
        def heard(verdict: Verdict) -> None:
            if verdict.taken:
                self._running[wish.call_id] = Running(wish, at, None)
                self._note(wish, at)
                done(verdict)
                return
            whole = next(subject for subject in wish.subjects if subject.name == verdict.subject)
            amount = getattr(whole.limits, verdict.limit)
            wait_s = verdict.wait_s
            if not verdict.is_final:  # what others had taken passes, and how much of it is a guess
                wait_s = POLL_S if wait_s is None else min(wait_s, ALONE_POLL_S)
            done(verdict._replace(amount=amount, wait_s=wait_s))

        own = tuple(self._others.share(subject, self.nodes, at) for subject in wish.subjects)
        self._own.take(structs.replace(wish, subjects=own), at, heard)

    def _note(self, wish: Wish, at: Moment) -> None:
        units = (1, 1, wish.prompt_tokens + wish.completion_tokens, wish.texts)
        for subject in wish.subjects:
            for field, amount in enumerate(shares.amounts(subject.limits)[:4]):
                if amount > 0 and units[field]:
                    taken = min(units[field], amount)
                    self._arrears.add(Units(field, subject.name, at.clock, 0, taken), at.clock)

    def _left_alone(
        self, subjects: Sequence[Subject], at: Moment, done: Callable[[Sequence[Allowance]], None]
    ) -> None:
        self._own.allowances([self._others.share(subject, self.nodes, at) for subject in subjects], at, done)

    # Joining

    async def _keep(self) -> None:
        """Beat while joined, try to join while alone; for ever."""
        while True:
            try:
                if self._is_joined:
                    await self._beat()
                else:
                    await self._join()
            except LineLost as error:
                self._trouble = str(error)
                await self._bury()
                await asyncio.sleep(RETRY_S)

    async def _beat(self) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(BEAT_S):
                await self._wake.wait()
        except TimeoutError:
            if self._is_joined:  # else the connection ended in this very moment
                self._ask("beat", [], self._on_beat)

    def _on_beat(self, reply: Reply) -> None:
        self._on_done(reply)
        if reply[0] == 1:
            self.nodes = reply[2]

    async def _join(self) -> None:
        if self._line is None:
            self._line = await Line.open(self._url, self._prefix, self._on_line_end)
            self._lines.append(self._line)
            self._needs_hello = True
        while not self._line.is_quiet:  # orders of before: late takes are undone
            await self._call("beat", [])
        if self._needs_hello:
            await self._hello()
        for number, used, windows in self._batches():
            await self._call("push", [number, used, windows, False])
            self._arrears.told()
        asked_at = self._clock()
        reply = await self._call("beat", [])
        took_s = self._clock() - asked_at
        is_settled = reply[2] >= self.nodes or reply[1] - self._born_us >= SETTLING_S * 1e6
        if not is_settled or took_s > self._budget_s:
            await asyncio.sleep(RETRY_S / 3)
            return
        self.nodes = reply[2]
        self._finish_joining()

    def _finish_joining(self) -> None:
        """Tell the rest and which leases are held; what is asked from now on comes after it."""
        for number, used, windows in self._batches():
            self._ask("push", [number, used, windows, False], self._on_done)
            self._arrears.told()
        flights: dict[str, int] = {}
        reserved: dict[str, int] = {}
        for call in self._running.values():
            for name in call.flights():
                flights[name] = flights.get(name, 0) + 1
            for key in call.quotas():
                reserved[key] = reserved.get(key, 0) + call.tokens
        lease = [list(flights.items()), list(reserved.items())]
        self._ask("push", [0, [], [], lease], self._on_done)
        self._is_joined = True
        self._joined.set()
        nodes = "one node" if self.nodes == 1 else f"{self.nodes} nodes"
        self._emit(Notice(f"limits are shared by {nodes} through the server"))

    async def _hello(self) -> None:
        self._incarnation += 1
        reply = await self._call("hello", [os.urandom(6).hex()])
        _, now_us, epoch, self._born_us, settled, _ = reply
        self._offset_us = now_us - self._clock() * 1e6
        at = Moment(self._clock(), time.time())
        if epoch != self._epoch:
            self._epoch = epoch
            self._arrears.forget_server(self._own.contents(at))
            for call_id, call in self._running.items():
                call.held = self._held_of_own(call_id, call)
        else:
            for number, used in self._unacknowledged.items():
                for key, units in used if number > settled else ():
                    self._arrears.use(key, units)
        self._unacknowledged.clear()
        self._needs_hello = False
        periods = dict(zip(shares.QUOTAS, shares.period_names(at), strict=True))
        for subject, field, known in self._own.quotas_used(at):
            key = f"{periods[field]}:{subject}"
            self._least[key] = known - self._arrears.used(key)

    def _batches(self) -> Iterator[Batch]:
        """What the server is to be told; from then on it knows of all running calls."""
        for call in self._running.values():
            if call.held is None:
                call.hold(self._cell(call.at.clock, TOKENS))
        least, self._least = self._least, {}
        return self._arrears.batches(self._cell, least)

    def _held_of_own(self, call_id: str, call: Running) -> list[Held]:
        """What an emptied server is told of a running call, among the contents of this node's windows."""
        reserved = zip(call.subjects, self._own.reserved_tokens(call_id), strict=True)
        return [
            Held(subject.name, self._cell(clock, TOKENS), units)
            for subject, (clock, units) in reserved
            if subject.limits.tokens_per_minute is not None
        ]

    def _cell(self, clock: float, field: int) -> int:
        return int(clock * 1e6 + self._offset_us) // CELL_US[field]

    async def _call(self, operation: str, arguments: list[Any]) -> Reply:
        assert self._line is not None
        reply = await self._line.call(operation, [self._node, self._incarnation, *arguments], _SILENCE_S)
        if reply[0] == _UNKNOWN:
            self._needs_hello = True
            raise LineLost("the server has forgotten this node")
        return reply

    def _on_line_end(self, reason: str) -> None:
        self._line = None
        self._go_alone(reason)

    async def _bury(self) -> None:
        lines, self._lines = self._lines, [line for line in self._lines if line is self._line]
        for line in lines:
            if line is not self._line:
                await line.closed()
