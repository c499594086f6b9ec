"""Behaves as `vllm serve` does, for tests of its supervision: loads slowly, says so, answers on its socket.

`stand_in_vllm.py serve WEIGHTS --flags`; what it was given and who knocked is in the file that STAND_IN_SEEN
names, what it waits for in STAND_IN_GO, its mood in STAND_IN_MOOD: "" (all is well), "dies" (before it is ready), "stubborn" (ignores SIGTERM).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from scibox.engines.fake import FakeEngine

SEEN = Path(os.environ["STAND_IN_SEEN"])
GO = Path(os.environ.get("STAND_IN_GO", "/"))  # it listens when that is there
MOOD = os.environ.get("STAND_IN_MOOD", "")
LOG = (
    "INFO 11-24 12:00:00 [api_server.py:1896] vLLM API server version 0.32.0",
    "model-00001-of-00002.safetensors: downloading 15%|#5        | 150M/1.0G",
    "INFO 11-24 12:00:01 [gpu_model_runner.py:2602] Starting to load model org/m...",
    "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00,  2.1it/s]",
    "Loading safetensors checkpoint shards: 100% Completed | 2/2 [00:01<00:00,  2.0it/s]",
    "INFO 11-24 12:00:02 [gpu_worker.py:298] Available KV cache memory: 10.1 GiB",
    "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): 40%|####      | 27/67",
    "INFO 11-24 12:00:03 [api_server.py:1971] Starting vLLM API server 0 on unix:/x",
)


def value(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


async def main() -> int:
    core = subprocess.Popen(["sleep", "600"])  # vLLM's engine core is a process of its own too
    stop = asyncio.Event()
    if MOOD == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    seen = {
        "argv": sys.argv[1:],
        "key": os.environ.get("VLLM_API_KEY"),
        "own": os.environ.get("STAND_IN_OWN"),
        "pids": [os.getpid(), core.pid],
    }
    SEEN.write_text(json.dumps(seen))
    for line in LOG:
        sys.stderr.write(line + "\n")
        await asyncio.sleep(0.05)
    if MOOD == "dies":
        sys.stderr.write("torch.OutOfMemoryError: CUDA out of memory.\n")
        return 1
    while not GO.exists():
        await asyncio.sleep(0.01)
    name, context = value("--served-model-name"), int(value("--max-model-len"))
    async with FakeEngine(f"unix:{value('--uds')}", name=name, context=context, owned_by="vllm") as engine:
        await stop.wait()
    core.terminate()
    knocked = {one.headers.get("authorization", "") for one in engine.requests if one.path.startswith("/v1/")}
    SEEN.write_text(json.dumps({**seen, "ended": True, "knocked": sorted(knocked)}))
    return 0


sys.exit(asyncio.run(main()))
