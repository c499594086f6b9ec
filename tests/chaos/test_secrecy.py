"""PROMISES K2, K5: secrets, prompts and answers are nowhere on the disk and in no log, whatever goes wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

from world import World, world

PROMPT, ANSWER = "CANARYPROMPT", "CANARYANSWER"


async def every_way(place: World) -> None:
    """Calls that end in all kinds of ways, with the canary in all that a caller writes."""
    canary = {"messages": [{"role": "user", "content": f"say {PROMPT}"}]}
    for stream in (True, False):
        assert (await place.call(stream=stream, **canary)).end == "whole"
        assert (await place.call(stream=stream, model=PROMPT, **canary)).status == 404
        assert (await place.call(stream=stream, user=PROMPT, stop=PROMPT, **canary)).end == "whole"
        assert (await place.call(stream=stream, temperature=PROMPT, **canary)).status == 400
        assert (await place.call(stream=stream, **{PROMPT: 1}, **canary)).status == 400
    await place.call(leave_after=1, **canary)
    for fault in ("reset", "garbage", "error", "end"):
        place.upstream.play(chunks=[f"{ANSWER} "] * 4, fault=fault, after_chunks=2)
        await place.call(stream=True, **canary)
        await place.call(stream=False, **canary)
    for status in (400, 401, 500):
        place.upstream.play(status=status)
        await place.call(stream=True, **canary)
    place.upstream.play()


async def test_canaries_are_nowhere(tmp_path: Path) -> None:
    script = {"chunks": [f"{ANSWER} "] * 4, "chunk_delay_s": 0.01}
    with world(tmp_path, **script) as place:
        place.configure(place.model("v", "embedding"))
        with place.service() as serve:
            member = place.member("team")
            await every_way(place)
            answer = serve.post("/v1/embeddings", {"model": "v", "input": [f"embed {PROMPT}"]})
            assert answer[0] == 200
            assert serve.get(f"/v1/models/{PROMPT}")[0] == 404
            running = [asyncio.create_task(place.call()) for _ in range(4)]
            await asyncio.sleep(0.05)
            serve.process.kill()  # what was under way is in the journal only
            await asyncio.gather(*running)
            await asyncio.to_thread(serve.process.wait)
        with place.service() as serve:
            assert serve.stop() == 0

    files = [path for path in place.data.rglob("*") if path.is_file()]
    assert any(path.parent.name == "journal" for path in files)
    written = {str(path): path.read_bytes() for path in files} | {"the log": place.said.encode()}
    for where, data in written.items():
        for canary in (PROMPT, ANSWER, member):
            assert canary.encode() not in data, where
        if where != "the log":  # which shows it once, at the first start
            assert place.secret.encode() not in data, where
    assert place.said.count(place.secret) == place.said.count("First start") + 1  # and in the line to paste
