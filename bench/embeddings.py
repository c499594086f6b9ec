"""Embeddings through the whole service against ONNX Runtime called directly and llama.cpp, paired in one run.

    python bench/embeddings.py --data FOLDER [--packed E5_SMALL_Q4_BIN]

"Directly" is the best simple program: all texts split, sorted by length, batches of at most 2,048 padded
ids, the same session options, mean pooling in numpy. With --packed the same weights also run in llama.cpp
(needs the package `gguf` to write them for it): one call with all texts. Texts are our own retrieval pairs,
the long ones several joined. Rounds are interleaved; a ratio is the median of the ratios within a round.
The service does all it does for a caller: key, checks, JSON both ways, its log line.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import onnxruntime

from scibox.engines.embedder import recipe
from scibox.engines.embedder.encoder import options, pool
from scibox.engines.embedder.splitter import Splitter
from service import Service, resident_mb, running

SETS = Path(__file__).parent / "retrieval"
SORTED_BATCH = 2048
MODEL = "multilingual-e5-small"
NO_CACHE = {"SCIBOX_EMBEDDINGS_CACHE_MEMORY_BYTES": "0", "SCIBOX_EMBEDDINGS_CACHE_DISK_BYTES": "0"}
PREFIX = "query: "  # as the laptop's configuration has it


def corpus(count: int) -> dict[str, list[str]]:
    """Short texts (one passage each) and long ones (1 to 5 passages)."""
    rows = [
        json.loads(line) for lang in ("ru", "en") for line in (SETS / f"{lang}.jsonl").open(encoding="utf-8")
    ]
    passages = [f"{row['query']} {row['passage']}" for row in rows]
    rng = np.random.default_rng(11)
    picked = [passages[i] for i in rng.integers(0, len(passages), count)]
    long = [
        " ".join(passages[i] for i in rng.integers(0, len(passages), n))
        for n in rng.integers(1, 6, max(8, count // 3))
    ]
    return {"short": picked, "long": long}


class Direct:
    def __init__(self, folder: Path) -> None:
        how = recipe.read(folder)
        self._pad = how.pad_id
        self._splitter = Splitter(folder, how.max_tokens)
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options(2), providers=["CPUExecutionProvider"]
        )

    def __call__(self, texts: list[str]) -> np.ndarray:
        ids = self._splitter.split([PREFIX + text for text in texts])
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out = np.empty((len(ids), 384), np.float32)
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end - start + 1) * len(ids[order[end]]) <= SORTED_BATCH:
                end += 1
            rows, length = order[start:end], len(ids[order[end - 1]])
            fed = np.full((len(rows), length), self._pad, np.int64)
            mask = np.zeros((len(rows), length), np.int64)
            for row, i in enumerate(rows):
                fed[row, : len(ids[i])], mask[row, : len(ids[i])] = ids[i], 1
            (states,) = self._session.run(["last_hidden_state"], {"input_ids": fed, "attention_mask": mask})
            vectors = pool(states, mask, "mean")
            out[rows] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            start = end
        return out


class Whole:
    """The service, as an ordinary client sees it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._connection = http.client.HTTPConnection(urlsplit(service.base_url).netloc, timeout=300)

    def __call__(self, texts: list[str]) -> np.ndarray:
        body = json.dumps({"model": MODEL, "input": texts, "encoding_format": "base64"}).encode()
        headers = {"authorization": f"Bearer {self._service.secret}", "content-type": "application/json"}
        self._connection.request("POST", "/v1/embeddings", body, headers)
        response = self._connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer
        rows = [base64.b64decode(item["embedding"]) for item in json.loads(answer)["data"]]
        return np.stack([np.frombuffer(row, np.float32) for row in rows])


def write_gguf(packed: Path, into: Path) -> None:
    """The packed weights as llama.cpp reads them; its 4-bit blocks have the same bytes."""
    import gguf  # noqa: PLC0415  # only for this comparison

    from scibox.models.e5_file import File  # noqa: PLC0415

    file = File(packed)
    sizes, words = file.sizes, file.vocabulary
    out = gguf.GGUFWriter(into, "bert")
    out.add_block_count(sizes.layers)
    out.add_context_length(sizes.positions)
    out.add_embedding_length(sizes.hidden)
    out.add_feed_forward_length(sizes.inner)
    out.add_head_count(sizes.heads)
    out.add_layer_norm_eps(sizes.epsilon)
    out.add_causal_attention(False)
    out.add_pooling_type(gguf.PoolingType.MEAN)
    out.add_tokenizer_model("t5")
    filler = [f"[unused{i}]" for i in range(sizes.rows - len(words.pieces))]
    out.add_token_list([piece for piece, _ in words.pieces] + filler)
    out.add_token_scores([score for _, score in words.pieces] + [-1000.0] * len(filler))
    special = {words.bos: 3, words.eos: 3, words.pad: 3, words.unk: 2}
    out.add_token_types([special.get(i, 1) for i in range(len(words.pieces))] + [5] * len(filler))
    out.add_add_space_prefix(True)
    out.add_token_type_count(1)
    out.add_remove_extra_whitespaces(True)
    out.add_bos_token_id(words.bos)
    out.add_eos_token_id(words.eos)
    out.add_unk_token_id(words.unk)
    out.add_sep_token_id(words.eos)
    out.add_pad_token_id(words.pad)
    out.add_add_bos_token(True)
    out.add_add_eos_token(True)
    names = {"emb.ln": "token_embd_norm"} | {
        f"l{n}.{ours}": f"blk.{n}.{theirs}"
        for n in range(sizes.layers)
        for ours, theirs in (
            ("q", "attn_q"), ("k", "attn_k"), ("v", "attn_v"), ("ao", "attn_output"),
            ("aln", "attn_output_norm"), ("fi", "ffn_up"), ("fo", "ffn_down"), ("oln", "layer_output_norm"),
        )
    }  # fmt: skip

    def add(name: str, ours: str, rows: int) -> None:
        blocks = file.blocks(ours, rows)
        raw = np.concatenate([blocks.scales[..., None].view(np.uint8), blocks.nibbles], -1).reshape(rows, -1)
        out.add_tensor(name, np.ascontiguousarray(raw), raw_dtype=gguf.GGMLQuantizationType.Q4_0)

    add("token_embd.weight", "emb.word", sizes.rows)
    out.add_tensor("position_embd.weight", file.floats("emb.pos").reshape(-1, sizes.hidden))
    out.add_tensor("token_types.weight", file.floats("emb.type").reshape(-1, sizes.hidden)[:1].copy())
    for ours, theirs in names.items():
        if ours.endswith("ln"):
            out.add_tensor(f"{theirs}.weight", file.floats(f"{ours}.w"))
        else:
            add(f"{theirs}.weight", f"{ours}.w", sizes.inner if ours.endswith("fi") else sizes.hidden)
        out.add_tensor(f"{theirs}.bias", file.floats(f"{ours}.b"))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


class LlamaCpp:
    def __init__(self, gguf_file: Path) -> None:
        os.environ["GOMP_SPINCOUNT"] = "500"
        import xllamacpp  # noqa: PLC0415  # after the variable above, which it reads when loaded

        made = xllamacpp.CommonParams()
        made.model.path = str(gguf_file)
        made.embedding = True
        made.verbosity = 1
        made.n_parallel = 4
        made.n_ctx = 4 * 512
        made.n_batch = made.n_ubatch = 512
        made.cpuparams.n_threads = made.cpuparams_batch.n_threads = 2
        made.hostnames = [str(gguf_file.with_suffix(".sock"))]
        self._server = xllamacpp.Server(made)

    def __call__(self, texts: list[str]) -> np.ndarray:
        answer = self._server.handle_embeddings({"input": [PREFIX + text for text in texts], "model": "x"})
        answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
        return np.array([item["embedding"] for item in answer["data"]], np.float32)


def compare(rounds: int, texts: list[str], ways: dict[str, Callable[[list[str]], np.ndarray]]) -> None:
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    vectors = {name: way(texts[:8]) for name, way in ways.items()}  # warm, and the same answer
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way(texts)
            speeds[name].append(len(texts) / (time.perf_counter() - began))
    for name in ways:
        ratio = statistics.median(e / s for e, s in zip(speeds["service"], speeds[name], strict=True))
        cosine = (vectors[name] * vectors["service"]).sum(axis=1).min()
        print(
            f"  {name}: {statistics.median(speeds[name]):.1f} texts/s, "
            f"service/this {ratio:.2f}, cosine {cosine:.5f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="data folder; weights are fetched into it once"
    )
    parser.add_argument("--packed", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=96)
    given = parser.parse_args()
    data = given.data.resolve()
    with tempfile.TemporaryDirectory() as name, running(data, settings=NO_CACHE) as service:
        weights = data / "models" / MODEL
        ways: dict[str, Callable[[list[str]], np.ndarray]] = {
            "service": Whole(service),
            "directly": Direct(weights),
        }
        if given.packed:
            write_gguf(given.packed, Path(name) / "e5.gguf")
            ways["llama.cpp"] = LlamaCpp(Path(name) / "e5.gguf")
        for kind, texts in corpus(given.texts).items():
            print(f"{len(texts)} {kind} texts, {given.rounds} interleaved rounds")
            compare(given.rounds, texts, ways)
        one_question(ways)
        print(f"resident memory of the service and its engines: {resident_mb(service.pid):.0f} MB")


def one_question(ways: dict[str, Callable[[list[str]], np.ndarray]]) -> None:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(20):
        for name, way in ways.items():
            began = time.perf_counter()
            way(["Как получить справку об обучении?"])
            times[name].append(time.perf_counter() - began)
    print("one question: " + ", ".join(f"{n} {1000 * statistics.median(t):.1f} ms" for n, t in times.items()))


if __name__ == "__main__":
    main()
