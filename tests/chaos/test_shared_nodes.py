"""Two real services that share their limits, and workers of one that share what was answered (PROMISES L1, R6, R7)."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest
from scripted import upstream
from servers import Server, order, valkey, valkey_program
from world import World

needs_server = pytest.mark.skipif(valkey_program() is None, reason="no valkey-server, no redis-server")
LIMIT = 40


def node(folder: Path, name: str, model_server, url: str) -> World:  # type: ignore[no-untyped-def]  # an Upstream
    (folder / name).mkdir()
    place = World(
        folder / name, model_server, f'[shared]\nlimits_url = "{url}"\n[gate]\nqueue_per_owner = 1000\n'
    )
    limited = place.config.read_text().replace(
        'kind = "chat"', f'kind = "chat"\nlimits = {{ calls_per_minute = {LIMIT} }}'
    )
    place.config.write_text(limited + place.model("v", "embedding"))
    return place


@needs_server
async def test_two_services_admit_one_limit_and_go_on_without_the_server(tmp_path: Path) -> None:
    with ExitStack() as all_of_it:
        server = all_of_it.enter_context(valkey())
        model_server = all_of_it.enter_context(upstream(tmp_path / "log"))
        places = [node(tmp_path, name, model_server, server.url) for name in ("one", "other")]
        for place in places:
            all_of_it.enter_context(place.service())
        await until_each_has_heard_of_the_other(server)
        headers = {"x-scibox-patience": "0.2"}
        told = []
        for _ in range(10):  # in waves: this machine is small, and a busy one makes the server seem away
            told += await asyncio.gather(
                *(
                    p.call(stream=False, headers=headers, max_tokens=1)
                    for p in places
                    for _ in range(LIMIT // 2)
                )
            )
        # Exactly the limit is what test_shared_limits.py shows; without sharing it would be twice as much.
        assert LIMIT <= sum(call.end == "whole" for call in told) <= 1.25 * LIMIT
        assert {call.code for call in told if call.end != "whole"} == {"rate_limit_exceeded"}

        server.kill()
        for place in places:  # embeddings are not limited here, and nothing else fails
            assert place.serve.post("/v1/embeddings", {"model": "v", "input": "still there"})[0] == 200
        more = await asyncio.gather(
            *(places[0].call(stream=False, headers=headers, max_tokens=1) for _ in range(LIMIT))
        )
        assert {call.code for call in more if call.end != "whole"} == {"rate_limit_exceeded"}
        # What the others had taken is assumed to pass evenly: a few in the seconds since then.
        assert sum(call.end == "whole" for call in more) <= 0.25 * LIMIT
        places[0].serve.until(lambda: "limits hold at 1/2" in places[0].serve.said(), within_s=20)


async def until_each_has_heard_of_the_other(server: Server) -> None:
    """The reply to a beat says how many there are: both have had one since the second came."""
    prefix = "{scibox}:"
    async with asyncio.timeout(60):
        while await order(server, "ZCARD", f"{prefix}nodes") != 2:
            await asyncio.sleep(0.05)
        both_at = int(await order(server, "HGET", f"{prefix}meta", "now"))
        while float((await order(server, "ZRANGE", f"{prefix}nodes", 0, 0, "WITHSCORES"))[1]) <= both_at:
            await asyncio.sleep(0.05)


async def test_a_repeat_finds_its_answer_whichever_worker_it_reaches(tmp_path: Path) -> None:
    with upstream(tmp_path / "log", first_chunk_delay_s=0.5) as model_server:
        place = World(tmp_path, model_server, "[server]\nworkers = 2\n")
        with place.service():
            headers = {"idempotency-key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
            told = await asyncio.gather(*(place.call(stream=False, headers=headers) for _ in range(12)))
            told += await asyncio.gather(*(place.call(stream=False, headers=headers) for _ in range(12)))
            other = await place.call(stream=False, headers=headers, max_tokens=7)

    assert {call.end for call in told} == {"whole"}
    assert sum("idempotent-replayed" not in call.headers for call in told) == 1
    assert len(model_server.outcomes()) == 1
    assert (other.status, other.code) == (422, "idempotency_key_reused")
