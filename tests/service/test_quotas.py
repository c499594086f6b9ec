"""What was used of quotas is told to the limits once, whatever happens meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from scibox.core.admission import Subject, Wish, of_key, of_model, of_owner
from scibox.core.errors import StorageUnavailable
from scibox.core.events import Event, Notice
from scibox.core.limits import Moment, Windows
from scibox.core.types import Limits
from scibox.ledger.reports import OfPeriod
from scibox.service import quotas
from scibox.service.quotas import Quotas

NOON = 1_795_521_600.0
TEAM = Subject(of_owner("team"), Limits(tokens_per_day=1_000, tokens_per_month=5_000))
KEY = Subject(of_key("key_1"), Limits(tokens_per_day=1_000))


class Books:
    """A ledger and limits, with clocks that only `wait` moves."""

    def __init__(self, *subjects: Subject) -> None:
        self.limiter = Windows()
        self.subjects = list(subjects)
        self.tokens: dict[str, tuple[int, int]] = {}
        self.behind_bytes = 0
        self.is_away = False
        self.reads = 0
        self.calls = 0
        self.clock, self.unix = 0.0, NOON
        self.notices: list[str] = []
        self.during: list[tuple[str, int]] = []  # what is spent after the next reading, before it is told
        self.quotas = Quotas(
            self.limiter,
            lambda: self.subjects,
            self._used,
            self._note,
            clock=lambda: self.clock,
            now=lambda: self.unix,
        )

    def wait(self, seconds: float) -> None:
        self.clock += seconds
        self.unix += seconds

    def spend(self, name: str, tokens: int) -> None:
        """A call of a subject: counted by the limits, and in the ledger."""
        subject = next(one for one in self.subjects if one.name == name)
        at = Moment(self.clock, self.unix)
        self.calls += 1
        call_id = f"req_{self.calls}"
        wish = Wish(call_id, "key_1", "team", 1.0, "m", "interactive", tokens, 0, 0, 1.0, (subject,))
        self.limiter.take(wish, at, lambda verdict: None)
        self.limiter.settle(call_id, tokens, at)
        day, month = self.tokens.get(name, (0, 0))
        self.tokens[name] = (day + tokens, month + tokens)

    def left(self, name: str, limit: str = "tokens_per_day") -> int:
        subject = next(one for one in self.subjects if one.name == name)
        found: list[int] = []
        self.limiter.allowances(
            [subject],
            Moment(self.clock, self.unix),
            lambda left: found.extend(one.remaining for one in left if one.limit == limit),
        )
        return found[0]

    async def _used(self) -> OfPeriod:
        self.reads += 1
        if self.is_away:
            raise StorageUnavailable("away")
        used = OfPeriod(dict(self.tokens), self.behind_bytes)
        for name, tokens in self.during:
            self.spend(name, tokens)
        self.during.clear()
        return used

    def _note(self, event: Event) -> None:
        assert isinstance(event, Notice)
        self.notices.append(event.message)


async def test_a_start_goes_on_with_what_was_used() -> None:
    books = Books(TEAM, KEY)
    books.tokens = {TEAM.name: (700, 4_000), KEY.name: (100, 200), of_owner("other"): (9, 9)}

    await books.quotas.start(within_s=5.0)

    assert (books.left(TEAM.name), books.left(TEAM.name, "tokens_per_month")) == (300, 1_000)
    assert books.left(KEY.name) == 900


async def test_a_call_that_ends_while_the_ledger_is_read_counts_once() -> None:
    books = Books(TEAM)
    books.tokens = {TEAM.name: (700, 700)}
    books.during = [(TEAM.name, 50)]

    await books.quotas.look()
    books.wait(quotas.AGAIN_S)
    await books.quotas.look()

    assert books.left(TEAM.name) == 250


async def test_calls_before_the_database_answers_count_once() -> None:
    books = Books(TEAM)
    books.tokens = {TEAM.name: (700, 700)}
    books.is_away = True
    await books.quotas.start(within_s=5.0)
    books.spend(TEAM.name, 60)
    assert books.left(TEAM.name) == 940
    with pytest.raises(StorageUnavailable):
        await books.quotas.look()

    books.is_away = False
    await books.quotas.look()

    assert books.left(TEAM.name) == 240
    books.spend(TEAM.name, 40)
    assert books.left(TEAM.name) == 200


async def test_a_quota_that_is_set_later_counts_what_was_used_before() -> None:
    books = Books(Subject(TEAM.name, Limits(tokens_per_month=5_000)))
    books.tokens = {TEAM.name: (700, 4_000)}
    await books.quotas.look()

    books.subjects = [TEAM]
    await books.quotas.look()

    assert books.left(TEAM.name) == 300
    assert books.left(TEAM.name, "tokens_per_month") == 1_000


async def test_a_call_that_waits_with_the_limits_of_before_does_not_lose_what_was_used() -> None:
    books = Books(TEAM)
    books.tokens = {TEAM.name: (700, 700)}
    await books.quotas.look()

    books.subjects = [Subject(TEAM.name, Limits(calls_per_minute=10))]
    books.spend(TEAM.name, 1)
    books.subjects = [TEAM]

    assert books.left(TEAM.name) == 300


async def test_a_quota_that_was_taken_away_and_set_again_counts_what_was_used_between() -> None:
    books = Books(TEAM)
    await books.quotas.look()
    books.subjects = []
    await books.quotas.look()
    books.tokens = {TEAM.name: (600, 600)}

    books.subjects = [TEAM]
    await books.quotas.look()

    assert books.left(TEAM.name) == 400


async def test_the_ledger_is_read_for_a_change_and_once_more_and_then_no_longer() -> None:
    books = Books(TEAM)
    for _ in range(20):
        await books.quotas.look()
        books.wait(quotas.AGAIN_S / 2)

    assert books.reads == 2
    books.tokens = {TEAM.name: (600, 600)}  # of calls of another node, or that were interrupted
    books.subjects.append(KEY)
    await books.quotas.look()
    assert books.reads == 3
    assert books.left(TEAM.name) == 1_000


async def test_what_another_start_left_open_is_counted_when_it_is_in_the_ledger() -> None:
    books = Books(TEAM)
    books.tokens = {TEAM.name: (600, 600)}
    await books.quotas.look()
    books.tokens = {TEAM.name: (650, 650)}

    books.wait(quotas.AGAIN_S)
    await books.quotas.look()

    assert books.left(TEAM.name) == 350


async def test_a_long_journal_is_waited_for() -> None:
    books = Books(TEAM)
    books.behind_bytes = 2**30
    for _ in range(5):
        await books.quotas.look()
        books.wait(quotas.AGAIN_S)
    books.behind_bytes, books.tokens = 0, {TEAM.name: (600, 600)}

    await books.quotas.look()

    assert books.left(TEAM.name) == 400


async def test_figures_of_a_day_that_ended_while_they_were_read_are_not_taken() -> None:
    books = Books(TEAM)
    books.tokens = {TEAM.name: (700, 4_000)}
    books.unix = NOON - NOON % 86_400 + 86_399
    used = books._used

    async def slow() -> OfPeriod:
        told = await used()
        if books.reads == 1:
            books.wait(2)
            books.tokens = {TEAM.name: (0, 4_000)}
        return told

    books.quotas._used = slow
    await books.quotas.look()

    assert (books.left(TEAM.name), books.left(TEAM.name, "tokens_per_month")) == (1_000, 1_000)


async def test_a_database_that_hangs_does_not_hold_up_a_start() -> None:
    books = Books(TEAM)
    books.quotas._used = lambda: asyncio.sleep(60)  # type: ignore[assignment,return-value]

    async with asyncio.timeout(5):
        await books.quotas.start(within_s=0.01)


async def test_the_log_hears_once_that_the_ledger_cannot_say_it_and_that_it_can_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quotas, "RETRY_S", 0.01)
    books = Books(TEAM)
    books.is_away = True
    running = asyncio.create_task(books.quotas.run())
    async with asyncio.timeout(20):
        while books.reads < 4:
            await asyncio.sleep(0.01)
        assert len(books.notices) == 1
        books.is_away = False
        while len(books.notices) < 2:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert "until it can" in books.notices[0]
    assert "again" in books.notices[1]


def test_subjects_have_the_same_names_at_the_desk_and_in_the_ledger() -> None:
    names = [of_key("key_1"), of_owner("team"), of_model("m"), of_model("m", "team")]

    assert names == ["key:key_1", "owner:team", "model:m", "model:m owner:team"]
