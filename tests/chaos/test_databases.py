"""PROMISES R3: the databases may be away, at the start too: who is known is served, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from servers import Server, folder, free_port, has_postgres, new_database, postgres
from world import IS_LONG, Load, Told, World, tell, world

from live import scibox
from scibox.core import secret

SPELL_S = 60.0 if IS_LONG else 2.5  # how long each trouble lasts
CLIENTS = 8
HEALED_S = 30.0  # ten seconds are promised: a busy machine has three times as much
ROOM_BYTES = 16 * 1024  # of a full disk: the log still has its lines, neither database a page more
UNKNOWN = secret.compose([21] * secret.RANDOM_CHARS)
SCRIPT = {"chunks": ["word "] * 4, "chunk_delay_s": 0.01}

Trouble = Callable[[World], AbstractContextManager[None]]


@contextmanager
def both(one: AbstractContextManager[None], other: AbstractContextManager[None]) -> Iterator[None]:
    with one, other:
        yield


# What an unknown key gets: SQLite's readers do not mind a writer, so what can be read is certain.
SQLITE: dict[str, tuple[Trouble, int]] = {
    "locked": (lambda place: both(place.locked("keys.db"), place.locked("ledger.db")), 401),
    "unreadable": (lambda place: both(place.without("keys.db"), place.without("ledger.db")), 503),
    "full": (lambda place: place.full(ROOM_BYTES), 401),
}


async def spell(place: World, trouble: AbstractContextManager[None], unknown: int) -> list[Told]:
    """Load before, during and after a trouble; what an unknown key gets in it; what its clients were told."""
    async with Load(place, CLIENTS, secret=place.member_secret) as load:
        await asyncio.sleep(0.3)
        with trouble:
            await asyncio.sleep(SPELL_S / 2)
            stranger = await place.call(secret=UNKNOWN)
            await asyncio.sleep(SPELL_S / 2)
            marked = await place.call(stream=False)
            _, status = await asyncio.to_thread(place.serve.get, "/admin/v1/status")
            is_felt = status["broken"] or not place.is_recorded(marked.request_id)
        healed_s = await healed(place, marked)
    tell(f"after {SPELL_S:.0f} s, {len(load.told)} calls: healed in {healed_s:.1f} s")

    assert is_felt
    assert marked.end == "whole"
    assert stranger.status == unknown
    return [*load.told, marked]


async def healed(place: World, marked: Told) -> float:
    """How long it takes until a new key works and a call of the bad time is in the ledger's database."""
    began = time.monotonic()
    made = await asyncio.to_thread(scibox, place.data, "keys", "create", "new", "--config", str(place.config))
    assert made.returncode == 0, made.stderr
    await until(lambda: place.serve.get("/v1/key", made.stdout.strip())[0] == 200)
    await until(lambda: place.is_recorded(marked.request_id))
    return time.monotonic() - began


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(HEALED_S):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.05)


def check(place: World, told: list[Told]) -> None:
    """After the end of the service: every call was answered, and is in the ledger once with what it used."""
    entries = place.entries()
    assert {(one.status, one.end) for one in told} == {(200, "whole")}
    assert {one.request_id for one in told} <= entries.keys()
    for outcome in place.upstream.outcomes():
        usage = entries[outcome.request_id].usage
        assert (usage.prompt_tokens, usage.completion_tokens) == (
            outcome.prompt_tokens,
            outcome.completion_tokens,
        )


@pytest.mark.slow
@pytest.mark.timeout(1200 if IS_LONG else 300)
@pytest.mark.parametrize("trouble", SQLITE)
async def test_sqlite_files_in_trouble(tmp_path: Path, trouble: str) -> None:
    with world(tmp_path, **SCRIPT) as place:
        with place.service() as serve:
            place.member("team")
            break_it, unknown = SQLITE[trouble]
            told = await spell(place, break_it(place), unknown)
            assert serve.stop() == 0
        check(place, told)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_sqlite_files_are_away_at_the_start(tmp_path: Path) -> None:
    with world(tmp_path, **SCRIPT) as place:
        with place.service() as serve:
            place.member("team")
            assert serve.stop() == 0
        with ExitStack() as away:
            away.enter_context(both(place.without("keys.db"), place.without("ledger.db")))
            with place.service() as serve:
                told = await spell(place, away, 503)
                assert serve.stop() == 0
        check(place, told)


class Database:
    """A PostgreSQL with data that outlives it, to be stopped and started again."""

    def __init__(self, keep: Path) -> None:
        self._keep = keep
        self._port = free_port()
        self._running = ExitStack()
        self._server: Server
        self.start()
        self.url = new_database(self._server.url)

    def start(self) -> None:
        self._server = self._running.enter_context(postgres(self._keep, self._port))

    def stop(self) -> None:
        self._running.close()

    @contextmanager
    def away(self) -> Iterator[None]:
        self.stop()
        yield
        self.start()

    @contextmanager
    def hangs(self) -> Iterator[None]:
        self._server.pause()
        yield
        self._server.go_on()


@pytest.fixture
def database() -> Iterator[Database]:
    with folder("keep") as keep:
        one = Database(keep)
        with contextlib.closing(one._running):
            yield one


@pytest.mark.slow
@pytest.mark.timeout(1200 if IS_LONG else 300)
@pytest.mark.skipif(not has_postgres(), reason="no PostgreSQL here: see ./check")
async def test_postgresql_stops_hangs_and_is_away_at_the_start(tmp_path: Path, database: Database) -> None:
    with world(tmp_path, f'[shared]\ndatabase_url = "{database.url}"\n', **SCRIPT) as place:
        place.ledger_url = database.url
        with place.service() as serve:
            place.member("team", "--config", str(place.config))
            told = await spell(place, database.away(), 503)
            told += await spell(place, database.hangs(), 503)
            assert serve.stop() == 0
        with ExitStack() as away:
            away.enter_context(database.away())
            with place.service() as serve:
                told += await spell(place, away, 503)
                assert serve.stop() == 0
        check(place, told)
