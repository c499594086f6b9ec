"""Too many calls: shares stay fair (PROMISES L2), and a refusal says when to come again and holds it (L3)."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import httpx

from rig import CHAT, Rig, key, rig
from scibox.core import secret
from scibox.core.entries import Entry
from scibox.core.types import Ending, Key
from scibox.engines.fake_script import Script

SLOTS = 4
QUANTUM_S = 0.2  # what a call takes at the engine
OWNERS = 8


def made_secret(number: int) -> str:
    return secret.compose([20 + number] * secret.RANDOM_CHARS)


def keys() -> dict[str, Key]:
    """A key for each of the owners `owner0`, `owner1`, ..."""
    return {
        secret.digest(made_secret(number)): key(f"k{number}", owner=f"owner{number}")
        for number in range(OWNERS)
    }


@dataclass
class Crowd:
    """Clients of all owners, over connections of their own."""

    client: httpx.AsyncClient

    async def ask(self, owner: int, **headers: str) -> httpx.Response:
        own = {"authorization": f"Bearer {made_secret(owner)}", **headers}
        return await self.client.post("/v1/chat/completions", json=CHAT, headers=own)

    async def keep_asking(self, owner: int, over: asyncio.Event, pause_s: float = 0.0) -> None:
        luck = random.Random(owner)
        while not over.is_set():
            answer = await self.ask(owner)
            assert answer.status_code == 200, answer.text
            await asyncio.sleep(pause_s * luck.uniform(0.5, 1.5))


def crowd(r: Rig) -> Crowd:
    none = httpx.Limits(max_connections=None)
    return Crowd(httpx.AsyncClient(base_url=f"http://127.0.0.1:{r.port}", timeout=120, limits=none))


def turns_before(entry: Entry, entries: list[Entry]) -> float:
    """How long it waited, in calls of others that started meanwhile at each slot: a slow machine has slow turns."""
    starts = (other.opened_at + other.queued_s for other in entries if other is not entry)
    return sum(entry.opened_at < start < entry.opened_at + entry.queued_s for start in starts) / SLOTS


def jain(shares: list[float]) -> float:
    """1.0 where all are equal (Jain, Chiu, Hawe 1984)."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


async def test_who_floods_gets_no_more_and_who_asks_seldom_hardly_waits() -> None:
    async with rig(keys=keys(), slots=SLOTS, patience_s=600.0) as r:
        luck = random.Random(1)  # calls that all take the same time would end, and come, in step
        times = (luck.uniform(0.5, 1.5) * QUANTUM_S for _ in range(1_000))
        r.engine.next_scripts.extend(Script(first_chunk_delay_s=time_s) for time_s in times)
        all_of = crowd(r)
        over = asyncio.Event()
        crowds = (64, 16, 4)

        async def ask_seldom(owner: int) -> None:
            await asyncio.sleep(0.13 * owner)
            await all_of.keep_asking(owner, over, pause_s=4 * QUANTUM_S)

        async with all_of.client:
            flood = [all_of.keep_asking(owner, over) for owner in (0, 1, 2) for _ in range(crowds[owner])]
            asking = [asyncio.create_task(one) for one in flood]
            while r.gate.in_flight < sum(crowds):
                await asyncio.sleep(0.01)
            full_at = time.time()
            asking += [asyncio.create_task(ask_seldom(owner)) for owner in range(3, OWNERS)]
            await asyncio.sleep(5.0)
            over_at = time.time()
            over.set()
            await asyncio.gather(*asking)
        entries = list(r.entries)

    served = dict.fromkeys(("owner0", "owner1", "owner2"), 0.0)
    seldom: list[Entry] = []
    ran_s = []
    for entry in entries:
        starts_at = entry.opened_at + entry.queued_s
        runs_s = entry.total_s - entry.queued_s
        ran_s.append(runs_s)
        if entry.owner in served:
            if full_at < starts_at < over_at:  # while all three have calls that wait
                served[entry.owner] += 1
        else:
            seldom.append(entry)
    used_s = max(e.opened_at + e.total_s for e in entries) - min(e.opened_at for e in entries)

    assert {entry.outcome for entry in entries} == {Ending.FINISHED}
    assert jain(list(served.values())) >= 0.95, served
    turns = sorted(turns_before(entry, entries) for entry in seldom)
    assert turns[int(len(turns) * 0.95)] <= 2.0, turns  # in turn with the flood it would be 20
    assert sum(ran_s) / (SLOTS * used_s) >= 0.85  # slots do not idle; what is left is the last calls' tail


async def test_a_refusal_is_quick_and_who_comes_again_as_told_is_served() -> None:
    async with rig(keys=keys(), slots=SLOTS) as r:
        r.engine.script = Script(first_chunk_delay_s=0.3)
        all_of = crowd(r)
        told: list[int] = []
        served = 0
        everyone = asyncio.Event()

        async def come(owner: int) -> int:
            """The status in the end, of one that comes again once."""
            nonlocal served
            answer = await all_of.ask(owner, **{"x-scibox-patience": "4.5"})
            if answer.status_code == 429:
                told.append(seconds := int(answer.headers["retry-after"]))
                await asyncio.sleep(seconds)
                await everyone.wait()  # where reading them all takes long the last would be in its place
                answer = await all_of.ask(owner, **{"x-scibox-patience": "4.5"})
            else:
                served += 1
            return answer.status_code

        async with all_of.client:
            await asyncio.gather(*(all_of.ask(owner) for owner in range(OWNERS)))  # how long a call takes
            coming = [asyncio.create_task(come(owner)) for owner in range(OWNERS) for _ in range(13)]
            while len(told) + served + r.gate.in_flight < len(coming):
                await asyncio.sleep(0.01)
            everyone.set()
            statuses = await asyncio.gather(*coming)
        refused_s = [entry.total_s for entry in r.entries if entry.outcome is Ending.REFUSED]

    assert len(told) > 30  # of 104, about 60 could start within their patience
    # At once, but for those whose turn was to come in time and did not.
    assert sum(seconds < 1.0 for seconds in refused_s) >= 0.7 * len(told), sorted(refused_s)
    assert all(1 <= seconds <= 60 for seconds in told)
    assert len(set(told)) > 3  # they are not all told the same
    assert statuses.count(200) >= 0.99 * len(statuses), statuses.count(200)
