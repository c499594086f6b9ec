"""What the fair queue must do, written as plainly as possible: lists, and a search through all of them each time."""

from __future__ import annotations

from dataclasses import dataclass, field

from scibox.core.admission import Wish
from scibox.core.limits import Verdict

FIRST_GUESS, OF_OWNER, OF_ALL = 256.0, 0.2, 0.05


@dataclass
class PlainCall:
    wish: Wish
    charged: float = 0.0
    covered: float = 0.0
    generated: int = 0
    expected_cost: float = 0.0  # of what is charged


@dataclass
class PlainOwner:
    name: str
    weight: float = 1.0
    counter: float = 0.0
    expected_cost: float = 0.0  # of it: for output that is only expected
    last_turn: int = 0
    began: int = 0
    expected: float | None = None
    parked: tuple[str, float] | None = None
    parked_keys: dict[str, tuple[str, float]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)  # in turn: those that have calls and are not parked
    calls: dict[str, list[PlainCall]] = field(default_factory=dict)

    @property
    def may_start(self) -> bool:
        return bool(self.keys) and self.parked is None

    def expect(self, call: PlainCall, cost: float) -> None:
        self.expected_cost += cost - call.expected_cost
        call.expected_cost = cost


def _by_turn(owner: PlainOwner) -> tuple[float, int, int]:
    return owner.counter, owner.last_turn, owner.began


class PlainRank:
    """One rank of the queue."""

    def __init__(self) -> None:
        self.owners: dict[str, PlainOwner] = {}
        self.last: PlainOwner | None = None
        self.turn = 0
        self.beginnings = 0
        self.typical = FIRST_GUESS
        self.parked: tuple[str, float] | None = None

    def watch(self, owner: PlainOwner, before: bool) -> None:
        """Lift an owner that has begun to wait; note one that has ceased to."""
        if owner.may_start and not before:
            others = [other for other in self.owners.values() if other.may_start and other is not owner]
            least = min(others, key=_by_turn, default=self.last)
            if least is not None:
                owner.counter = max(owner.counter, least.counter - least.expected_cost / least.weight)
            self.beginnings += 1
            owner.began = self.beginnings
        elif before and not owner.may_start:
            self.last = owner

    def enter(self, wish: Wish) -> None:
        owner = self.owners.setdefault(wish.owner, PlainOwner(wish.owner))
        before = owner.may_start
        owner.weight = wish.weight
        owner.calls.setdefault(wish.key_id, []).append(PlainCall(wish))
        if wish.key_id not in owner.keys and wish.key_id not in owner.parked_keys:
            owner.keys.append(wish.key_id)
        self.watch(owner, before)

    def remove(self, call_id: str) -> None:
        for owner in self.owners.values():
            before = owner.may_start
            for key, calls in owner.calls.items():
                calls[:] = [call for call in calls if call.wish.call_id != call_id]
                if not calls and key in owner.keys:
                    owner.keys.remove(key)
            self.watch(owner, before)

    def first(self) -> PlainOwner | None:
        waiting = [owner for owner in self.owners.values() if owner.may_start]
        if self.parked or not waiting:
            return None
        return min(waiting, key=_by_turn)

    def cost(self, owner: PlainOwner, wish: Wish) -> tuple[float, float]:
        typical = self.typical if owner.expected is None else owner.expected
        completion = min(typical, wish.completion_tokens)
        return completion, wish.prompt_tokens + 2.0 * completion

    def start(self, owner: PlainOwner) -> PlainCall:
        call = owner.calls[owner.keys[0]].pop(0)
        self.turn += 1
        owner.last_turn = self.turn
        call.covered, call.charged = self.cost(owner, call.wish)
        owner.counter += call.charged / owner.weight
        owner.expect(call, 2.0 * call.covered)
        key = owner.keys.pop(0)
        if owner.calls[key]:
            owner.keys.append(key)
        self.watch(owner, True)
        return call

    def put_back(self, call: PlainCall, verdict: Verdict, until: float) -> None:
        owner, key = self.owners[call.wish.owner], call.wish.key_id
        before = owner.may_start
        owner.counter += -call.charged / owner.weight
        owner.expect(call, 0.0)
        owner.calls[key].insert(0, call)
        if key in owner.keys:
            owner.keys.remove(key)
        if key not in owner.parked_keys:
            owner.keys.insert(0, key)
        self.watch(owner, before)
        before = owner.may_start
        if verdict.subject.startswith("key:"):
            owner.parked_keys[key] = (verdict.subject, until)
            if key in owner.keys:
                owner.keys.remove(key)
            self.watch(owner, before)
        elif "owner:" in verdict.subject:
            owner.parked = (verdict.subject, until)
            self.watch(owner, before)
        else:
            self.parked = (verdict.subject, until)


class PlainQueue:
    """The same as `FairQueue`, but for estimates."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.ranks = {"interactive": PlainRank(), "batch": PlainRank()}
        self.running: dict[str, PlainCall] = {}
        self.earned = 0.0

    def enter(self, wish: Wish) -> None:
        self.ranks[wish.rank].enter(wish)

    def remove(self, call_id: str) -> None:
        for rank in self.ranks.values():
            rank.remove(call_id)

    def waiting(self) -> list[str]:
        return [
            call.wish.call_id
            for rank in self.ranks.values()
            for owner in rank.owners.values()
            for calls in owner.calls.values()
            for call in calls
        ]

    def pick(self, now: float) -> str | None:
        self.free_those(lambda subject, until: until <= now)
        free = self.slots - len(self.running)
        if free <= 0:
            return None
        interactive, batch = self.ranks["interactive"].first(), self.ranks["batch"].first()
        if batch is None:
            self.earned = 0.0
        wish = batch.calls[batch.keys[0]][0].wish if batch else None
        is_owed = bool(
            batch and wish and self.earned and self.earned >= self.ranks["batch"].cost(batch, wish)[1]
        )
        if interactive and not is_owed:
            call = self.ranks["interactive"].start(interactive)
            if any(calls for owner in self.ranks["batch"].owners.values() for calls in owner.calls.values()):
                self.earned += call.charged / 20 / (19 / 20)
        elif batch and (is_owed or free > 1 or self.slots == 1):
            call = self.ranks["batch"].start(batch)
            self.earned = 0.0
        else:
            return None
        self.running[call.wish.call_id] = call
        return call.wish.call_id

    def put_back(self, call_id: str, verdict: Verdict, now: float) -> None:
        call = self.running.pop(call_id)
        until = float("inf") if verdict.wait_s is None else now + verdict.wait_s
        self.ranks[call.wish.rank].put_back(call, verdict, until)

    def wake(self, subject: str) -> None:
        self.free_those(lambda parked_for, _: parked_for == subject)

    def free_those(self, is_free) -> None:  # type: ignore[no-untyped-def]  # of a subject and a time
        due = []
        for rank in self.ranks.values():
            if rank.parked and is_free(*rank.parked):
                rank.parked = None
            for owner in rank.owners.values():
                if owner.parked and is_free(*owner.parked):
                    due.append((owner.parked[1], rank, owner, None))
                due += [
                    (parked[1], rank, owner, key)
                    for key, parked in owner.parked_keys.items()
                    if is_free(*parked)
                ]
        for _, rank, owner, key in sorted(due, key=lambda item: item[0]):
            before = owner.may_start
            if key is None:
                owner.parked = None
            else:
                del owner.parked_keys[key]
                if owner.calls.get(key):
                    owner.keys.insert(0, key)
            rank.watch(owner, before)

    def charge(self, call_id: str, tokens: int) -> None:
        call = self.running[call_id]
        call.generated += tokens
        owner = self.ranks[call.wish.rank].owners[call.wish.owner]
        if call.generated > call.covered:
            cost = 2.0 * (call.generated - call.covered)
            call.covered = call.generated
            call.charged += cost
            owner.counter += cost / owner.weight
        owner.expect(call, 2.0 * (call.covered - call.generated))

    def finish(self, call_id: str, tokens: int | None) -> None:
        call = self.running.pop(call_id)
        rank = self.ranks[call.wish.rank]
        owner = rank.owners[call.wish.owner]
        owner.expect(call, 0.0)
        if tokens is None:
            return
        completion = max(0, tokens - call.wish.prompt_tokens)
        cost = min(tokens, call.wish.prompt_tokens) + 2.0 * completion
        owner.counter += (cost - call.charged) / owner.weight
        if completion:
            before = rank.typical if owner.expected is None else owner.expected
            owner.expected = before + OF_OWNER * (completion - before)
            rank.typical += OF_ALL * (completion - rank.typical)
