"""Weights appear whole or not at all, from the first source that can give them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from making import BODY, GONE, SHA, entry, fails, upper, visible
from shelf import Fault, Shelf

from scibox.models.catalogue import Conversion, LocalFile, Url
from scibox.models.errors import NoSpace, PullFailed
from scibox.models.progress import Silent
from scibox.models.pull import pull
from scibox.models.ready import NotWeights, installed, installed_names, local, verify
from scibox.models.web import Web


def test_a_url_becomes_ready_weights_with_a_manifest(shelf: Shelf, models_dir: Path, web: Web) -> None:
    shelf.files["/w"] = BODY

    weights = pull(entry(Url(shelf.url("/w"), SHA)), models_dir, Silent(), web=web)

    assert weights.path == models_dir / "m" / "model.gguf"
    assert weights.path.read_bytes() == BODY
    assert weights == installed("m", models_dir)
    assert installed_names(models_dir) == {"m"}
    manifest = json.loads((models_dir / "m" / "manifest.json").read_text())
    assert manifest["files"] == {"model.gguf": {"sha256": SHA, "size_bytes": len(BODY)}}
    assert manifest["fetched"] == {shelf.url("/w"): SHA}
    assert list((models_dir.parent / "downloads").iterdir()) == []


def test_nothing_is_fetched_twice(shelf: Shelf, models_dir: Path, web: Web) -> None:
    shelf.files["/w"] = BODY
    wanted = entry(Url(shelf.url("/w"), SHA))
    pull(wanted, models_dir, Silent(), web=web)
    shelf.log.clear()

    pull(wanted, models_dir, Silent(), web=web)

    assert shelf.log == []


def test_the_next_source_is_tried_and_all_failures_are_told(shelf: Shelf, models_dir: Path, web: Web) -> None:
    shelf.files["/good"] = BODY
    bad, good = Url(shelf.url("/missing"), SHA), Url(shelf.url("/good"), SHA)

    assert pull(entry(bad, good), models_dir, Silent(), web=web).path.exists()
    with pytest.raises(PullFailed) as caught:
        pull(entry(bad, LocalFile(Path("/nowhere"), SHA), name="other"), models_dir, Silent(), web=web)

    message = str(caught.value)
    assert f"{shelf.url('/missing')}: the server answered 404" in message
    assert "file /nowhere: it does not exist" in message
    assert "scibox pull other" in message
    assert visible(models_dir) == ["m"]


def test_a_local_file_is_copied_checked_and_left_alone(tmp_path: Path, models_dir: Path, web: Web) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(BODY)

    weights = pull(entry(LocalFile(own, SHA)), models_dir, Silent(), web=web)

    assert weights.path.read_bytes() == own.read_bytes() == BODY
    with pytest.raises(PullFailed, match="SHA-256 differs"):
        pull(entry(LocalFile(own, GONE), name="other"), models_dir, Silent(), web=web)


def test_a_conversion_makes_the_ready_file(shelf: Shelf, models_dir: Path, web: Web) -> None:
    shelf.files["/w"] = BODY
    wanted = entry(Url(shelf.url("/w"), SHA, convert="gguf-q4_0"))

    weights = pull(wanted, models_dir, Silent(), web=web, convert=upper)

    assert weights.path.read_bytes() == b"converted " + BODY


def test_a_failed_conversion_leaves_nothing_half_done(shelf: Shelf, models_dir: Path, web: Web) -> None:
    shelf.files["/w"] = BODY
    wanted = entry(Url(shelf.url("/w"), SHA, convert="gguf-q4_0"))

    with pytest.raises(PullFailed, match="no such tensor"):
        pull(wanted, models_dir, Silent(), web=web, convert=fails)

    assert [path.name for path in models_dir.iterdir()] == [".m.lock"]


def test_nothing_is_visible_before_everything_is_there(shelf: Shelf, models_dir: Path, web: Web) -> None:
    shelf.files["/w"] = BODY
    seen: list[list[str]] = []

    class Watch(Silent):
        def advance(self, count: int) -> None:
            seen.append(visible(models_dir))

    def convert(how: Conversion, source: Path, into: Path) -> None:
        upper(how, source, into)
        seen.append(visible(models_dir))

    pull(entry(Url(shelf.url("/w"), SHA, convert="gguf-q4_0")), models_dir, Watch(), web=web, convert=convert)

    assert seen
    assert not any(seen)


def test_damaged_weights_are_noticed_and_replaced(shelf: Shelf, models_dir: Path, web: Web) -> None:
    shelf.files["/w"] = BODY
    wanted = entry(Url(shelf.url("/w"), SHA))
    path = pull(wanted, models_dir, Silent(), web=web).path

    path.write_bytes(BODY[:-1] + b"!")
    assert installed("m", models_dir) is not None  # the quick look sees sizes only
    assert any("damaged" in sentence for sentence in verify("m", models_dir))

    path.write_bytes(BODY[:-1])
    assert installed("m", models_dir) is None
    assert pull(wanted, models_dir, Silent(), web=web).path.read_bytes() == BODY
    assert verify("m", models_dir) == []
    assert visible(models_dir) == ["m"]


def test_a_disk_too_small_is_said_before_the_first_byte(shelf: Shelf, models_dir: Path, web: Web) -> None:
    shelf.files["/w"] = BODY

    with pytest.raises(NoSpace, match=r"needs 4,000,000,000,000,000 bytes free"):
        pull(entry(Url(shelf.url("/w"), SHA), size_bytes=4 * 10**15), models_dir, Silent(), web=web)

    assert shelf.log == []


def test_two_pulls_at_the_same_time_fetch_once(shelf: Shelf, models_dir: Path, web: Web) -> None:
    shelf.files["/w"] = BODY
    shelf.faults["/w"] = [Fault(pause_s=0.001)]
    results: list[Path] = []

    def one() -> None:
        results.append(pull(entry(Url(shelf.url("/w"), SHA)), models_dir, Silent(), web=web).path)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [models_dir / "m" / "model.gguf"] * 4
    assert shelf.ranges("/w") == [None]


def test_a_killed_pull_continues_with_the_rest(shelf: Shelf, models_dir: Path, web: Web) -> None:
    shelf.files["/w"] = BODY
    shelf.faults["/w"] = [Fault(pause_s=0.005)]
    wanted = entry(Url(shelf.url("/w"), SHA))
    part = models_dir.parent / "downloads" / f"{SHA}.part"
    program = textwrap.dedent(f"""
        from pathlib import Path
        from scibox.models.catalogue import Entry, Url
        from scibox.models.progress import Silent
        from scibox.models.pull import pull
        pull({wanted!r}, Path({str(models_dir)!r}), Silent())
    """)
    with subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "no_proxy": "*"}) as child:
        deadline = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size > 20_000):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    had = part.stat().st_size
    assert 0 < had < len(BODY)
    assert visible(models_dir) == []

    weights = pull(wanted, models_dir, Silent(), web=web)

    assert weights.path.read_bytes() == BODY
    assert shelf.ranges("/w") == [None, f"bytes={had}-"]


def test_own_weights_are_told_by_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("not weights")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\3\0\0\0")

    for path, sentence in [
        (tmp_path / "none.gguf", "does not exist"),
        (tmp_path / "text.gguf", "is not a GGUF file"),
        (tmp_path / "cut.gguf", "cut off"),
        (tmp_path, "has no model.onnx and no tokenizer.json"),
    ]:
        with pytest.raises(NotWeights, match=sentence):
            local(path)
