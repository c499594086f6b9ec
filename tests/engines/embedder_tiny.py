"""A BERT-shaped graph of random weights with its tokenizer, small enough to be built in each test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "three", "four", "five"]
WIDTH = 8


def build(folder: Path, *, output: str = "last_hidden_state", pooled: bool = False) -> Path:
    """Writes `model.onnx` and `tokenizer.json`; states depend on all unmasked words, as in a real encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    save(_graph(output, pooled), folder / "model.onnx")
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _graph(output: str, pooled: bool):
    rng = np.random.default_rng(1)

    def constant(name: str, value: np.ndarray):
        return numpy_helper.from_array(value, name)

    node = helper.make_node
    nodes = [
        node("Gather", ["words", "input_ids"], ["w"]),
        node("Gather", ["kinds", "token_type_ids"], ["k"]),
        node("Add", ["w", "k"], ["x"]),
        node("MatMul", ["x", "mix"], ["q"]),
        node("Transpose", ["x"], ["xt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "xt"], ["scores"]),
        node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        node("Sub", ["m", "one"], ["m1"]),
        node("Mul", ["m1", "big"], ["bias"]),
        node("Unsqueeze", ["bias", "axis"], ["bias3"]),
        node("Add", ["scores", "bias3"], ["masked"]),
        node("Softmax", ["masked"], ["p"], axis=-1),
        node("MatMul", ["p", "x"], ["states" if pooled else output]),
    ]
    if pooled:
        nodes += [
            node("Slice", ["states", "zero", "first", "axis"], ["s"]),
            node("Squeeze", ["s", "axis"], [output]),
        ]
    constants = [
        constant("words", rng.normal(size=(len(WORDS), WIDTH)).astype(np.float32)),
        constant("kinds", rng.normal(size=(2, WIDTH)).astype(np.float32)),
        constant("mix", rng.normal(size=(WIDTH, WIDTH)).astype(np.float32)),
        constant("one", np.float32(1)),
        constant("big", np.float32(1e9)),
        constant("axis", np.array([1], np.int64)),
        constant("zero", np.array([0], np.int64)),
        constant("first", np.array([1], np.int64)),
    ]
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "n"]) for name in names]
    shape = ["b", WIDTH] if pooled else ["b", "n", WIDTH]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_truncation(4)  # a file that asks for silent cutting, as many do
    made.enable_padding(length=6)
    return made
