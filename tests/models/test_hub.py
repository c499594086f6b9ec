"""A hub's files come from the right revision, are what the hub declares, and secrets stay with the hub."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from making import BODY, GONE, SHA, entry, visible
from shelf import Fault, Shelf

from scibox.models.catalogue import HUB, File, HuggingFace
from scibox.models.errors import PullFailed
from scibox.models.progress import Silent
from scibox.models.pull import pull
from scibox.models.ready import local
from scibox.models.web import Web


def hub(*files: File) -> HuggingFace:
    return HuggingFace("owner/repo", "abc", files)


RESOLVE = "/owner/repo/resolve/abc/"


def test_a_hub_s_declared_digest_is_checked_and_recorded(shelf: Shelf, models_dir: Path, web: Web) -> None:
    small = b"small"
    blob = hashlib.sha1(b"blob 5\0small").hexdigest()
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
