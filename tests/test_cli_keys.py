"""`scibox keys` and `scibox owners`: what they do, print and refuse."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from scibox import cli

SECRET = re.compile(r"sk-scibox-[0-9A-Za-z]{36}")
TABLE = "owner,name,days,models,limits,weight,role,note\n" + "".join(
    f"team-{i % 40},student {i},90,smollm2-135m-instruct,calls_per_minute=60,1.5,member,room {i % 40}\n"
    for i in range(200)
)


@dataclass
class Ran:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        told: dict[str, object] = json.loads(self.out)
        return told


class Command:
    """Runs commands on one data folder."""

    def __init__(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._data = data
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ran:
        try:
            status = cli.main([*arguments, "--data", str(self._data)])
        except SystemExit as end:  # argparse's
            status = int(end.code or 0)
        said = self._capsys.readouterr()
        return Ran(status, said.out, said.err)

    def made(self, *arguments: str) -> tuple[str, str]:
        """A new key's id and secret."""
        told = self("keys", "create", *arguments, "--json").json
        return str(told["id"]), str(told["secret"])


@pytest.fixture
def scibox(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    for name in [name for name in os.environ if name.startswith("SCIBOX_")]:
        monkeypatch.delenv(name)
    return Command(data, capsys)


def test_a_key_is_made_shown_changed_and_revoked(scibox: Command) -> None:
    made = scibox(
        "keys", "create", "laptop", "--owner", "physics", "--days", "30", "--calls-per-minute", "60"
    )
    key_id = made.err.split()[0]
    changed = scibox(
        *("keys", "set", key_id, "--name", "desk", "--days", "never", "--model", "multilingual-e5-small"),
        *("--calls-per-minute", "none", "--tokens-per-day", "100_000", "--json"),
    ).json
    shown = scibox("keys", "show", key_id)
    revoked = scibox("keys", "revoke", key_id)
    listed = scibox("keys", "list", "--state", "revoked")

    assert SECRET.fullmatch(made.out.strip())
    assert (changed["name"], changed["expires_at"]) == ("desk", None)
    assert changed["models"] == ["multilingual-e5-small"]
    assert "tokens_per_day=100000" in shown.out
    assert "calls_per_minute" not in shown.out
    assert revoked.out == f"{key_id} of physics is revoked.\n"
    assert key_id in listed.out
    assert not SECRET.search(shown.out + listed.out)


def test_keys_are_listed_by_owner_and_state_and_for_scripts(scibox: Command) -> None:
    one, _ = scibox.made("a", "--owner", "x")
    scibox.made("b", "--owner", "y")
    scibox("keys", "disable", one)

    disabled = scibox("keys", "list", "--owner", "x", "--state", "disabled", "--json").json
    enabled = scibox("keys", "enable", "--owner", "x")
    nothing = scibox("keys", "list", "--owner", "nobody")

    assert [key["id"] for key in disabled["data"]] == [one]  # type: ignore[attr-defined]
    assert enabled.out == f"{one} of x is enabled.\n"
    assert (nothing.status, nothing.out) == (0, "")


def test_a_rotated_key_has_a_new_secret_and_an_overlap(scibox: Command) -> None:
    key_id, secret = scibox.made("a")

    rotated = scibox("keys", "rotate", key_id, "--overlap", "24h", "--json")
    at_once = scibox("keys", "rotate", key_id)
    wrong = scibox("keys", "rotate", key_id, "--overlap", "soon")

    told = rotated.json
    assert told["id"] == key_id
    assert told["secret"] != secret
    assert int(str(told["old_secret_until"])) - int(str(told["created_at"])) in range(86_390, 86_500)
    assert "no longer" in at_once.err
    assert (wrong.status, "24h" in wrong.err) == (2, True)


def test_two_hundred_keys_from_a_table_and_back(scibox: Command, tmp_path: Path) -> None:
    table, out = tmp_path / "teams.csv", tmp_path / "keys.csv"
    table.write_text(TABLE)

    made = scibox("keys", "create", "--from", str(table), "--out", str(out))
    again = scibox("keys", "create", "--from", str(table), "--out", str(tmp_path / "more.csv"))
    owner = scibox("owners", "show", "team-7", "--json").json
    listed = scibox("keys", "list", "--json").json["data"]

    assert (made.status, made.out) == (0, "")
    assert "200 keys made" in made.err
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["name"] for row in rows] == [f"student {i}" for i in range(200)]
    assert all(SECRET.fullmatch(row["secret"]) for row in rows)
    assert {row["base_url"] for row in rows} == {"http://127.0.0.1:4000/v1"}
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert sorted(row["key_id"] for row in rows) == sorted(key["id"] for key in listed)  # type: ignore[attr-defined]
    assert "0 keys made; 200 were there already" in again.err
    assert not (tmp_path / "more.csv").exists()
    assert (owner["weight"], owner["keys"], owner["note"]) == (1.5, 5, "room 7")


def test_an_excel_table_comes_back_as_one(scibox: Command, tmp_path: Path) -> None:
    table, out = tmp_path / "teams.csv", tmp_path / "keys.csv"
    table.write_bytes("Владелец;Дней;Вес\r\nфизфак;90;1,5\r\n;;\r\n".encode("cp1251"))

    scibox("keys", "create", "--from", str(table), "--out", str(out), "--base-url", "https://llm.example/v1")

    assert out.read_bytes().startswith(b"\xef\xbb\xbfowner;name;key_id;secret;base_url\r\n")
    assert "физфак;физфак;key_" in out.read_text("utf-8-sig")
    assert "https://llm.example/v1" in out.read_text("utf-8-sig")


def test_a_wrong_table_makes_nothing_and_names_the_lines(scibox: Command, tmp_path: Path) -> None:
    table, out = tmp_path / "teams.csv", tmp_path / "keys.csv"
    table.write_text("owner,days,models\na,90,\nb,soon,\nc,,smollm\nd,-1,\n")

    wrong = scibox("keys", "create", "--from", str(table), "--out", str(out))
    unknown = scibox("keys", "create", "--from", str(tmp_path / "none.csv"))

    assert wrong.status == 1
    assert re.findall(r"line \d", wrong.err) == ["line 3", "line 5"]
    assert not out.exists()
    assert scibox("keys", "list").out == ""
    assert (unknown.status, "cannot be read" in unknown.err) == (1, True)


def test_secrets_that_cannot_be_written_open_nothing(scibox: Command, tmp_path: Path) -> None:
    table, there = tmp_path / "teams.csv", tmp_path / "keys.csv"
    table.write_text("owner\na\n")
    there.write_text("precious")

    over = scibox("keys", "create", "--from", str(table), "--out", str(there))
    nowhere = scibox("keys", "create", "--from", str(table), "--out", str(tmp_path / "no" / "keys.csv"))

    assert (over.status, nowhere.status) == (1, 1)
    assert "is there already" in over.err
    assert "cannot be written" in nowhere.err
    assert there.read_text() == "precious"
    assert scibox("keys", "list").out == ""


def test_a_table_without_out_is_shown_here(scibox: Command, tmp_path: Path) -> None:
    table = tmp_path / "teams.csv"
    table.write_text("owner\na\nb\n")

    shown = scibox("keys", "create", "--from", str(table))

    assert len(SECRET.findall(shown.out)) == 2


def test_an_owner_is_set_shown_listed_and_removed(scibox: Command) -> None:
    made = scibox("owners", "set", "physics", "--weight", "2", "--tokens-per-day", "5", "--note", "room 5")
    changed = scibox("owners", "set", "physics", "--tokens-per-day", "none", "--json").json
    scibox.made("a", "--owner", "physics")
    listed = scibox("owners", "list")
    held = scibox("owners", "remove", "physics")
    scibox("keys", "revoke", "--owner", "physics")
    removed = scibox("owners", "remove", "physics")
    gone = scibox("owners", "show", "physics")

    assert "tokens_per_day=5" in made.out
    assert (changed["weight"], changed["note"]) == (2.0, "room 5")
    assert not any(dict(changed["limits"]).values())  # type: ignore[call-overload]
    assert re.search(r"^physics +2 +1 ", listed.out, re.MULTILINE)
    assert (held.status, "not revoked" in held.err) == (1, True)
    assert removed.status == 0
    assert (gone.status, "There is no owner" in gone.err) == (1, True)


def test_an_owner_may_be_made_without_anything_to_change_and_then_not_be_changed_so(scibox: Command) -> None:
    made = scibox("owners", "set", "new")
    again = scibox("owners", "set", "new")
    nan = scibox("owners", "set", "new", "--weight", "nan")

    assert (made.status, again.status, nan.status) == (0, 1, 2)
    assert "at least one field" in again.err
    assert "'nan' is no number" in nan.err


def test_an_owner_is_the_same_however_its_letters_are_composed(scibox: Command) -> None:
    composed, apart = "Андре\u0439", "Андре\u0438\u0306"
    made = scibox("owners", "set", apart, "--weight", "2")
    changed = scibox("owners", "set", composed, "--weight", "3")
    scibox("keys", "create", "laptop", "--owner", apart)
    listed = scibox("owners", "list")
    keys = scibox("keys", "list", "--owner", apart)

    assert (made.status, changed.status) == (0, 0)
    assert listed.out.count(composed) == 1
    assert apart not in listed.out
    assert composed in keys.out
    assert scibox("owners", "show", apart).out.startswith(f"owner   {composed}")


def test_the_last_operator_stays_unless_forced(scibox: Command) -> None:
    key_id, _ = scibox.made("root", "--operator")

    kept = [
        scibox("keys", "revoke", key_id),
        scibox("keys", "disable", key_id),
        scibox("keys", "set", key_id, "--role", "member"),
    ]
    forced = scibox("keys", "revoke", key_id, "--force")

    assert [ran.status for ran in kept] == [1, 1, 1]
    assert all("No operator's key" in ran.err for ran in kept)
    assert forced.status == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create"], "name of a key"),
        (["create", "a", "--from", "b.csv"], "not both"),
        (["create", "a", "--days", "0"], "days"),
        (["create", "a", "--model", "smollm2"], "Did you mean 'smollm2-135m-instruct'?"),
        (["create", "a", "--calls-per-minute", "many"], "no whole number"),
        (["create", "a", "--calls-per-minute", "0"], "above 0"),
        (["create", "a", "--calls-per-minute", "-5"], "no whole number above 0"),
        (["create", "a", "--days", "inf"], "is no number"),
        (["set", "key_none", "--days", "nan"], "--days takes"),
        (["create", "=a"], "begin with none of"),
        (["show", "key_none"], "There is no key 'key_none'"),
        (["set", "key_none", "--name", "x"], "There is no key 'key_none'"),
        (["set", "key_none"], "at least one"),
        (["set", "key_none", "--days", "soon"], "--days"),
        (["set", "key_none", "--model", "x", "--all-models"], "not both"),
        (["rotate", "key_none"], "There is no key 'key_none'"),
        (["revoke", "key_none"], "There is no key 'key_none'"),
        (["revoke", "../etc"], "There is no key '../etc'"),
        (["revoke"], "--owner"),
        (["disable", "key_none", "--owner", "x"], "not both"),
        (["disable", "--owner", "nobody"], "nobody"),
    ],
)
def test_what_cannot_be_done_is_said(scibox: Command, arguments: list[str], words: str) -> None:
    ran = scibox("keys", *arguments)

    assert ran.status in {1, 2}
    assert words in ran.err
    assert "Traceback" not in ran.err
