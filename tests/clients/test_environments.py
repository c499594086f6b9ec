"""What the clients' environments hold is pinned, and the page on clients says what the tests do."""

from __future__ import annotations

import json
import re

import pytest

from clients import page, venvs
from clients.nodes import SOURCES

NAMES = [path.stem for path in sorted(venvs.LOCKS.glob("*.in"))]


@pytest.mark.parametrize("name", NAMES)
def test_an_environment_is_pinned_whole_and_names_no_registry(name: str) -> None:
    asked = (venvs.LOCKS / f"{name}.in").read_text("utf-8")
    locked = (venvs.LOCKS / f"{name}.txt").read_text("utf-8")

    wanted = [line for line in asked.splitlines() if line and not line.startswith("#")]
    assert wanted
    for line in wanted:
        assert re.fullmatch(r"[\w.\[\]-]+==[\w.]+", line), f"{line}: an exact version"
        assert re.sub(r"\[.*\]", "", line) in re.sub(r"\[.*\]", "", locked)
    pins = [line for line in locked.splitlines() if line and not line.lstrip().startswith("#")]
    assert all(re.match(r"[\w.\[\],-]+==\S+", pin) for pin in pins), pins
    assert "://" not in locked
    assert "--" not in "".join(pins), "options would point somewhere"


def test_the_packages_for_node_are_pinned_whole_and_name_no_registry() -> None:
    asked = json.loads((SOURCES / "package.json").read_text("utf-8"))["dependencies"]
    locked = json.loads((SOURCES / "npm-shrinkwrap.json").read_text("utf-8"))["packages"]

    assert all(re.fullmatch(r"[\d.]+", version) for version in asked.values()), asked
    assert {name: locked[f"node_modules/{name}"]["version"] for name in asked} == asked
    for name, package in locked.items():
        assert "resolved" not in package, name
        assert not name or package["integrity"].startswith("sha512-"), name


def test_the_page_on_clients_says_what_the_tests_do() -> None:
    assert page.unplaced() == set()
    assert page.PAGE.read_text("utf-8") == page.render(), "run: PYTHONPATH=tests python -m clients.page"
