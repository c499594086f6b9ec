"""Fixtures of all layers. Tests on real engines need the default weights: `./check` fetches them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import servers

from live import Serve

# No deadline: a busy machine must not fail a property that holds.
hypothesis.settings.register_profile("scibox", deadline=None)
hypothesis.settings.load_profile("scibox")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder with the weights of the default models."""
    folder = Path(os.environ.get("SCIBOX_TEST_MODELS", ROOT / ".cache" / "data" / "models"))
    if not (folder / "smollm2-135m-instruct").is_dir() or not (folder / "multilingual-e5-small").is_dir():
        pytest.skip(
            "the default weights are not here: run ./check, or set SCIBOX_TEST_MODELS to their folder"
        )
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder of a service that has never run, without weights."""
    return tmp_path / "data"


@pytest.fixture
def data_with_models(data: Path, models_dir: Path) -> Path:
    """The same with the default weights in place."""
    return with_models(data, models_dir)


def with_models(data: Path, models_dir: Path) -> Path:
    data.mkdir(mode=0o700)
    (data / "models").symlink_to(models_dir)
    return data


@pytest.fixture(scope="session")
def manual_service(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """The service that the manuals' commands and programs run against: real models under the manual's names."""
    data = with_models(tmp_path_factory.mktemp("manual") / "data", models_dir)
    with Serve(data, "--config", str(ROOT / "examples" / "scibox-manual.toml")) as serve:
        serve.until_ready()
        serve.secret = serve.operator_secret()
        yield serve


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with servers.postgres() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where nothing is yet."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/tables.db"
    return servers.new_database(request.getfixturevalue("postgres"))
