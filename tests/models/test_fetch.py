"""A download arrives whole and right, or not at all, whatever the server does."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from shelf import Fault, Shelf

from scibox.models.digest import Digest
from scibox.models.errors import NoSpace, SourceFailed, WrongDigest
from scibox.models.fetch import TRIES, Job, check_space, download
from scibox.models.progress import Silent
from scibox.models.web import Web

BODY = random.Random(1).randbytes(300_000)
PATH = "/model.gguf"


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[int, int | None]] = []
        self.counted = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def start(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        self.steps.append((done_bytes, total_bytes))

    def advance(self, count: int) -> None:
        self.counted += count


class Waits:
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def web(waits: Waits) -> Web:
    return Web(environ={}, timeout_s=2.0, sleep=waits)


@pytest.fixture
def job(shelf: Shelf, tmp_path: Path) -> Job:
    shelf.files[PATH] = BODY
    digest = hashlib.sha256(BODY).hexdigest()
    return Job(shelf.url(PATH), tmp_path / "downloads" / digest, Digest(digest), "model.gguf")


def test_fetches_a_file_and_counts_its_bytes(job: Job, web: Web) -> None:
    heard = Heard()

    assert download(job, web, heard).read_bytes() == BODY
    assert heard.steps == [(0, len(BODY))]
    assert heard.counted == len(BODY)
    assert [path.name for path in job.target.parent.iterdir()] == [job.target.name]


def test_asks_for_nothing_when_the_file_is_there(job: Job, web: Web, shelf: Shelf) -> None:
    download(job, web, Silent())
    shelf.log.clear()

    download(job, web, Silent())

    assert shelf.log == []


def test_continues_a_broken_connection_where_it_broke(job: Job, web: Web, shelf: Shelf) -> None:
    shelf.faults[PATH] = [Fault(cut_after=100_000), Fault(cut_after=50_000)]

    download(job, web, Silent())

    assert job.target.read_bytes() == BODY
    assert shelf.ranges(PATH) == [None, "bytes=100000-", "bytes=150000-"]


def test_continues_what_an_earlier_process_left(job: Job, web: Web, shelf: Shelf) -> None:
    job.part.parent.mkdir()
    job.part.write_bytes(BODY[:1234])
    heard = Heard()

    download(job, web, heard)

    assert job.target.read_bytes() == BODY
    assert shelf.ranges(PATH) == ["bytes=1234-"]
    assert heard.steps == [(1234, len(BODY))]


def test_does_not_ask_again_when_only_the_rename_was_missing(job: Job, web: Web, shelf: Shelf) -> None:
    job.part.parent.mkdir()
    job.part.write_bytes(BODY)

    download(job, web, Silent())

    assert job.target.read_bytes() == BODY
    assert shelf.ranges(PATH) == [f"bytes={len(BODY)}-"]


def test_starts_again_when_the_server_has_another_version(job: Job, web: Web, shelf: Shelf) -> None:
    shelf.tags[PATH] = '"new"'
    job.part.parent.mkdir()
    job.part.write_bytes(b"old" * 1000)
    job.tag.write_text('"old"')

    download(job, web, Silent())

    assert job.target.read_bytes() == BODY
    assert shelf.log[0].if_range == '"old"'


def test_starts_again_when_the_server_ignores_the_range(job: Job, web: Web, shelf: Shelf) -> None:
    shelf.faults[PATH] = [Fault(cut_after=100_000), Fault(ignore_range=True)]

    download(job, web, Silent())

    assert job.target.read_bytes() == BODY


def test_gives_up_on_a_server_that_answers_another_range(job: Job, web: Web, shelf: Shelf) -> None:
    shelf.faults[PATH] = [Fault(cut_after=100_000), Fault(other_range=True)]

    with pytest.raises(SourceFailed, match="another range"):
        download(job, web, Silent())


def test_a_server_that_promises_more_than_it_has_still_gives_the_file(
    job: Job, web: Web, shelf: Shelf
) -> None:
    shelf.faults[PATH] = [Fault(promise_more=10)]

    download(job, web, Silent())

    assert job.target.read_bytes() == BODY


def test_a_part_longer_than_the_file_is_deleted_and_fetched_anew(job: Job, web: Web, shelf: Shelf) -> None:
    job.part.parent.mkdir()
    job.part.write_bytes(BODY + b"more")

    download(job, web, Silent())

    assert job.target.read_bytes() == BODY
    assert shelf.ranges(PATH) == [f"bytes={len(BODY) + 4}-", None]


def test_wrong_bytes_are_deleted_and_said(job: Job, web: Web, shelf: Shelf) -> None:
    shelf.faults[PATH] = [Fault(body=b"x" * len(BODY))]

    with pytest.raises(WrongDigest, match="not what the catalogue names"):
        download(job, web, Silent())

    assert list(job.target.parent.iterdir()) == []


def test_a_damaged_part_is_deleted_and_the_file_fetched_once_more(job: Job, web: Web, shelf: Shelf) -> None:
    job.part.parent.mkdir()
    job.part.write_bytes(b"y" * 1000)
    heard = Heard()

    download(job, web, heard)

    assert job.target.read_bytes() == BODY
    assert shelf.ranges(PATH) == ["bytes=1000-", None]
    assert any("damaged" in note for note in heard.notes)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_final_answer_is_not_asked_for_twice(job: Job, web: Web, shelf: Shelf, status: int) -> None:
    shelf.faults[PATH] = [Fault(status=status)] * 9

    with pytest.raises(SourceFailed, match=str(status)):
        download(job, web, Silent())

    assert len(shelf.log) == 1


def test_a_passing_failure_is_tried_again_after_the_stated_time(
    job: Job, web: Web, shelf: Shelf, waits: Waits
) -> None:
    shelf.faults[PATH] = [Fault(status=429, headers=(("Retry-After", "7"),)), Fault(status=503)]

    download(job, web, Silent())

    assert waits.seconds[0] == 7
    assert job.target.read_bytes() == BODY


def test_waits_longer_after_each_failure_and_gives_up(job: Job, web: Web, shelf: Shelf, waits: Waits) -> None:
    shelf.faults[PATH] = [Fault(cut_after=10), *[Fault(status=500)] * 20]

    with pytest.raises(SourceFailed, match=f"500.*{TRIES} times"):
        download(job, web, Silent())

    assert waits.seconds == sorted(waits.seconds)
    assert job.part.read_bytes() == BODY[:10]  # the next run continues


def test_an_unreachable_server_is_left_soon(tmp_path: Path, web: Web, waits: Waits) -> None:
    job = Job("http://127.0.0.1:9/x", tmp_path / "x", Digest("0" * 64), "x")

    with pytest.raises(SourceFailed, match="no connection"):
        download(job, web, Silent())

    assert len(waits.seconds) == 2


def test_a_silent_server_is_a_broken_connection(job: Job, shelf: Shelf, waits: Waits) -> None:
    shelf.faults[PATH] = [Fault(cut_after=2048, pause_s=0.01), Fault(pause_s=1.0), Fault()]

    download(job, Web({}, timeout_s=0.3, sleep=waits), Silent())

    assert job.target.read_bytes() == BODY


def test_a_redirect_to_another_host_does_not_see_the_secret(job: Job, shelf: Shelf) -> None:
    elsewhere = shelf.url("/cdn").replace("127.0.0.1", "localhost")
    shelf.files["/cdn"] = BODY
    shelf.faults[PATH] = [Fault(status=302, headers=(("Location", elsewhere),))]

    download(job, Web({}, headers={"Authorization": "Bearer canary"}), Silent())

    assert [asked.authorization for asked in shelf.log] == ["Bearer canary", None]


def test_a_disk_without_room_is_said_with_the_bytes_needed(tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="needs 1,000,000,000 bytes"):
        check_space(tmp_path, 1_000_000_000, 999_999_999)
    check_space(tmp_path, 1_000_000_000, 1_000_000_000)


def test_a_disk_that_fills_up_is_not_the_source_s_fault(job: Job, web: Web) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    job.part.parent.mkdir()
    job.part.symlink_to(full)

    with pytest.raises((NoSpace, SourceFailed)) as caught:
        download(job, web, Silent())

    assert isinstance(caught.value, NoSpace)
