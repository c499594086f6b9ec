"""The cache of embeddings: the same texts again, from memory and, after a restart, from disk.

    python bench/embedding_cache.py [--data FOLDER] [--texts 1000]

Through the whole service with the default model: each text once with an empty cache, then three times from
memory; then the service is started anew and asked once from disk, once more from memory. Prints seconds and how
many times faster that is, checks that every byte of every answer is the same, and that the embedder was
not asked (its processor time stands still). Without --data the weights are fetched into a folder of the moment.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from service import Service, running

SETS = Path(__file__).parent / "retrieval"
MODEL = "multilingual-e5-small"
CONFIG = f"""
[models."{MODEL}"]
kind = "embedding"
prefix = "query: "

[[models."{MODEL}".deployments]]
engine = "embedder"
weights = "{MODEL}"
"""


def corpus(count: int) -> list[str]:
    rows = [
        json.loads(line) for lang in ("ru", "en") for line in (SETS / f"{lang}.jsonl").open(encoding="utf-8")
    ]
    return [f"{n}. {rows[n % len(rows)]['passage']}" for n in range(count)]


def ask(service: Service, texts: list[str], form: str) -> tuple[float, str]:
    """Seconds of one call, and the digest of its answer."""
    body = json.dumps({"model": MODEL, "input": texts, "encoding_format": form}).encode()
    headers = {"authorization": f"Bearer {service.secret}", "content-type": "application/json"}
    connection = http.client.HTTPConnection(urlsplit(service.base_url).netloc, timeout=3600)
    began = time.perf_counter()
    connection.request("POST", "/v1/embeddings", body, headers)
    response = connection.getresponse()
    answer = response.read()
    took = time.perf_counter() - began
    connection.close()
    assert response.status == 200, answer[:500]
    return took, hashlib.sha256(answer).hexdigest()


def engine_s(service: Service) -> float:
    """Processor seconds of the service's children so far."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == service.pid:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def report(service: Service, texts: list[str], form: str, way: str, first: tuple[float, str]) -> None:
    before = engine_s(service)
    took, digest = ask(service, texts, form)
    worked = engine_s(service) - before
    same = "same bytes" if digest == first[1] else "OTHER BYTES"
    print(f"{form} {way}: {took:.3f} s, {first[0] / took:.0f} times faster, {same}, engine {worked:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="data folder with the weights; its cache is not used")
    parser.add_argument("--texts", type=int, default=1000)
    given = parser.parse_args()
    texts = corpus(given.texts)
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        (data / "scibox.toml").write_text(CONFIG)
        if given.data:
            (data / "models").symlink_to((given.data / "models").resolve())
        flags = ("--config", str(data / "scibox.toml"))
        firsts: dict[str, tuple[float, str]] = {}
        with running(data, *flags) as service:
            before = engine_s(service)
            firsts["base64"] = ask(service, texts, "base64")
            print(
                f"{len(texts)} texts embedded in {firsts['base64'][0]:.2f} s, "
                f"the engine worked {engine_s(service) - before:.2f} s"
            )
            firsts["float"] = (firsts["base64"][0], ask(service, texts, "float")[1])
            for form, first in firsts.items():
                for _ in range(3):
                    report(service, texts, form, "from memory", first)
        with running(data, *flags) as service:
            report(service, texts, "base64", "after a restart, from disk", firsts["base64"])
            report(service, texts, "float", "then from memory", firsts["float"])
        size = sum(file.stat().st_size for file in data.glob("embeddings.cache.db*"))
        print(f"on disk: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
