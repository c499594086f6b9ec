"""Reading segments while their process writes."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ledger_entries import entry

from scibox.ledger import frames, segments
from scibox.ledger.journal import Journal


def test_a_write_seen_too_early_is_no_damage(tmp_path: Path) -> None:
    """A reader may see the pages of a later record before those of the one before it."""
    first, second, third = (frames.frame(entry(number)) for number in range(3))
    early = first + bytes(len(second)) + third
    later = first + second + third + frames.frame(entry(3))
    looks = [early, later]

    def look(descriptor: int, size: int, offset: int) -> bytes:
        return looks.pop(0)[offset : offset + size]

    stretch = segments.read(0, 0, is_growing=True, look=look)

    assert [record for _, record in stretch.records] == [entry(0), entry(1), entry(2)]
    assert (stretch.end, stretch.lost_bytes) == (len(first + second + third), 0)


@pytest.mark.parametrize("is_growing", [True, False])
def test_a_segment_larger_than_one_look_is_read_whole_over_damage_larger_than_a_look(
    tmp_path: Path, is_growing: bool
) -> None:
    path = tmp_path / "p-000001.log"
    some = b"".join(frames.frame(entry(number)) for number in range(900))
    path.write_bytes(some + os.urandom(segments.LOOK_BYTES + 1000) + frames.frame(entry(900)) + bytes(5000))
    found, lost, at = [], 0, 0
    with path.open("rb") as stream:
        while (stretch := segments.read(stream.fileno(), at, is_growing=is_growing)).end > at:
            found += [record for _, record in stretch.records]
            lost += stretch.lost_bytes
            at = stretch.end

    assert found == [entry(number) for number in range(901)]
    assert lost == segments.LOOK_BYTES + 1000
    assert len(some) > segments.LOOK_BYTES


def test_a_process_is_alive_until_it_has_closed_its_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda event: None)
    assert segments.processes(tmp_path) == {journal.process}
    assert segments.is_alive(tmp_path, journal.process)
    journal.close()
    assert not segments.is_alive(tmp_path, journal.process)


def test_a_data_folder_has_one_name_for_ever(tmp_path: Path) -> None:
    name = segments.node_id(tmp_path)
    assert name.startswith("node_")
    assert segments.node_id(tmp_path) == name
    assert segments.node_id(tmp_path / "other") != name


def test_of_a_process_killed_while_it_named_the_folder_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "node.early").write_text("node_half of a na")
    name = segments.node_id(tmp_path)

    assert len(name) == len("node_") + 16
    assert [path.name for path in tmp_path.iterdir()] == ["node"]


def test_all_that_name_the_folder_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        for attempt in range(20):
            folder = tmp_path / str(attempt)
            together = threading.Barrier(16)

            def ask(folder: Path = folder, together: threading.Barrier = together) -> str:
                together.wait(60)
                return segments.node_id(folder)

            names = {name.result(60) for name in [threads.submit(ask) for _ in range(16)]}
            assert len(names) == 1
            assert [path.name for path in folder.iterdir()] == ["node"]
