"""A changed configuration is taken over again and again under load, and no call notices (two worker processes)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from world import IS_LONG, Load, tell, world

RELOADS = 50 if IS_LONG else 2
TWO = "[server]\nworkers = 2\n"


@pytest.mark.slow
@pytest.mark.timeout(1800 if IS_LONG else 300)
async def test_no_call_is_dropped(tmp_path: Path) -> None:
    with world(tmp_path, TWO, chunks=["word "] * 20, chunk_delay_s=0.02) as place:
        with place.service() as serve:
            async with Load(place, 16) as load:
                for number in range(RELOADS):
                    alias = f'kind = "chat"\naliases = ["alias{number}"]'
                    place.configure(TWO)
                    place.config.write_text(place.config.read_text().replace('kind = "chat"', alias))
                    status, changed = await asyncio.to_thread(serve.post, "/admin/v1/reload", {})
                    assert (status, changed["models_changed"]) == (200, ["m"])
                    assert (await place.call(model=f"alias{number}")).end == "whole"
            assert serve.stop() == 0
        entries = place.entries()

    tell(f"{len(load.told)} calls during {RELOADS} reloads")
    assert {(one.end, one.words) for one in load.told} == {("whole", 20)}
    assert {one.request_id for one in load.told} <= entries.keys()
