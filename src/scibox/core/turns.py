"""Whose turn it is in one rank of a model's queue: Virtual Token Counter.

Sheng et al., "Fairness in Serving Large Language Models" (OSDI'24): each owner has a counter of the service
it got, in weighted LLM tokens divided by the owner's weight; the owner with the smallest counter is served
next. One that begins to wait is lifted to the smallest counter of those waiting (nobody saves up turns while
away), or, when nobody waits, to that of the last owner that did. What that counter was charged for output
which is only expected is no service yet: who was lifted by it would wait until the other, who gets back what
was expected too much, has caught up.

Within an owner its keys take turns, and within a key the first to come is the first to go.
"""

from __future__ import annotations

import heapq
import math

from .admission import Wish
from .flows import LEARNED_OF_OWNER, Flow, Line, Waiting
from .limits import Verdict

# As in the paper's experiments: a token of the output costs about two of the input, since those are
# computed together and outputs one after the other.
INPUT_WEIGHT = 1.0
OUTPUT_WEIGHT = 2.0
LEARNED_OF_ALL = 0.05
FEW_OWNERS = 16  # that are looked at one by one
FIRST_GUESS = 256  # LLM tokens of a completion, while no call has ended


class Turns:
    """One rank: the owners that wait, the one with the smallest counter first."""

    SWEEP_AT = 1_024  # owners; then, and whenever they have doubled, those without a trace are forgotten

    def __init__(self) -> None:
        self.flows: dict[str, Flow] = {}
        self.waiting = 0
        self.blocked_by: Verdict | None = None
        self.until = 0.0
        self._heap: list[tuple[float, int, int, Flow]] = []
        self._in_heap = 0
        self._entry = 0
        self.turn = 0
        self._last: Flow | None = None
        self._typical = float(FIRST_GUESS)
        self._typical_charge = 0.0  # to a counter for one call
        self._at_least = [0]  # [n]: owners with n waiting calls or more
        self._sweep_at = self.SWEEP_AT

    def enter(self, wish: Wish, now: float) -> Waiting:
        """A call begins to wait."""
        flow = self.flows.get(wish.owner)
        if flow is None:
            flow = self._begin(wish.owner)
        line = flow.lines.get(wish.key_id)
        if line is None:
            line = flow.spare
            if line is None or line.key_id != wish.key_id:
                line = Line(wish.key_id, flow)
            flow.lines[wish.key_id] = line
        flow.come(now)
        flow.weight = wish.weight
        call = Waiting(wish, line, now)
        line.calls.append(call)
        self._count(flow, line)
        if not line.is_ready and line.blocked_by is None:
            line.is_ready = True
            flow.ready.append(line)
            if not flow.entry:
                self.refresh(flow)
        return call

    def remove(self, call: Waiting) -> None:
        """A waiting call has left."""
        line, flow = call.line, call.flow
        flow.come_since -= call.entered_at > flow.walked.at
        line.drop(call)
        self._at_least[flow.waiting] -= 1
        flow.waiting -= 1
        self.waiting -= 1
        if not line.waiting:
            if line.is_ready:
                line.is_ready = False
                flow.ready.remove(line)
            if line.blocked_by is None:
                del flow.lines[line.key_id]
                flow.spare = line
            if not flow.ready:
                self.refresh(flow)

    def first(self) -> Waiting | None:
        """The call whose turn it is; None: none may start."""
        flow = None if self.blocked_by or not self._in_heap else self._top()
        return None if flow is None else flow.ready[0].calls[0]

    def start(self, call: Waiting, now: float) -> None:
        """The first call takes its turn: charge its input, and the output that is to be expected.

        Output of an answer in one piece is not seen before its end, so the paper's variant with prediction is
        used for all calls: without it an owner of long answers would fill every slot before it is charged.
        """
        flow, line = call.flow, call.line
        self.turn += 1
        flow.last_turn = self.turn
        flow.running += 1
        call.picked_at = now
        if call.seen_s is not None:
            flow.bias.learn(call.seen_s, now - call.entered_at)
        call.covered = self.expect(call)
        call.charged = INPUT_WEIGHT * call.wish.prompt_tokens + OUTPUT_WEIGHT * call.covered
        charge = call.charged / flow.weight
        flow.counter += charge
        self._advance(call, OUTPUT_WEIGHT * call.covered)
        self._typical_charge += (charge - self._typical_charge) * (LEARNED_OF_ALL if self.turn > 20 else 0.5)
        if len(flow.ready) > 1:
            flow.ready.remove(line)
            flow.ready.append(line)
        self.remove(call)

    def put_back(self, call: Waiting) -> None:
        """A limit blocks a call that had begun its turn: it waits again, first of its key, uncharged."""
        flow = call.flow
        line = flow.lines.setdefault(call.line.key_id, call.line)
        call.line = line
        flow.running -= 1
        flow.come_since += call.entered_at > flow.walked.at
        self.add(flow, -call.charged)
        self._advance(call, 0.0)
        call.charged = 0.0
        call.has_left = False
        line.calls.appendleft(call)
        self._count(flow, line)
        if line.blocked_by is None:
            self._make_first(line)

    def charge(self, call: Waiting, completion_tokens: int) -> None:
        """So many more have been generated for a running call; what was expected is charged already."""
        call.generated += completion_tokens
        if call.generated > call.covered:
            cost = OUTPUT_WEIGHT * (call.generated - call.covered)
            call.covered = call.generated
            call.charged += cost
            call.flow.counter += cost / call.flow.weight
        self._advance(call, OUTPUT_WEIGHT * (call.covered - call.generated))

    def finish(self, call: Waiting, tokens: int | None) -> None:
        """A running call has ended after so many LLM tokens; None: nobody knows, what is charged stays."""
        flow = call.flow
        flow.running -= 1
        self._advance(call, 0.0)
        if tokens is None:
            return
        prompt = min(tokens, call.wish.prompt_tokens)
        completion = tokens - prompt
        cost = INPUT_WEIGHT * prompt + OUTPUT_WEIGHT * completion
        self.add(flow, cost - call.charged)
        call.charged = cost
        flow.typical_cost += (cost - flow.typical_cost) * (LEARNED_OF_OWNER if flow.typical_cost else 1.0)
        if completion:
            before = self._typical if flow.expected is None else flow.expected
            flow.expected = before + LEARNED_OF_OWNER * (completion - before)
            self._typical += LEARNED_OF_ALL * (completion - self._typical)

    def add(self, flow: Flow, cost: float) -> None:
        """Correct an owner's counter."""
        flow.counter += cost / flow.weight
        if cost < 0 and flow.entry:  # entries that are too small correct themselves when they come up
            self._push(flow)

    def _advance(self, call: Waiting, cost: float) -> None:
        """So much of what a call is charged is for output that is only expected."""
        call.flow.advance += cost - call.advance
        call.advance = cost

    def expect(self, call: Waiting) -> float:
        """LLM tokens its completion will probably have: as the owner's last, at most what was reserved."""
        expected = call.flow.expected
        return min(self._typical if expected is None else expected, call.wish.completion_tokens)

    def cost(self, call: Waiting) -> float:
        """What a call will probably cost, in weighted LLM tokens."""
        return INPUT_WEIGHT * call.wish.prompt_tokens + OUTPUT_WEIGHT * self.expect(call)

    def refresh(self, flow: Flow) -> None:
        """Note that an owner has begun or ceased to have calls that may start."""
        is_ready = bool(flow.ready) and not flow.blocked_by
        if is_ready and not flow.entry:
            top = self._top() or self._last
            if top is not None:
                flow.counter = max(flow.counter, top.counter - top.advance / top.weight)
            self._in_heap += 1
            self._push(flow)
        elif flow.entry and not is_ready:
            flow.entry = 0
            self._in_heap -= 1
            self._last = flow

    def free(self, line: Line) -> None:
        """A key's calls are blocked no longer: its turn is at once, since it was when they were blocked."""
        flow = line.flow
        if line.waiting:
            self._make_first(line)
        elif flow.lines.get(line.key_id) is line:
            del flow.lines[line.key_id]

    def block(self, line: Line) -> None:
        """A key's calls are blocked from now on."""
        if line.is_ready:
            line.is_ready = False
            line.flow.ready.remove(line)
        self.refresh(line.flow)

    def _make_first(self, line: Line) -> None:
        """Its owner's next turn is this key's."""
        flow = line.flow
        if line.is_ready:
            flow.ready.remove(line)
        line.is_ready = True
        flow.ready.insert(0, line)
        self.refresh(flow)

    def ahead_of(self, call: Waiting) -> float:
        """How many calls will probably go before one that has just come, if all of an owner's cost the same.

        They are those whose turn comes before the owner's counter is where it will be when this call is next.
        """
        flow, line = call.flow, call.line
        lines = len(flow.lines)
        own = min(flow.waiting - 1, line.waiting * lines - 1)
        reached = flow.counter + (own * self.cost(call) / flow.weight if own else 0.0)
        if self._in_heap > FEW_OWNERS:
            return own + self._others_before(reached, flow)
        ahead = own
        for _, _, entry, other in self._heap:
            if entry != other.entry or other is flow or reached < other.counter:
                continue
            if reached == other.counter:
                ahead += other.last_turn < flow.last_turn
            elif other.waiting == 1:
                ahead += 1
            else:
                turns = (reached - other.counter) * other.weight / self._typical_cost(other)
                ahead += min(other.waiting, math.ceil(turns))
        return ahead

    def _others_before(self, reached: float, flow: Flow) -> float:
        """The same of the other owners, without looking at each: O(1) but for the longest line of calls."""
        top = self._top()
        turns = (reached - top.counter) / self._typical_charge if top and self._typical_charge else 0.0
        whole = min(max(0, int(turns)), len(self._at_least) - 1)
        at_least = self._at_least
        before: float = sum(at_least[1 : whole + 1]) - (flow.waiting if flow.waiting < whole else whole)
        if whole + 1 < len(at_least) and turns > whole:
            before += (turns - whole) * (at_least[whole + 1] - (flow.waiting > whole))
        return before

    def _typical_cost(self, flow: Flow) -> float:
        return flow.typical_cost or self._typical_charge or 1.0

    def _top(self) -> Flow | None:
        heap = self._heap
        while heap:
            counter, turn, entry, flow = heap[0]
            if entry != flow.entry:
                heapq.heappop(heap)
            elif counter < flow.counter or turn != flow.last_turn:
                heapq.heapreplace(heap, self._item(flow))
            else:
                return flow
        return None

    def _push(self, flow: Flow) -> None:
        heap = self._heap
        heapq.heappush(heap, self._item(flow))
        if len(heap) > 64 + 2 * self._in_heap:
            heap[:] = [item for item in heap if item[2] == item[3].entry]
            heapq.heapify(heap)

    def _item(self, flow: Flow) -> tuple[float, int, int, Flow]:
        """Its only valid entry from now on. Of equal ones who has waited longest for a turn comes first."""
        self._entry += 1
        flow.entry = self._entry
        return flow.counter, flow.last_turn, flow.entry, flow

    def _count(self, flow: Flow, line: Line) -> None:
        """One more of its calls waits."""
        line.waiting += 1
        flow.waiting += 1
        self.waiting += 1
        if flow.waiting == len(self._at_least):
            self._at_least.append(0)
        self._at_least[flow.waiting] += 1

    def _begin(self, owner: str) -> Flow:
        if len(self.flows) >= self._sweep_at:
            floor = self._top() or self._last
            self.flows = {
                name: flow
                for name, flow in self.flows.items()
                if flow.lines
                or flow.running
                or flow.blocked_by
                or floor is None
                or flow.counter > floor.counter
            }
            self._sweep_at = max(self.SWEEP_AT, 2 * len(self.flows))
        flow = self.flows[owner] = Flow(owner, self)
        return flow
