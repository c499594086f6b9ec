"""`scibox usage`: what it prints of the ledger, with a service and without one, and what it refuses."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import time
from pathlib import Path

import pytest
from ledger_entries import entry

from scibox import cli
from scibox.core.types import Ending, Usage
from scibox.ledger.journal import Journal

NOW = time.time()


class Command:
    """Runs `scibox usage` on one data folder."""

    def __init__(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data = data
        self._capsys = capsys

    def __call__(self, *arguments: str, status: int = 0) -> str:
        assert cli.main(["usage", *arguments, "--data", str(self.data)]) == status
        self.err = ""
        said = self._capsys.readouterr()
        self.err = said.err
        return said.out

    def rows(self, *arguments: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self(*arguments, "--format", "csv"))))


@pytest.fixture
def usage(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    for name in [name for name in os.environ if name.startswith("SCIBOX_")]:
        monkeypatch.delenv(name)
    return Command(data, capsys)


@pytest.fixture
def journal(data: Path) -> Journal:
    """Of a process that has made six calls a minute ago and one two years ago."""
    made = Journal(data / "journal", lambda event: None)
    for number in range(6):
        made.ended(entry(number, opened_at=NOW - 60.0 + number, usage=Usage(10, 2)))
    made.ended(
        entry(9, opened_at=NOW - 2 * 366 * 86_400.0, outcome=Ending.UPSTREAM_ERROR, code="upstream_error")
    )
    return made


RANGE = ("--since", "2h")


@pytest.mark.parametrize("runs", [True, False])
def test_all_formats_say_the_same(usage: Command, journal: Journal, runs: bool) -> None:
    if not runs:
        journal.close()
    table = usage(*RANGE)
    rows = usage.rows(*RANGE)
    told = json.loads(usage(*RANGE, "--format", "json"))["rows"]
    if runs:
        journal.close()

    assert [(row["owner"], row["model"], int(row["calls"])) for row in rows] == [
        ("team-0", "m0", 1),
        ("team-0", "m1", 1),
        ("team-1", "m0", 1),
        ("team-1", "m1", 1),
        ("team-2", "m0", 1),
        ("team-2", "m1", 1),
    ]
    assert [{name: str(value) for name, value in row.items()} for row in told] == rows
    lines = [line.split() for line in table.splitlines()]
    assert lines[0][:4] == ["OWNER", "MODEL", "CALLS", "PROMPT_TOKENS"]
    assert lines[1][:4] == ["team-0", "m0", "1", "10"]
    assert lines[-1][:3] == ["all", "6", "60"]


def test_groups_ranges_and_filters(usage: Command, journal: Journal) -> None:
    journal.close()

    def calls(*arguments: str) -> list[int]:
        return [int(row["calls"]) for row in usage.rows(*arguments)]

    assert calls(*RANGE, "--by", "owner") == [2, 2, 2]
    assert calls(*RANGE, "--by", "") == [6]
    assert calls(*RANGE, "--by", "outcome", "--owner", "team-1", "--model", "m0") == [1]
    assert calls("--since", "2000-01-01", "--by", "outcome") == [6, 1]
    assert calls("--since", "2000-01-01", "--until", "700d", "--by", "key") == [1]
    assert calls("--since", "2000-01-01", "--until", "2000-01-02T00:00+03:00") == []
    days = [row["day"] for row in usage.rows("--since", "2000-01-01", "--by", "day")]
    assert days[0] < days[-1] <= time.strftime("%Y-%m-%d", time.gmtime(NOW))


def test_an_owner_is_found_however_its_name_was_typed(usage: Command, data: Path) -> None:
    with contextlib.closing(Journal(data / "journal", lambda event: None)) as journal:
        journal.ended(entry(1, opened_at=NOW - 60.0, owner="caf\u00e9"))

    assert [row["calls"] for row in usage.rows(*RANGE, "--owner", "cafe\u0301")] == ["1"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--by", "owner,secret"),
        ("--since", "yesterday"),
        ("--since", "2026-11-02", "--until", "2026-11-01"),
        ("--since", "2999-01-01"),
        ("--until", "999999999999999999999d"),
    ],
)
def test_what_is_wrong_is_told(usage: Command, arguments: tuple[str, ...]) -> None:
    assert usage(*arguments, status=1) == ""
    assert arguments[0] in usage.err or "--until" in usage.err


def test_a_format_is_one_of_the_commands_own(usage: Command) -> None:
    usage("--format", "jsonl", status=2)
    usage("export", "--format", "table", status=2)


def test_an_export_has_every_entry_with_all_its_fields_and_no_text(usage: Command, journal: Journal) -> None:
    journal.close()
    rows = usage.rows("export", "--since", "2000-01-01")
    lines = [
        json.loads(line)
        for line in usage("export", "--since", "2000-01-01", "--format", "jsonl").splitlines()
    ]

    assert [row["request_id"] for row in rows] == [entry(n).request_id for n in (9, 0, 1, 2, 3, 4, 5)]
    assert [line["request_id"] for line in lines] == [row["request_id"] for row in rows]
    assert list(lines[0]) == list(rows[0])
    assert (rows[0]["outcome"], rows[0]["code"]) == ("upstream_error", "upstream_error")
    assert (rows[1]["prompt_tokens"], lines[1]["prompt_tokens"]) == ("10", 10)
    assert rows[1]["opened_at"].endswith("Z")
    assert lines[1]["stream"] is False


def test_without_any_call_there_is_a_head_and_nothing_else(usage: Command) -> None:
    assert usage.rows() == []
    assert usage("export").startswith("request_id,")
    assert usage("export", "--format", "jsonl") == ""


def test_a_name_that_nothing_was_called_by_is_doubted(usage: Command) -> None:
    usage("--owner", "nobody")
    doubted = usage.err
    usage()

    assert "is that name right?" in doubted
    assert "right?" not in usage.err


def test_a_database_that_cannot_be_read_is_said_in_a_sentence(usage: Command) -> None:
    usage.data.mkdir()
    (usage.data / "ledger.db").write_bytes(b"no database at all, but long enough to be looked at" * 100)
    usage(status=1)

    assert usage.err.startswith("scibox: The ledger's database cannot be read now (")
