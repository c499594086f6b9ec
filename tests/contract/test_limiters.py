"""One suite for every limiter: in memory, and on a real Valkey or Redis."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from limiting import at, left, remaining, subject, take, wish
from servers import Server, valkey, valkey_program

from scibox.core.limits import Limiter, Windows
from scibox.gate.shared import SharedLimiter


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if valkey_program() is None:
        pytest.skip("neither valkey-server nor redis-server is installed")
    with valkey() as running:
        yield running


@pytest.fixture(params=["memory", "server"])
async def limiter(request: pytest.FixtureRequest) -> AsyncIterator[Limiter]:
    if request.param == "memory":
        yield Windows()
        return
    # A name for each test; and patience, since these are about counting.
    name = f"t{time.monotonic_ns()}"
    shared = SharedLimiter(request.getfixturevalue("server").url, print, prefix=name, budget_s=5.0)
    await shared.start(10.0)
    assert not shared.is_degraded
    yield shared
    assert not shared.is_degraded
    await shared.stop()


async def test_a_limit_is_used_to_the_last_and_no_further(limiter: Limiter) -> None:
    few = subject(calls_per_minute=3)
    verdicts = [await take(limiter, wish(few)) for _ in range(4)]

    assert [verdict.taken for verdict in verdicts] == [True, True, True, False]
    blocked = verdicts[-1]
    assert (blocked.subject, blocked.limit, blocked.amount) == ("key:one", "calls_per_minute", 3)
    assert blocked.wait_s is not None
    assert 50 < blocked.wait_s < 60.2
    assert not blocked.is_final


async def test_after_the_wait_that_was_told_there_is_room(limiter: Limiter) -> None:
    quick = subject(calls_per_second=2)
    await take(limiter, wish(quick))
    await take(limiter, wish(quick))
    blocked = await take(limiter, wish(quick))
    assert blocked.wait_s is not None
    await asyncio.sleep(blocked.wait_s)

    assert (await take(limiter, wish(quick))).taken


async def test_all_or_nothing_is_taken(limiter: Limiter) -> None:
    free = subject(
        "owner:team", calls_per_minute=10, tokens_per_minute=1_000, calls_in_flight=5, tokens_per_day=9_000
    )
    full = subject("model:m", calls_per_minute=1)
    assert (await take(limiter, wish(full))).taken
    before = {name: found.remaining for name, found in (await left(limiter, free)).items()}
    verdict = await take(limiter, wish(free, full))

    assert (verdict.taken, verdict.subject) == (False, "model:m")
    assert {name: found.remaining for name, found in (await left(limiter, free)).items()} == before
    assert before == {
        ("owner:team", "calls_per_minute"): 10,
        ("owner:team", "tokens_per_minute"): 1_000,
        ("owner:team", "calls_in_flight"): 5,
        ("owner:team", "tokens_per_day"): 9_000,
    }


async def test_what_was_not_used_is_given_back(limiter: Limiter) -> None:
    tight = subject(tokens_per_minute=1_000, calls_per_minute=10, texts_per_minute=50)
    first = wish(tight, tokens=1_000, texts=20)
    assert (await take(limiter, first)).taken
    assert not (await take(limiter, wish(tight, tokens=1))).taken
    limiter.settle(first.call_id, 300, at())

    assert await remaining(limiter, tight, "tokens_per_minute") == 700
    assert await remaining(limiter, tight, "calls_per_minute") == 9  # calls and texts stay counted
    assert await remaining(limiter, tight, "texts_per_minute") == 30
    assert (await take(limiter, wish(tight, tokens=700))).taken


async def test_what_was_used_beyond_is_charged(limiter: Limiter) -> None:
    tight = subject(tokens_per_minute=1_000)
    first = wish(tight, tokens=100)
    await take(limiter, first)
    limiter.settle(first.call_id, 900, at())

    assert await remaining(limiter, tight, "tokens_per_minute") == 100


async def test_a_call_that_reserves_more_than_a_limit_takes_all_of_it(limiter: Limiter) -> None:
    tight = subject(tokens_per_minute=1_000)
    huge = wish(tight, tokens=5_000)

    assert (await take(limiter, huge)).taken
    assert await remaining(limiter, tight, "tokens_per_minute") == 0
    limiter.settle(huge.call_id, 10, at())
    assert await remaining(limiter, tight, "tokens_per_minute") == 990


async def test_as_reserved_is_what_an_unknown_use_counts(limiter: Limiter) -> None:
    tight = subject(tokens_per_minute=1_000, tokens_per_day=1_000)
    first = wish(tight, tokens=400)
    await take(limiter, first)
    limiter.settle(first.call_id, None, at())

    assert await remaining(limiter, tight, "tokens_per_minute") == 600
    assert await remaining(limiter, tight, "tokens_per_day") == 600


async def test_calls_in_flight_are_freed_by_their_end(limiter: Limiter) -> None:
    two = subject(calls_in_flight=2)
    calls = [wish(two) for _ in range(2)]
    for call in calls:
        assert (await take(limiter, call)).taken
    blocked = await take(limiter, wish(two))
    assert (blocked.taken, blocked.limit, blocked.is_final) == (False, "calls_in_flight", False)
    limiter.settle(calls[0].call_id, 1, at())
    limiter.settle(calls[0].call_id, 1, at())  # harmless twice
    limiter.settle("req_unknown", 1, at())

    assert (await take(limiter, wish(two))).taken
    assert not (await take(limiter, wish(two))).taken


async def test_a_quota_in_use_blocks_until_it_is_given_back_and_a_used_one_for_good(limiter: Limiter) -> None:
    small = subject(tokens_per_day=1_000)
    first = wish(small, tokens=2_000)
    assert (await take(limiter, first)).taken
    blocked = await take(limiter, wish(small))
    assert (blocked.taken, blocked.limit, blocked.is_final) == (False, "tokens_per_day", False)
    limiter.settle(first.call_id, 600, at())
    assert await remaining(limiter, small, "tokens_per_day") == 400
    second = wish(small, tokens=500)
    assert (await take(limiter, second)).taken
    limiter.settle(second.call_id, 500, at())
    blocked = await take(limiter, wish(small))

    assert (blocked.taken, blocked.limit, blocked.is_final) == (False, "tokens_per_day", True)
    assert blocked.wait_s is not None
    assert 0 < blocked.wait_s <= 86_400


async def test_what_the_ledger_says_was_used_counts_once(limiter: Limiter) -> None:
    month = subject(tokens_per_day=1_000, tokens_per_month=5_000)
    limiter.load_used(month, 300, 4_000, at())
    limiter.load_used(month, 200, 3_000, at())

    assert await remaining(limiter, month, "tokens_per_day") == 700
    assert await remaining(limiter, month, "tokens_per_month") == 1_000


@pytest.mark.parametrize("limit", ["calls_per_second", "calls_in_flight", "tokens_per_minute"])
async def test_a_limit_of_none_at_all_is_final(limiter: Limiter, limit: str) -> None:
    verdict = await take(limiter, wish(subject(**{limit: 0})))

    assert (verdict.taken, verdict.limit, verdict.is_final) == (False, limit, True)
    assert verdict.wait_s is not None
    assert math.isinf(verdict.wait_s)


async def test_of_several_limits_the_one_that_blocks_longest_is_told(limiter: Limiter) -> None:
    both = subject(calls_per_second=1, calls_per_minute=1)
    await take(limiter, wish(both))

    assert (await take(limiter, wish(both))).limit == "calls_per_minute"


async def test_changed_limits_hold_from_now_on_with_what_was_used(limiter: Limiter) -> None:
    for _ in range(3):
        await take(limiter, wish(subject(calls_per_minute=5)))

    assert not (await take(limiter, wish(subject(calls_per_minute=3)))).taken
    assert (await take(limiter, wish(subject(calls_per_minute=4)))).taken
    assert await remaining(limiter, subject(calls_per_minute=10), "calls_per_minute") == 6


async def test_subjects_do_not_touch_each_other(limiter: Limiter) -> None:
    one, other = subject("key:one", calls_per_minute=1), subject("key:other", calls_per_minute=1)
    await take(limiter, wish(one))

    assert (await take(limiter, wish(other))).taken


async def test_answers_come_in_the_order_of_the_questions_and_see_what_came_before(limiter: Limiter) -> None:
    one = subject(calls_in_flight=1, calls_per_minute=100)
    heard: list[object] = []
    first, second, third = wish(one), wish(one), wish(one)
    last: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    limiter.take(first, at(), lambda verdict: heard.append(("first", verdict.taken)))
    limiter.take(second, at(), lambda verdict: heard.append(("second", verdict.taken)))
    while not heard:
        await asyncio.sleep(0.001)
    limiter.settle(first.call_id, 1, at())
    limiter.take(third, at(), lambda verdict: heard.append(("third", verdict.taken)))
    limiter.allowances([one], at(), lambda found: (heard.append(len(found)), last.set_result(None)))
    await asyncio.wait_for(last, 10)

    assert heard == [("first", True), ("second", False), ("third", True), 2]


async def test_a_call_without_limits_is_taken(limiter: Limiter) -> None:
    assert (await take(limiter, wish())).taken


async def test_resets_tell_when_all_is_back(limiter: Limiter) -> None:
    some = subject(calls_per_second=5, calls_per_minute=5)
    fresh = await left(limiter, some)
    await take(limiter, wish(some))
    used = await left(limiter, some)

    assert {found.reset_s for found in fresh.values()} == {0.0}
    assert 0 < used["key:one", "calls_per_second"].reset_s <= 1.01
    assert 50 < used["key:one", "calls_per_minute"].reset_s <= 60.2
