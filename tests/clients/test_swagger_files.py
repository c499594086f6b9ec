"""Swagger UI lies in the package unchanged, and its page asks nobody else for anything."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser

from clients.setting import ROOT

FOLDER = ROOT / "src" / "scibox" / "http" / "static" / "swagger"


class _Addresses(HTMLParser):
    """Collects what a page loads, and the scripts and styles that stand in it."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        address = given.get("src") or (given.get("href") if tag == "link" else None)
        if address:
            self.loaded.append(address)
        elif tag in ("script", "style"):
            self.inline.append(tag)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]


def test_the_files_are_those_of_the_release_that_the_readme_names() -> None:
    sums = re.findall(r"(?m)^([0-9a-f]{64})  (\S+)$", (FOLDER / "README.md").read_text())

    assert {name for _, name in sums} == {
        each.name
        for each in FOLDER.iterdir()
        if each.name not in ("README.md", "index.html", "init.js", "page.css")
    }
    for wanted, name in sums:
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == wanted, name


def test_the_page_loads_only_files_that_are_here_and_has_no_inline_script_or_style() -> None:
    page = _Addresses()
    page.feed((FOLDER / "index.html").read_text("utf-8"))

    assert page.inline == []
    assert page.loaded
    for address in page.loaded:
        assert address.startswith("static/swagger/")
        assert (FOLDER / address.removeprefix("static/swagger/")).is_file()


def test_the_page_asks_no_validator_and_reads_the_description_beside_it() -> None:
    script = (FOLDER / "init.js").read_text("utf-8")

    assert re.search(r"\bvalidatorUrl: null\b", script)
    assert re.search(r'\burl: "openapi\.json"', script)
    assert "http" not in script
