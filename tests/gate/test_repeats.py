import asyncio

import pytest

from scibox.core.errors import IdempotencyKeyReused
from scibox.gate.repeats import Answer, LocalRepeats

ANSWER = Answer(200, b"x" * 1_000)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def kept(repeats: LocalRepeats, *names: bytes) -> list[bytes]:
    """Those of the names whose answer is remembered; the others are begun and abandoned."""
    found = []
    for name in names:
        if await repeats.begin(name, b"body"):
            found.append(name)
        else:
            repeats.abandon(name)
    return found


async def test_a_repeat_gets_the_first_answer() -> None:
    repeats = LocalRepeats(60.0, 10_000, Clock())

    assert await repeats.begin(b"a", b"body") is None
    repeats.finish(b"a", ANSWER, is_kept=True)

    assert await repeats.begin(b"a", b"body") is ANSWER


async def test_another_body_is_refused_during_and_after() -> None:
    repeats = LocalRepeats(60.0, 10_000, Clock())
    await repeats.begin(b"a", b"body")
    with pytest.raises(IdempotencyKeyReused):
        await repeats.begin(b"a", b"another")
    repeats.finish(b"a", ANSWER, is_kept=True)
    with pytest.raises(IdempotencyKeyReused):
        await repeats.begin(b"a", b"another")


async def test_who_waits_gets_the_answer_that_is_not_kept_for_others() -> None:
    repeats = LocalRepeats(60.0, 10_000, Clock())
    await repeats.begin(b"a", b"body")
    waiting = asyncio.create_task(repeats.begin(b"a", b"body"))
    await asyncio.sleep(0)
    repeats.finish(b"a", ANSWER, is_kept=False)

    assert await waiting is ANSWER
    assert await repeats.begin(b"a", b"body") is None


async def test_when_the_leader_gives_up_one_of_the_waiting_leads() -> None:
    repeats = LocalRepeats(60.0, 10_000, Clock())
    await repeats.begin(b"a", b"body")
    waiting = [asyncio.create_task(repeats.begin(b"a", b"body")) for _ in range(3)]
    await asyncio.sleep(0)
    repeats.abandon(b"a")
    done, still = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)

    assert [task.result() for task in done] == [None]
    repeats.finish(b"a", ANSWER, is_kept=True)
    assert await asyncio.gather(*still) == [ANSWER, ANSWER]


async def test_a_call_is_wanted_while_somebody_waits() -> None:
    repeats = LocalRepeats(60.0, 10_000, Clock())
    await repeats.begin(b"a", b"body")
    await repeats.unwanted(b"a")
    waiting = [asyncio.create_task(repeats.begin(b"a", b"body")) for _ in range(2)]
    await asyncio.sleep(0)
    unwanted = asyncio.create_task(repeats.unwanted(b"a"))
    for task in waiting:
        await asyncio.sleep(0.01)
        assert not unwanted.done()
        task.cancel()

    await asyncio.wait_for(unwanted, 5)


async def test_answers_are_kept_for_a_time() -> None:
    clock = Clock()
    repeats = LocalRepeats(60.0, 10_000, clock)
    await repeats.begin(b"a", b"body")
    repeats.finish(b"a", ANSWER, is_kept=True)

    clock.now = 59.9
    assert await kept(repeats, b"a") == [b"a"]
    clock.now = 60.0
    assert await kept(repeats, b"a") == []
    assert repeats.kept_bytes == 0


async def test_the_oldest_answers_make_room() -> None:
    repeats = LocalRepeats(60.0, 5_000, Clock())
    names = [b"%d" % number for number in range(10)]
    for name in names:
        await repeats.begin(name, b"body")
        repeats.finish(name, ANSWER, is_kept=True)
        assert repeats.kept_bytes <= 5_000

    assert await kept(repeats, *names) == names[-3:]


async def test_one_answer_that_is_too_large_displaces_no_other() -> None:
    repeats = LocalRepeats(60.0, 5_000, Clock())
    for name, size in ((b"small", 10), (b"large", 5_000)):
        await repeats.begin(name, b"body")
        repeats.finish(name, Answer(200, b"x" * size), is_kept=True)

    assert await kept(repeats, b"small", b"large") == [b"small"]
