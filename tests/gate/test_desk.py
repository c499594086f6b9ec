"""The desk of one process: who starts, who waits, who is refused; and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from scibox.core.admission import Grant, Place, Subject, Wish
from scibox.core.errors import Busy, QuotaExceeded, RateLimited
from scibox.core.limits import Windows
from scibox.core.types import Limits
from scibox.gate.desk import LocalDesk


def desk(slots: Sequence[int] = (1,), **more: Any) -> LocalDesk:
    return LocalDesk(lambda model: slots, Windows(), time.monotonic, time.time, luck=lambda: 0.5, **more)


def wish(call_id: str, owner: str = "team", *subjects: Subject, **more: Any) -> Wish:
    fields: dict[str, Any] = {
        "key_id": f"key_{owner}",
        "weight": 1.0,
        "model": "m",
        "rank": "interactive",
        "prompt_tokens": 10,
        "completion_tokens": 10,
        "texts": 0,
        "patience_s": 200.0,
    }
    return Wish(call_id=call_id, owner=owner, subjects=subjects, **fields | more)


def limited(name: str = "owner:team", **limits: int) -> Subject:
    return Subject(name, Limits(**limits))


@contextlib.asynccontextmanager
async def coming(of: LocalDesk, *wishes: Wish) -> AsyncIterator[list[asyncio.Task[Grant]]]:
    """Calls that have come to the desk, in this order."""
    tasks = []
    for one in wishes:
        tasks.append(asyncio.create_task(of.enter(one, None)))
        await asyncio.sleep(0)
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_call_starts_at_once_where_a_slot_is_free() -> None:
    grant = await desk().enter(wish("a"), None)

    assert grant.deployment == 0
    assert grant.position == 0
    assert grant.waited_s < 1.0


async def test_slots_are_taken_in_the_order_of_the_deployments_and_given_back() -> None:
    of = desk(slots=(2, 1))
    first = [(await of.enter(wish(name), None)).deployment for name in "abc"]
    of.leave("b", 20)
    again = await of.enter(wish("d"), None)

    assert first == [0, 0, 1]
    assert again.deployment == 0


async def test_a_call_takes_its_slot_along_to_another_deployment() -> None:
    of = desk(slots=(2, 1))
    for name in "ab":
        await of.enter(wish(name), None)
    of.move("a", 1)
    of.move("b", 1)  # beyond its slots: it is there already
    of.move("b", 7)  # there is no such one, after a reload
    of.move("nobody", 1)
    third = await of.enter(wish("c"), None)
    assert third.deployment == 0
    async with coming(of, wish("d")) as (d,):
        assert not d.done()  # as many run as there are slots
        of.leave("a", 20)
        assert (await d).deployment == 0
    for name in "bc":
        of.leave(name, 20)
    of.leave("d", 20)

    assert [(await of.enter(wish(name), None)).deployment for name in "efg"] == [0, 0, 1]


async def test_a_slot_that_is_free_goes_to_the_next_call_at_once() -> None:
    of = desk()
    await of.enter(wish("a"), None)
    async with coming(of, wish("b"), wish("c")) as (b, c):
        assert not b.done()
        of.leave("a", 20)
        grant = await asyncio.wait_for(b, 1)
        assert not c.done()
        of.leave("b", 20)
        await asyncio.wait_for(c, 1)

    assert grant.position == 1


async def test_leaving_twice_gives_one_slot_back() -> None:
    of = desk()
    await of.enter(wish("a"), None)
    of.leave("a", 20)
    of.leave("a", 20)
    await of.enter(wish("b"), None)
    async with coming(of, wish("c")) as (c,):
        await asyncio.sleep(0.01)
        assert not c.done()


async def test_who_is_cancelled_while_it_waits_leaves_at_once_and_holds_nothing() -> None:
    of = desk()
    await of.enter(wish("a"), None)
    async with coming(of, wish("b"), wish("c")) as (b, c):
        b.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        places = await of.places("team")
        of.leave("a", 20)
        await asyncio.wait_for(c, 1)

    assert [(place.call_id, place.position) for place in places] == [("a", 0), ("c", 1)]


async def test_who_is_cancelled_in_the_moment_of_its_turn_gives_the_slot_on() -> None:
    of = desk()
    await of.enter(wish("a"), None)
    async with coming(of, wish("b"), wish("c")) as (b, c):
        of.leave("a", 20)  # it is the turn of b, which does not know it yet
        b.cancel()
        await asyncio.wait_for(c, 1)


async def test_a_rate_limit_makes_wait_and_does_not_refuse() -> None:
    of, by = desk(slots=(9,)), limited(calls_per_second=2)
    began = time.monotonic()
    async with coming(of, *(wish(name, "team", by) for name in "abcd")) as tasks:
        other = await of.enter(wish("x", "others"), None)
        grants = await asyncio.wait_for(asyncio.gather(*tasks), 10)

    assert time.monotonic() - began >= 1.0
    assert [grant.waited_s < 0.5 for grant in grants] == [True, True, False, False]
    assert other.waited_s < 0.5  # the limit of one team holds no other team back


async def test_one_key_at_its_limit_does_not_hold_back_another_of_the_same_owner() -> None:
    of, by = desk(slots=(9,)), limited("key:key_a", calls_per_minute=1)
    await of.enter(wish("a1", "team", by, key_id="key_a"), None)
    async with coming(of, wish("a2", "team", by, key_id="key_a")) as (a2,):
        await asyncio.wait_for(of.enter(wish("b1", "team", key_id="key_b"), None), 1)
        assert not a2.done()


async def test_calls_in_flight_wait_for_one_to_end() -> None:
    of, by = desk(slots=(9,)), limited(calls_in_flight=1)
    await of.enter(wish("a", "team", by), None)
    async with coming(of, wish("b", "team", by)) as (b,):
        await asyncio.sleep(0.01)
        assert not b.done()
        of.leave("a", 20)
        await asyncio.wait_for(b, 1)


async def test_a_limit_of_an_owner_holds_over_all_models() -> None:
    of, by = desk(slots=(9,)), limited(calls_in_flight=1)
    await of.enter(wish("a", "team", by), None)
    async with coming(of, wish("b", "team", by, model="n")) as (b,):
        await asyncio.sleep(0.01)
        assert not b.done()
        of.leave("a", 20)
        await asyncio.wait_for(b, 1)


async def test_tokens_that_were_reserved_and_not_used_are_given_back() -> None:
    of, by = desk(slots=(9,)), limited(tokens_per_minute=100)
    await of.enter(wish("a", "team", by, completion_tokens=90), None)
    async with coming(of, wish("b", "team", by, completion_tokens=60)) as (b,):
        await asyncio.sleep(0.01)
        assert not b.done()
        of.leave("a", 15)
        grant = await asyncio.wait_for(b, 1)

    [left] = grant.allowances
    assert (left.limit, left.amount, left.remaining) == ("tokens_per_minute", 100, 100 - 15 - 70)


async def test_a_used_up_quota_is_refused_at_once_and_retrying_does_not_help() -> None:
    of, by = desk(), limited(tokens_per_day=10)
    await of.enter(wish("a", "team", by), None)
    of.leave("a", 20)
    with pytest.raises(QuotaExceeded) as refused:
        await of.enter(wish("b", "team", by), None)
    await of.enter(wish("c", "others"), None)  # its slot is free

    assert refused.value.should_retry is False
    assert refused.value.retry_after_s == 60  # every 429 has it
    assert "10 LLM tokens per day" in refused.value.message
    assert "'team'" in refused.value.message
    assert "'m'" in refused.value.message


async def test_a_limit_of_none_is_refused_for_good() -> None:
    with pytest.raises(RateLimited) as refused:
        await desk().enter(wish("a", "team", limited(calls_per_minute=0)), None)

    assert refused.value.should_retry is False


async def test_a_wait_that_will_be_longer_than_the_patience_is_refused_at_once() -> None:
    of, by = desk(slots=(9,)), limited(calls_per_minute=1)
    await of.enter(wish("a", "team", by), None)
    began = time.monotonic()
    with pytest.raises(RateLimited) as refused:
        await of.enter(wish("b", "team", by, patience_s=5.0), None)

    assert time.monotonic() - began < 1.0
    assert 50 <= (refused.value.retry_after_s or 0) <= 60
    assert "1 calls per minute" in refused.value.message
    assert "'team'" in refused.value.message


async def test_patience_that_ends_is_refused_then() -> None:
    of = desk()
    await of.enter(wish("a"), None)  # how long it will take is not known
    began = time.monotonic()
    with pytest.raises(Busy) as refused:
        await of.enter(wish("b", patience_s=0.1), None)

    assert time.monotonic() - began >= 0.1
    assert 1 <= (refused.value.retry_after_s or 0) <= 60
    assert "'m' is busy" in refused.value.message
    assert [place.call_id for place in await of.places("team")] == ["a"]


@pytest.mark.parametrize(
    ("bounds", "words"),
    [({"queue_per_owner": 2}, "2 calls of your team"), ({"queue_per_model": 2}, "2 calls wait")],
)
async def test_queues_are_bounded(bounds: dict[str, int], words: str) -> None:
    of = desk(**bounds)
    await of.enter(wish("a"), None)
    async with coming(of, wish("b"), wish("c")):
        with pytest.raises(Busy) as refused:
            await of.enter(wish("d"), None)

    assert words in refused.value.message
    assert refused.value.code == "queue_too_long"
    assert 1 <= (refused.value.retry_after_s or 0) <= 60


async def test_who_waits_hears_where_it_stands_after_a_second() -> None:
    of, by = desk(), limited(calls_per_minute=60)
    await of.enter(wish("a", "team", by), None)
    heard: list[Place] = []
    task = asyncio.create_task(of.enter(wish("b", "team", by), heard.append))
    await asyncio.sleep(0.5)
    early = len(heard)
    async with asyncio.timeout(20):
        while not heard:
            await asyncio.sleep(0.01)
    of.leave("a", 20)
    grant = await task
    told = len(heard)
    await asyncio.sleep(0)

    assert early == 0
    assert heard[0].position == heard[0].came_at == 1
    assert heard[0].waited_s >= 0.9
    assert [allowance.limit for allowance in heard[0].allowances] == ["calls_per_minute"]
    assert len(heard) == told  # nothing after the turn has come
    assert grant.position == 1


async def test_batches_wait_for_everybody_else() -> None:
    of = desk()
    await of.enter(wish("a"), None)
    async with coming(of, wish("night", rank="batch"), wish("day", "others")) as (night, day):
        of.leave("a", 20)
        await asyncio.wait_for(day, 1)
        assert not night.done()
        of.leave("day", 20)
        await asyncio.wait_for(night, 1)


async def test_a_model_with_room_is_found() -> None:
    of = LocalDesk(lambda model: (1,), Windows(), time.monotonic, time.time)
    await of.enter(wish("a"), None)

    assert await of.has_room(["m", "n"]) == "n"
    assert await of.has_room(["m"]) is None


async def test_more_slots_are_used_as_soon_as_they_are_known() -> None:
    slots = [1]
    of = LocalDesk(lambda model: slots, Windows(), time.monotonic, time.time)
    await of.enter(wish("a"), None)
    async with coming(of, wish("b")) as (b,):
        slots[0] = 3
        await asyncio.wait_for(of.enter(wish("c"), None), 1)
        await asyncio.wait_for(b, 1)
