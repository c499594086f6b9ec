"""The catalogue says what each model is and where its weights come from, and nothing half."""

from __future__ import annotations

from pathlib import Path

import pytest

from scibox.models.catalogue import (
    HUB,
    SHA256,
    CatalogueError,
    HuggingFace,
    LocalFile,
    Registry,
    catalogue,
    read,
    render_table,
    with_own,
)
from scibox.models.ready import GGUF_FILE, ONNX_FILE

ENTRY = """
[mine]
description = "mine"
kind = "chat"
engine = "llama"
context = 1024
licence = "MIT"
size_bytes = 1
"""
SOURCE = f'[[mine.sources]]\nfile = "w.gguf"\nsha256 = "{"a" * 64}"\n'
HUB_SOURCE = """[[mine.sources]]
hugging_face = "a/b"
revision = "c"
files = [{ path = "w", name = "../w", sha256 = "hub" }]
"""


def test_the_default_models_come_from_the_registry_first_and_from_a_hub_second() -> None:
    for name in ("smollm2-135m-instruct", "multilingual-e5-small"):
        first, second = catalogue()[name].sources

        assert isinstance(first, Registry)
        assert isinstance(second, HuggingFace)
        assert all(SHA256.fullmatch(file.sha256) for file in second.files)


@pytest.mark.parametrize("name", catalogue())
def test_every_source_gives_the_file_its_engine_reads(name: str) -> None:
    entry = catalogue()[name]
    wanted = GGUF_FILE if entry.engine == "llama" else ONNX_FILE

    for source in entry.sources:
        if source.convert is None and isinstance(source, HuggingFace):
            assert wanted in {file.name for file in source.files}
        elif source.convert is not None:
            assert source.convert.startswith("gguf") == (entry.engine == "llama")


@pytest.mark.parametrize("name", catalogue())
def test_every_hub_source_is_pinned_to_a_commit(name: str) -> None:
    for source in catalogue()[name].sources:
        if isinstance(source, HuggingFace):
            assert len(source.revision) == 40


@pytest.mark.parametrize("name", catalogue())
def test_stated_sizes_add_up_to_the_download(name: str) -> None:
    entry = catalogue()[name]
    for source in entry.sources[:1]:
        if isinstance(source, HuggingFace) and all(file.size_bytes for file in source.files):
            assert sum(file.size_bytes or 0 for file in source.files) == entry.size_bytes


@pytest.mark.parametrize("name", catalogue())
def test_embedding_models_say_their_dimensions(name: str) -> None:
    entry = catalogue()[name]

    assert (entry.dimensions is not None) == (entry.kind == "embedding")


def test_an_own_catalogue_adds_to_the_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(ENTRY + SOURCE)

    both = with_own(path)

    assert set(both) == {*catalogue(), "mine"}
    assert both["mine"].sources == (LocalFile(tmp_path / "w.gguf", "a" * 64),)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (ENTRY, "'sources' is missing"),
        (ENTRY + SOURCE.replace("file", "ftp"), "a source has one of"),
        (ENTRY + SOURCE.replace("a" * 64, HUB), "is not a SHA-256"),
        (ENTRY + SOURCE + 'convert = "magic"', "no conversion 'magic'"),
        (ENTRY.replace('"chat"', '"chatty"') + SOURCE, "kind is"),
        (ENTRY.replace('"llama"', '"lama"') + SOURCE, "engine is"),
        (ENTRY + "colour = 3\n" + SOURCE, "colour"),
        (ENTRY.replace("[mine]", '["../mine"]') + SOURCE.replace("mine", '"../mine"'), "a name has"),
        (ENTRY + HUB_SOURCE, "'../w' is not the name of a file"),
        ("[mine", "Expected"),
    ],
)
def test_a_wrong_catalogue_says_what_is_wrong(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)

    with pytest.raises(CatalogueError, match=sentence) as caught:
        read(path)

    assert str(path) in str(caught.value)


def test_the_table_has_a_line_for_each_model_and_marks_the_installed_ones() -> None:
    lines = render_table(catalogue(), frozenset({"bge-m3"})).splitlines()

    assert len(lines) == len(catalogue()) + 1
    assert [line.split()[0] for line in lines if line.endswith("yes")] == ["bge-m3"]
    assert "4.7 GB" in next(line for line in lines if line.startswith("qwen2.5-7b"))
