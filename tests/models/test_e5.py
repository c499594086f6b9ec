from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from scibox.models import charsmap
from scibox.models.e5 import convert
from scibox.models.e5_file import File

HIDDEN, LAYERS, HEADS, INNER, ROWS, POSITIONS = 64, 2, 2, 128, 24, 16
PIECES = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [
    (piece, -float(i))
    for i, piece in enumerate(["▁", "▁при", "вет", "a", "b", "ab", "▁ab", "п", "р", "и", "1", "2"], 1)
]
TABLE = {0x09: (0x20,), 0xA0: (0x20,), 0x01: (), 0xBD: (0x31, 0x2044, 0x32)}


class Weights:
    """Random weights in the packed form, and what they stand for as float32."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(5)
        self.plain: dict[str, np.ndarray] = {}
        self._packed: list[tuple[str, int, bytes]] = []
        self._blocks("emb.word", ROWS, HIDDEN)
        for name, *shape in (("emb.pos", POSITIONS, HIDDEN), ("emb.type", 2, HIDDEN)):
            self._floats(name, *shape)
        self._norm("emb.ln")
        for n in range(LAYERS):
            for part in ("q", "k", "v", "ao"):
                self._blocks(f"l{n}.{part}.w", HIDDEN, HIDDEN)
                self._floats(f"l{n}.{part}.b", HIDDEN)
            self._norm(f"l{n}.aln")
            self._blocks(f"l{n}.fi.w", INNER, HIDDEN)
            self._floats(f"l{n}.fi.b", INNER)
            self._blocks(f"l{n}.fo.w", HIDDEN, INNER)
            self._floats(f"l{n}.fo.b", HIDDEN)
            self._norm(f"l{n}.oln")

    def _floats(self, name: str, *shape: int, around: float = 0.0) -> None:
        value = (around + self._rng.normal(0, 0.1, shape)).astype(np.float32)
        self.plain[name] = value
        self._packed.append((name, 0, value.tobytes()))

    def _norm(self, name: str) -> None:
        self._floats(f"{name}.w", HIDDEN, around=1.0)
        self._floats(f"{name}.b", HIDDEN)

    def _blocks(self, name: str, rows: int, columns: int) -> None:
        levels = self._rng.integers(0, 16, (rows, columns // 32, 32), np.uint8)
        scales = self._rng.uniform(0.01, 0.03, (rows, columns // 32, 1)).astype(np.float16)
        self.plain[name] = ((levels.astype(np.float32) - 8) * scales.astype(np.float32)).reshape(
            rows, columns
        )
        nibbles = levels[..., :16] | levels[..., 16:] << 4
        packed = np.concatenate([scales.view(np.uint8).reshape(rows, -1, 2), nibbles], axis=-1)
        self._packed.append((name, 1, packed.tobytes()))

    def write(self, path: Path) -> Path:
        text = [piece.encode() for piece, _ in PIECES]
        table = b"".join(struct.pack(f"<IB{len(to)}I", code, len(to), *to) for code, to in TABLE.items())
        head = b"E5S1" + struct.pack("<i7ifi", 1, HIDDEN, LAYERS, HEADS, INNER, ROWS, POSITIONS, 2, 1e-12, 32)
        head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, sum(map(len, text)))
        head += struct.pack(f"<{len(text) + 1}I", *np.cumsum([0, *map(len, text)]))
        head += struct.pack(f"<{len(text)}f", *(score for _, score in PIECES)) + b"".join(text)
        head += struct.pack("<iI", len(TABLE), len(table)) + table + struct.pack("<i", len(self._packed))
        at = len(head) + sum(2 + len(name) + 21 for name, _, _ in self._packed)
        for name, kind, raw in self._packed:
            head += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", kind, 0, at, len(raw))
            at += len(raw)
        path.write_bytes(head + b"".join(raw for _, _, raw in self._packed))
        return path


def norm(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * w + b


def reference(p: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """The encoder in plain numpy, float64."""
    x = p["emb.word"][ids].astype(np.float64) + p["emb.pos"][: len(ids)] + p["emb.type"][0]
    x = norm(x, p["emb.ln.w"], p["emb.ln.b"])
    size = HIDDEN // HEADS
    for n in range(LAYERS):
        q, k, v = (x @ p[f"l{n}.{c}.w"].T + p[f"l{n}.{c}.b"] for c in "qkv")
        heads = []
        for h in range(HEADS):
            part = slice(h * size, (h + 1) * size)
            weights = np.exp(q[:, part] @ k[:, part].T / math.sqrt(size))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
        y = np.concatenate(heads, -1) @ p[f"l{n}.ao.w"].T + p[f"l{n}.ao.b"]
        x = norm(x + y, p[f"l{n}.aln.w"], p[f"l{n}.aln.b"])
        y = x @ p[f"l{n}.fi.w"].T + p[f"l{n}.fi.b"]
        y = 0.5 * y * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
        x = norm(x + y @ p[f"l{n}.fo.w"].T + p[f"l{n}.fo.b"], p[f"l{n}.oln.w"], p[f"l{n}.oln.b"])
    return x


def test_the_graph_computes_what_the_weights_mean(tmp_path: Path) -> None:
    weights = Weights()
    convert(weights.write(tmp_path / "w.bin"), tmp_path / "out")
    session = onnxruntime.InferenceSession(
        str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    texts = [[0, 5, 6, 2], [0, 7, 8, 9, 23, 5, 2]]
    ids = np.array([texts[0] + [1] * 3, texts[1]], np.int64)
    mask = np.array([[1] * 4 + [0] * 3, [1] * 7], np.int64)

    (states,) = session.run(["last_hidden_state"], {"input_ids": ids, "attention_mask": mask})

    for text, state in zip(texts, states, strict=True):
        np.testing.assert_allclose(state[: len(text)], reference(weights.plain, text), atol=2e-4)


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    source = Weights().write(tmp_path / "w.bin")
    convert(source, tmp_path / "a")
    convert(source, tmp_path / "b")

    for name in ("model.onnx", "tokenizer.json", "embedder.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a" / "embedder.json").read_text()) == {
        "pooling": "mean",
        "normalize": True,
        "max_tokens": POSITIONS,
        "dimensions": HIDDEN,
        "pad_id": 1,
    }


def test_the_tokenizer_normalises_and_splits_as_the_file_says(tmp_path: Path) -> None:
    convert(Weights().write(tmp_path / "w.bin"), tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    def pieces(text: str) -> list[str]:
        return tokenizer.encode(text).tokens

    assert pieces("привет") == ["<s>", "▁при", "вет", "</s>"]
    assert pieces("ab\t \xa0 a\x01b") == ["<s>", "▁ab", "▁ab", "</s>"]
    assert pieces("½") == ["<s>", "▁", "1", "⁄", "2", "</s>"]
    assert tokenizer.encode("½").ids == [0, 4, 14, 3, 15, 2]


@pytest.mark.parametrize("keep", [0, 4, 8, 60, 400, 2000])
def test_a_file_cut_short_is_named(tmp_path: Path, keep: int) -> None:
    path = Weights().write(tmp_path / "w.bin")
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(ValueError, match=r"w\.bin|damaged"):
        convert(path, tmp_path / "out")


def test_a_file_cut_in_its_tensors_is_refused(tmp_path: Path) -> None:
    path = Weights().write(tmp_path / "w.bin")
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(ValueError, match=r"l1\.oln\.b is damaged"):
        File(path).floats("l1.oln.b")


# Without characters that belong to a group with their neighbours: groups are the reader's business.
simple = st.characters(min_codepoint=0x21, max_codepoint=0x2FFFF, categories=["L", "N", "P", "S"])


@given(st.dictionaries(simple, st.text(simple, max_size=4), max_size=60), st.text(simple, max_size=30))
def test_any_table_normalises_as_it_says(table: dict[str, str], text: str) -> None:
    packed = charsmap.pack({ord(key): tuple(map(ord, to)) for key, to in (table or {"a": "b"}).items()})
    normaliser = normalizers.Precompiled(packed)

    for character in {*table, *text}:
        assert normaliser.normalize_str(character) == (table or {"a": "b"}).get(character, character)
