"""The wheel is built, installed into an empty environment, and the service starts from it."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from live import Serve, free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    [made] = folder.glob("*.whl")
    return made


def test_it_holds_the_pages_and_nothing_of_the_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert "scibox/http/static/swagger/swagger-ui-bundle.js" in names
    assert "scibox/models/catalogue.toml" in names
    assert "scibox/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [
        name for name in names if "test" in name.lower() and not name.startswith("scibox/http/static")
    ]


@pytest.mark.timeout(900)
def test_it_starts_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=120)
    for arguments in (["-r", str(ROOT / "requirements.txt")], ["--no-deps", str(wheel)]):
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments]
        subprocess.run(install, check=True, timeout=600)
    helped = subprocess.run(
        [str(python.parent / "scibox"), "--help"], capture_output=True, text=True, check=True
    )
    assert "serve" in helped.stdout

    config = tmp_path / "remote.toml"
    config.write_text(
        '[models.far]\nkind = "chat"\n[[models.far.deployments]]\n'
        f'url = "http://127.0.0.1:{free_port()}/v1"\n'
    )
    command = [str(python.parent / "scibox")]
    with Serve(tmp_path / "data", "--config", str(config), command=command) as serve:
        serve.until_said("Ready")
        assert re.search(r"sk-scibox-[0-9A-Za-z]{36}", serve.said())
        assert serve.get("/health")[0] == 200
