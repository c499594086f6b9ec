"""PROMISES R7: the clock steps by a day: no limit is opened or stuck, and quotas are those of the UTC day."""

from __future__ import annotations

import asyncio
import time

import httpx

from rig import CHAT, SECRET, rig
from scibox.core.quotas import span
from scibox.core.types import Ending, Limits
from scibox.engines.fake_script import Script

DAY_S = 86_400.0


class Clock:
    """Unix time, with steps. It stands at noon, so that no midnight passes while a test runs."""

    def __init__(self) -> None:
        self.step_s = 0.0
        self._noon = span("day", time.time())[0] + DAY_S / 2 - time.monotonic()

    def __call__(self) -> float:
        return self._noon + time.monotonic() + self.step_s


async def ask(client: httpx.AsyncClient, patience: str = "0.2") -> tuple[int, str]:
    answer = await client.post("/v1/chat/completions", json=CHAT, headers={"x-scibox-patience": patience})
    return answer.status_code, "" if answer.status_code == 200 else answer.json()["error"]["code"]


async def test_rates_and_slots_know_nothing_of_it() -> None:
    clock = Clock()
    limits = Limits(calls_per_minute=4, calls_in_flight=2)
    async with rig(now=clock, model_limits=limits) as r:
        r.engine.script = Script(chunks=("word ",) * 20, chunk_delay_s=0.03)
        running = [asyncio.create_task(ask(r.client, "5")) for _ in range(2)]
        while len(r.engine.requests) < 2:
            await asyncio.sleep(0.01)
        told = []
        for step_s in (DAY_S, -DAY_S, 0.0):
            clock.step_s = step_s
            told.append(await ask(r.client, "0"))  # both slots are taken
        assert not any(task.done() for task in running)
        clock.step_s = -DAY_S
        told += await asyncio.gather(*running)
        told += [await ask(r.client), await ask(r.client)]
        for step_s in (DAY_S, -DAY_S, 0.0):
            clock.step_s = step_s
            told.append(await ask(r.client))
        await r.until_idle()
        entries = [entry for entry in r.entries if entry.outcome is Ending.FINISHED]

    busy, ok, limited = (429, "rate_limit_exceeded"), (200, ""), (429, "rate_limit_exceeded")
    assert told == [busy] * 3 + [ok] * 4 + [limited] * 3
    assert len(entries) == 4
    assert all(0 < entry.total_s < 60 and 0 <= entry.queued_s < 60 for entry in entries)


async def test_a_quota_is_of_the_day_that_the_clock_shows() -> None:
    clock = Clock()
    async with rig(now=clock, owner_limits=Limits(tokens_per_day=30)) as r:

        async def use_up() -> int:
            calls = 0
            while (told := await ask(r.client)) == (200, ""):
                calls += 1
            assert told == (429, "insufficient_quota")
            return calls

        today = await use_up()
        told = {}
        for step_s in (-DAY_S, 0.0, DAY_S / 4):  # a day back, put right, an evening
            clock.step_s = step_s
            told[step_s] = await ask(r.client)
        clock.step_s = DAY_S
        tomorrow = await use_up()
        clock.step_s = 0.0
        back = await ask(r.client)
        clock.step_s = DAY_S
        again = await ask(r.client)
        await r.until_idle()
        day = {"authorization": f"Bearer {SECRET}"}
        page = (await r.client.get(f"/v1/usage?start_time={int(clock() - 5 * DAY_S)}", headers=day)).json()

    assert 1 <= today == tomorrow
    assert set(told.values()) == {(429, "insufficient_quota")}
    assert back == again == (429, "insufficient_quota")
    answered = [sum(result["output_tokens"] > 0 for result in bucket["results"]) for bucket in page["data"]]
    assert answered[-2:] == [1, 1]  # and the usage of both days is in both days
