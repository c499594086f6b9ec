"""The reference pages say all that the records say, and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

from scibox.config.deployments import UNDERSTOOD
from scibox.config.records import Deployment, Model
from scibox.config.settings import RESERVED, RESERVED_PREFIX, settings
from scibox.models.catalogue import Entry, File, HuggingFace, LocalFile, Registry, Url

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
CONFIGURATION = (REFERENCE / "configuration.md").read_text("utf-8")
CATALOGUE = (REFERENCE / "catalogue.md").read_text("utf-8")


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """The rows of the first table under a heading, by the name in their first cell."""
    section = page.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in section.splitlines()
        if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_every_setting_stands_on_the_page_with_its_variable_and_default() -> None:
    listed = rows(CONFIGURATION, "Settings")

    assert list(listed) == list(settings())
    for name, setting in settings().items():
        variable, default, meaning = listed[name]
        assert variable == f"`{setting.variable}`"
        assert meaning
        if setting.default is None:
            assert "`" not in default
        elif isinstance(setting.default, bool):
            assert default == f"`{str(setting.default).lower()}`"
        elif isinstance(setting.default, str):
            assert default == f"`{setting.default}`"
        elif isinstance(setting.default, tuple):
            assert default == f"`{json.dumps(setting.default)}`"
        else:
            assert default in {f"`{setting.default:g}`", f"`{setting.default}`"}


def test_every_field_of_a_model_stands_on_the_page() -> None:
    assert set(rows(CONFIGURATION, "Models")) == {field.name for field in fields(Model)} - {"name"}


def test_every_field_of_a_deployment_stands_on_the_page_with_what_understands_it() -> None:
    listed = rows(CONFIGURATION, "Deployments")

    assert set(listed) == {field.name for field in fields(Deployment)}
    for name, (understood_by, _) in listed.items():
        if name not in {"engine", "replicas"}:  # how it is served at all
            expected = [way for way, names in UNDERSTOOD.items() if name in names]
            assert [
                word.strip("`") for word in understood_by.replace("upstream", "url").split(", ")
            ] == expected


def test_every_reserved_variable_stands_on_the_page() -> None:
    for variable in [*RESERVED, RESERVED_PREFIX]:
        assert f"`{variable}`" in CONFIGURATION


def test_every_key_of_the_catalogue_stands_on_its_page() -> None:
    assert set(rows(CATALOGUE, "An entry")) == {field.name for field in fields(Entry)} - {"name"}
    for record in (Registry, HuggingFace, Url, LocalFile, File):
        for field in fields(record):
            assert f"`{field.name}`" in CATALOGUE
