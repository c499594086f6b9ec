"""Input files in stretches; results that survive a crash at any byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scibox.store.lines import Results, read
from scibox.wire.stored.batches import custom_id

in_place = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def all_of(path: Path, limit: int) -> list[tuple[int, bytes]]:
    found, offset, number = [], 0, 1
    while True:
        stretch = read(path, limit, offset, number)
        if not stretch.lines:
            return found
        found += stretch.lines
        offset, number = stretch.offset, stretch.number


@in_place
@given(st.lists(st.text("ab \t", max_size=12)), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_every_line_that_is_not_blank_comes_with_its_number(
    tmp_path: Path, lines: list[str], end: bytes, has_last_end: bool
) -> None:
    path = tmp_path / "in"
    path.write_bytes(end.join(line.encode() for line in lines) + (end if has_last_end else b""))

    expected = [(n, line.encode()) for n, line in enumerate(lines, 1) if line.strip()]
    assert all_of(path, 8) == [(n, line[:10]) for n, line in expected]


def test_large_files_come_in_several_stretches(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"\n" * 3_000_000 + b"".join(b"%060d\n" % n for n in range(50_000)))

    assert len(read(path, 100).lines) < 50_000
    assert [int(line) for _, line in all_of(path, 100)] == list(range(50_000))


def result(name: str) -> bytes:
    return json.dumps({"custom_id": name}).encode() + b"\n"


def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "out", tmp_path / "err")


@in_place
@given(st.data())
def test_after_a_crash_at_any_byte_whole_lines_are_there_and_the_rest_may_come_again(
    tmp_path: Path, data: st.DataObject
) -> None:
    (tmp_path / "out").write_bytes(b"")
    names = [f"name-{n}" for n in range(4)]
    first = results(tmp_path)
    first.load(custom_id)
    for name in names:
        first.append(result(name), b"")
    whole = (tmp_path / "out").read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    (tmp_path / "out").write_bytes(whole[:cut] + data.draw(st.sampled_from([b"", b"\0\0\0", b"\0\n"])))

    second = results(tmp_path)
    done, _ = second.load(custom_id)
    for name in names:
        if name not in done:
            second.append(result(name), b"")
    sizes = second.close()

    assert done == set(names[: whole[:cut].count(b"\n")])
    assert (tmp_path / "out").read_bytes() == whole
    assert sizes == (len(whole), 0)


def test_what_could_not_be_written_counts_for_nothing_and_may_come_again(tmp_path: Path) -> None:
    mine = results(tmp_path)
    mine.load(custom_id)
    (tmp_path / "err").mkdir()
    with pytest.raises(OSError, match="directory"):
        mine.append(result("a"), result("b"))
    assert mine.size_bytes == 0
    (tmp_path / "err").rmdir()
    mine.append(result("a"), result("b"))

    assert (tmp_path / "out").read_bytes() == result("a")
    assert (tmp_path / "err").read_bytes() == result("b")


def test_empty_results_leave_no_files(tmp_path: Path) -> None:
    mine = results(tmp_path)
    mine.load(custom_id)
    mine.append(b"", result("b"))

    assert mine.close() == (0, len(result("b")))
    assert [path.name for path in tmp_path.iterdir()] == ["err"]
