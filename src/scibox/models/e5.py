"""Turns the packed multilingual-e5-small into the embedder's form: an ONNX graph, a tokenizer, a recipe.

The 4-bit weights stay as they are: the graph unpacks the rows of the word table that a text needs, and
multiplies by 4-bit matrices in float32 arithmetic (`MatMulNBits`), so that nothing is lost against a float32
model of the same weights, in less memory. Figures: docs/embeddings.md.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from scibox.models.charsmap import pack
from scibox.models.e5_file import BLOCK, Blocks, File, Sizes, Vocabulary

# Chosen on docs/embeddings.md: an embeddings API does not say what is a question and what is a passage.
OPSET = 18
CONTRIB = "com.microsoft"
SPACE = "▁"


def convert(source: Path, into: Path) -> None:
    """Writes `model.onnx`, `tokenizer.json`, `embedder.json` into `into`; ValueError on a bad file."""
    file = File(source)
    into.mkdir(parents=True, exist_ok=True)
    model = Graph(file).model()
    (into / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    _write(into / "tokenizer.json", tokenizer(file.vocabulary))
    _write(into / "embedder.json", recipe(file.sizes, file.vocabulary))


def recipe(sizes: Sizes, vocabulary: Vocabulary) -> dict[str, object]:
    """How the embedder uses the graph."""
    return {
        "pooling": "mean",
        "normalize": True,
        "max_tokens": sizes.positions,
        "dimensions": sizes.hidden,
        "pad_id": vocabulary.pad,
    }


def tokenizer(vocabulary: Vocabulary) -> dict[str, object]:
    """The Unigram tokenizer in the form of Hugging Face's `tokenizers`."""
    charsmap = base64.b64encode(pack(vocabulary.table)).decode()
    first, last = (vocabulary.pieces[i][0] for i in (vocabulary.bos, vocabulary.eos))
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        # None on purpose: text that spells `<mask>` is text.
        "added_tokens": [],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                # The table knows single characters only; NFC joins letters with their accents first.
                {"type": "NFC"},
                {"type": "Precompiled", "precompiled_charsmap": charsmap},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            ],
        },
        "pre_tokenizer": metaspace,
        "post_processor": _template(first, vocabulary.bos, last, vocabulary.eos),
        "decoder": metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": vocabulary.unk,
            "vocab": [list(piece) for piece in vocabulary.pieces],
            "byte_fallback": False,
        },
    }


def _template(first: str, first_id: int, last: str, last_id: int) -> dict[str, object]:
    begin, end = ({"SpecialToken": {"id": name, "type_id": 0}} for name in (first, last))
    text, other = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [begin, text, end],
        "pair": [begin, text, end, end, other, end],
        "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]}
            for name, number in ((first, first_id), (last, last_id))
        },
    }


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


class Graph:
    """Builds the encoder: ids and mask [batch, length] in, states [batch, length, hidden] out."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._sizes = file.sizes
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []

    def model(self) -> ModelProto:
        """The whole graph, fused by hand: nothing is left for an optimiser to do at every start."""
        x = self._embed()
        self._node("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
        for layer in range(self._sizes.layers):
            last = layer == self._sizes.layers - 1
            x = self._layer(x, f"l{layer}", "last_hidden_state" if last else f"l{layer}.out")
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
            for name in ("input_ids", "attention_mask")
        ]
        shape: list[str | int | None] = ["batch", "length", self._sizes.hidden]
        output = helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self._nodes, "encoder", inputs, [output], self._constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _embed(self) -> str:
        """Word rows, unpacked after they are gathered, plus positions and the one kind, then LayerNorm."""
        hidden, rows = self._sizes.hidden, self._sizes.rows
        table = self._file.blocks("emb.word", rows)
        packed = self._constant("word.nibbles", table.nibbles.reshape(rows, hidden // 2))
        self._node("Gather", [packed, "input_ids"], "word.packed")
        self._node("Reshape", ["word.packed", self._shape(0, 0, hidden // BLOCK, BLOCK // 2)], "word.blocks")
        self._node("BitwiseAnd", ["word.blocks", self._constant("low4", np.uint8(15))], "word.low")
        self._node(
            "BitShift", ["word.blocks", self._constant("four", np.uint8(4))], "word.high", direction="RIGHT"
        )
        self._node("Concat", ["word.low", "word.high"], "word.levels", axis=-1)
        self._node("Cast", ["word.levels"], "word.floats", to=TensorProto.FLOAT)
        self._node("Sub", ["word.floats", self._constant("eight", np.float32(8))], "word.centred")
        self._node("Gather", [self._constant("word.scales", table.scales), "input_ids"], "word.scales16")
        self._node("Cast", ["word.scales16"], "word.scales32", to=TensorProto.FLOAT)
        self._node("Unsqueeze", ["word.scales32", self._shape(-1)], "word.scale")
        self._node("Mul", ["word.centred", "word.scale"], "word.weights")
        self._node("Reshape", ["word.weights", self._shape(0, 0, hidden)], "word")
        kind = self._file.floats("emb.type").reshape(self._sizes.kinds, hidden)[0]
        positions = self._file.floats("emb.pos").reshape(self._sizes.positions, hidden) + kind
        self._node("Shape", ["input_ids"], "length", start=1, end=2)
        self._node(
            "Slice", [self._constant("positions", positions), self._shape(0), "length"], "positions.used"
        )
        self._node("Add", ["word", "positions.used"], "embedded")
        gain_and_bias = [self._floats("emb.ln.w"), self._floats("emb.ln.b")]
        return self._node(
            "LayerNormalization",
            ["embedded", *gain_and_bias],
            "encoded",
            epsilon=self._sizes.epsilon,
            axis=-1,
        )

    def _layer(self, x: str, layer: str, out: str) -> str:
        """Attention and the inner network, each followed by the residual sum and LayerNorm."""
        hidden, inner = self._sizes.hidden, self._sizes.inner
        names = [f"{layer}.{part}" for part in "qkv"]
        joined = [self._file.blocks(f"{name}.w", hidden) for name in names]
        self._matmul(x, joined, f"{layer}.qkv")
        self._node("Split", [f"{layer}.qkv"], *names, axis=-1, num_outputs=3)
        biases = np.concatenate([self._file.floats(f"{name}.b") for name in names])
        attended = self._node(
            "MultiHeadAttention",
            [*names, self._constant(f"{layer}.qkv.b", biases), "mask"],
            f"{layer}.attended",
            domain=CONTRIB,
            num_heads=self._sizes.heads,
        )
        y = self._matmul(attended, [self._file.blocks(f"{layer}.ao.w", hidden)], f"{layer}.ao")
        x = self._residual(y, x, f"{layer}.ao.b", f"{layer}.aln", f"{layer}.middle")
        y = self._matmul(x, [self._file.blocks(f"{layer}.fi.w", inner)], f"{layer}.fi")
        y = self._node("BiasGelu", [y, self._floats(f"{layer}.fi.b")], f"{layer}.gelu", domain=CONTRIB)
        y = self._matmul(y, [self._file.blocks(f"{layer}.fo.w", hidden)], f"{layer}.fo")
        return self._residual(y, x, f"{layer}.fo.b", f"{layer}.oln", out)

    def _residual(self, y: str, x: str, bias: str, norm: str, out: str) -> str:
        inputs = [y, x, self._floats(f"{norm}.w"), self._floats(f"{norm}.b"), self._floats(bias)]
        return self._node("SkipLayerNormalization", inputs, out, domain=CONTRIB, epsilon=self._sizes.epsilon)

    def _matmul(self, x: str, parts: list[Blocks], out: str) -> str:
        """x [.., columns] times the transpose of the parts stacked by rows, in float32 arithmetic."""
        scales = np.concatenate([part.scales for part in parts]).astype(np.float32)
        nibbles = np.concatenate([part.nibbles for part in parts])
        levels = np.concatenate([nibbles & 15, nibbles >> 4], -1)
        # This operator wants neighbours in one byte; the file has weights 16 apart in one byte.
        packed = levels[..., 0::2] | levels[..., 1::2] << 4
        rows, blocks, _ = levels.shape
        return self._node(
            "MatMulNBits",
            [x, self._constant(f"{out}.nibbles", packed), self._constant(f"{out}.scales", scales)],
            out,
            domain=CONTRIB,
            K=blocks * BLOCK,
            N=rows,
            bits=4,
            block_size=BLOCK,
            accuracy_level=1,  # float32
        )

    def _node(self, op: str, inputs: list[str], *outputs: str, domain: str = "", **attributes: Any) -> str:
        # Any: ONNX attributes are ints, floats or strings, each operator its own.
        made = helper.make_node(op, inputs, list(outputs), name=outputs[0], domain=domain, **attributes)
        self._nodes.append(made)
        return outputs[0]

    def _constant(self, name: str, value: npt.ArrayLike) -> str:
        if all(known.name != name for known in self._constants):
            self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _floats(self, name: str) -> str:
        return self._constant(name, self._file.floats(name))

    def _shape(self, *sizes: int) -> str:
        return self._constant("shape." + "x".join(map(str, sizes)), np.array(sizes, np.int64))
