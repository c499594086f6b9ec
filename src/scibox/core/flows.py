"""What a queue remembers: of a call, of a key, of an owner."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from .admission import Wish
from .limits import Verdict

if TYPE_CHECKING:
    from .turns import Turns

LEARNED_OF_OWNER = 0.2  # how much each ended call makes up of what is expected: about the last five
LEARNED_OF_GAPS = 0.1
TOO_SHORT_S = 0.05  # a wait that teaches nothing
MOST_BIAS = math.log(8)  # of one call


class Bias:
    """How much longer one owner's calls wait than the queue's look says: a factor its last calls taught.

    What no look at the queue shows: calls that come later and go before (an owner's 64th call waits for all
    that others send meanwhile).
    """

    __slots__ = ("_log",)

    def __init__(self) -> None:
        self._log = 0.0

    def apply(self, seen_s: float) -> float:
        """What to tell for a wait of so many seconds by the look of the queue."""
        return seen_s * math.exp(self._log) if self._log else seen_s

    def learn(self, seen_s: float, real_s: float) -> None:
        """By the look of the queue a call would have waited for `seen_s`; it waited for `real_s`."""
        if seen_s > TOO_SHORT_S and real_s > TOO_SHORT_S:
            error = min(MOST_BIAS, max(-MOST_BIAS, math.log(real_s / seen_s)))
            self._log += LEARNED_OF_OWNER * (error - self._log)


class Waiting:
    """A call in the queue, and then in a slot."""

    __slots__ = (
        "advance",
        "charged",
        "covered",
        "entered_at",
        "flow",
        "generated",
        "has_left",
        "line",
        "picked_at",
        "seen_s",
        "wish",
    )

    def __init__(self, wish: Wish, line: Line, entered_at: float) -> None:
        self.wish = wish
        self.line = line
        self.flow = line.flow
        self.entered_at = entered_at
        self.picked_at = entered_at
        self.charged = 0.0  # to its owner's counter so far
        self.covered = 0.0  # completion tokens that are charged
        self.generated = 0
        self.has_left = False  # its line, which may hold it still, behind others
        self.advance = 0.0  # of what is charged: for output that is only expected
        self.seen_s: float | None = None  # how long it would wait, by the look of the queue when it came


class Line:
    """The waiting calls of one key, first come first."""

    __slots__ = ("blocked_by", "calls", "flow", "is_ready", "key_id", "until", "waiting")

    FEW_GONE = 64  # calls in the midst of a line that have left, and are held still

    def __init__(self, key_id: str, flow: Flow) -> None:
        self.key_id = key_id
        self.flow = flow
        self.calls: deque[Waiting] = deque()  # the first of them waits; others may have left
        self.waiting = 0
        self.is_ready = False  # it is in `flow.ready`
        self.blocked_by: Verdict | None = None
        self.until = 0.0

    def drop(self, call: Waiting) -> None:
        """A call has left."""
        call.has_left = True
        self.waiting -= 1
        calls = self.calls
        while calls and calls[0].has_left:
            calls.popleft()
        if len(calls) > self.FEW_GONE + 2 * self.waiting:
            self.calls = deque(call for call in calls if not call.has_left)


class Walked(NamedTuple):
    """What the last walk found of an owner: when, how long its first and last call would wait, how many."""

    at: float
    first_eta_s: float
    last_eta_s: float
    calls: int

    def eta_s(self, behind: int, now: float) -> float:
        """How long a call waits that is so many behind the last one then."""
        pace_s = self.last_eta_s
        if self.calls > 1:
            pace_s = (self.last_eta_s - self.first_eta_s) / (self.calls - 1)
        return max(0.0, self.last_eta_s + self.at - now) + behind * pace_s


class Flow:
    """The waiting calls of one owner, and the counter of what it got."""

    __slots__ = (
        "advance",
        "bias",
        "blocked_by",
        "came_at",
        "come_since",
        "counter",
        "entry",
        "expected",
        "gap_s",
        "last_turn",
        "lines",
        "owner",
        "ready",
        "running",
        "spare",
        "turns",
        "typical_cost",
        "until",
        "waiting",
        "walked",
        "weight",
    )  # fmt: skip

    def __init__(self, owner: str, turns: Turns) -> None:
        self.owner = owner
        self.turns = turns
        self.weight = 1.0
        self.counter = 0.0
        self.advance = 0.0  # of it: what is charged for output that is only expected
        self.lines: dict[str, Line] = {}
        self.ready: list[Line] = []  # those with calls that nothing blocks, in turn
        self.spare: Line | None = None  # the last that became empty: most keys send one call at a time
        self.waiting = 0
        self.running = 0
        self.walked = Walked(-math.inf, 0.0, 0.0, 0)
        self.come_since = 0  # calls that came since that walk
        self.bias = Bias()  # of the waits told at entry
        self.gap_s = math.inf  # between its calls' coming
        self.came_at = -math.inf
        self.typical_cost = 0.0  # of a call, in weighted LLM tokens
        self.expected: float | None = None  # LLM tokens of a completion
        self.entry = 0  # the number of its valid entry in the heap; 0: it is not there
        self.last_turn = 0
        self.blocked_by: Verdict | None = None
        self.until = 0.0

    def come(self, now: float) -> None:
        """Note that a call comes."""
        self.come_since += 1
        gap_s, self.came_at = now - self.came_at, now
        if gap_s < math.inf:
            self.gap_s = (
                gap_s if self.gap_s == math.inf else self.gap_s + LEARNED_OF_GAPS * (gap_s - self.gap_s)
            )
