"""Token ids to vectors with ONNX Runtime; any encoder of the BERT and XLM-R families."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from scibox.engines.embedder.arrays import Ids, Vectors
from scibox.engines.embedder.recipe import Recipe

Mask = npt.NDArray[np.int64]

# Names that exporters give, the more finished first.
SENTENCE_OUTPUTS = ("sentence_embedding", "dense_vecs")
WORD_OUTPUTS = ("last_hidden_state", "token_embeddings")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Encoder:
    """A loaded graph. Not for several threads at once: the desk has one."""

    def __init__(self, folder: Path, recipe: Recipe, threads: int) -> None:
        self._recipe = recipe
        self._session = onnxruntime.InferenceSession(
            str(_graph(folder)), options(threads), providers=["CPUExecutionProvider"]
        )
        self._inputs = frozenset(given.name for given in self._session.get_inputs())
        unknown = self._inputs.difference(INPUTS)
        if unknown or "input_ids" not in self._inputs:
            raise ValueError(f"the graph wants the inputs {sorted(self._inputs)}, known are {list(INPUTS)}")
        self._output, self._is_pooled = _output(self._session)
        self.dimensions = self._dimensions()

    def encode(self, texts: Sequence[Ids], length: int) -> Vectors:
        """Vectors [texts, dimensions] of texts padded to `length`; FloatingPointError if not finite."""
        ids = np.full((len(texts), length), self._recipe.pad_id, np.int64)
        mask = np.zeros((len(texts), length), np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        fed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (out,) = self._session.run([self._output], {name: fed[name] for name in self._inputs})
        vectors = np.asarray(out, np.float32)
        if not self._is_pooled:
            vectors = pool(vectors, mask, self._recipe.pooling)
        if self._recipe.normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
        if not np.isfinite(vectors).all():
            raise FloatingPointError("the model returned a vector that is not finite")
        return vectors

    def _dimensions(self) -> int:
        """Measured, since a graph need not say its width; a graph that cannot run fails here, at start."""
        width: int = self.encode([np.array([self._recipe.pad_id], np.int32)], 1).shape[1]
        if self._recipe.dimensions not in (0, width):
            raise ValueError(
                f"the graph gives {width} dimensions, embedder.json says {self._recipe.dimensions}"
            )
        return width


def pool(states: Vectors, mask: Mask, how: str) -> Vectors:
    """States [texts, length, width] to [texts, width]: the first, the last, or the mean of the unmasked."""
    if how == "cls":
        return states[:, 0]
    if how == "last":
        last = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
        return np.asarray(states[np.arange(len(states)), last], np.float32)
    weights = mask.astype(np.float32)
    # One small product per text: its sums do not depend on the company, as a sum over the whole batch might.
    sums = np.matmul(weights[:, None, :], states)[:, 0]
    return np.asarray(sums / weights.sum(axis=1, keepdims=True), np.float32)


def options(threads: int) -> onnxruntime.SessionOptions:
    """Session options that share the machine: no spinning, and memory that does not grow for ever."""
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = threads
    made.inter_op_num_threads = 1
    made.log_severity_level = 3  # errors
    # A decoder shares these cores: a thread that waits must not burn one.
    made.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # An arena keeps the memory of the longest text for ever; it gains a few per cent (docs/embeddings.md).
    made.enable_cpu_mem_arena = False
    made.enable_mem_pattern = False
    return made


def _graph(folder: Path) -> Path:
    for name in ("model.onnx", "onnx/model.onnx"):
        if (folder / name).exists():
            return folder / name
    raise ValueError(f"there is no model.onnx in {folder}")


def _output(session: onnxruntime.InferenceSession) -> tuple[str, bool]:
    """The output to use, and whether it is one vector per text already."""
    outputs = {given.name: len(given.shape or ()) for given in session.get_outputs()}
    for name in SENTENCE_OUTPUTS:
        if name in outputs:
            return name, True
    for name in (*WORD_OUTPUTS, *outputs):
        if outputs.get(name) == 3:
            return name, False
    raise ValueError(f"none of the graph's outputs {sorted(outputs)} is known to hold embeddings")
