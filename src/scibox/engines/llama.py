"""llama.cpp as an engine child: `python -m scibox.engines.llama`, one line of settings on stdin.

The server is llama.cpp's own, inside `xllamacpp`, listening on a Unix socket only. What was measured and
every trap is in docs/engines.md.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from scibox.engines.child import begin, fail
from scibox.engines.supervisor import Command

if TYPE_CHECKING:
    import xllamacpp

# libgomp reads it when it is loaded: how often a thread looks before it sleeps while it waits for the others.
# With its default a thread spins through its time slice, and beside any busy process decoding collapses; with
# none (OMP_WAIT_POLICY=passive) every barrier costs a sleep and half of the speed is lost. 500 keeps the full
# speed alone and does not collapse (bench/threads.py; figures in docs/engines.md).
THREAD_ENVIRONMENT = {"GOMP_SPINCOUNT": "500"}

POOLING = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}  # llama_pooling_type


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one llama.cpp serves one file of weights.

    `context` is in LLM tokens and for each slot; `name` is the `model` of every answer; 0 `threads` means
    as many as there are cores; `batch` is how many prompt tokens are computed at a time: within one, nothing
    can be cancelled and nobody else gets a token.
    """

    socket: str
    weights: str
    name: str
    threads: int = 0
    slots: int = 8
    context: int = 2048
    batch: int = 128
    embedding: bool = False
    pooling: str | None = None


def command(settings: Settings) -> Command:
    """How to run it; what the operator has set in the environment stays."""
    env = {name: value for name, value in THREAD_ENVIRONMENT.items() if name not in os.environ}
    return Command("scibox.engines.llama", msgspec.json.encode(settings), env)


def configure(params: xllamacpp.CommonParams, settings: Settings, cores: int) -> xllamacpp.CommonParams:
    """Write the settings into llama.cpp's own parameters: the one place where they are mapped."""
    params.model.path = settings.weights
    params.model_alias = {settings.name}
    params.hostnames = [
        settings.socket
    ]  # a path ending in .sock is a Unix socket, and then no port is opened
    threads = settings.threads or cores
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_parallel = settings.slots
    # It is divided among the slots. A text to embed of exactly the context would be refused: one more.
    params.n_ctx = (settings.context + settings.embedding) * settings.slots
    # A pooled text must fit into one batch: a longer one is answered with 500.
    batch = max(settings.batch, settings.context) if settings.embedding else settings.batch
    params.n_batch = params.n_ubatch = batch
    params.embedding = settings.embedding
    if settings.pooling is not None:
        params.pooling_type = POOLING[settings.pooling]
    _close_doors(params)
    return params


def _close_doors(params: xllamacpp.CommonParams) -> None:
    """Leave only what the gateway asks for."""
    params.cors_origins = ""
    params.cors_origins_explicit = True
    params.ui = False
    params.ui_mcp_proxy = False
    params.endpoint_slots = False  # it shows prompts
    params.endpoint_props = False
    params.endpoint_metrics = False
    params.sse_ping_interval = -1  # heartbeats are the gateway's: it knows whether the client waits
    params.cache_ram_mib = 0  # prompts of one owner stay nowhere but in a slot
    params.kv_unified = (
        False  # a shared cache that overflows ends every answer at once, whoever overfilled it
    )
    params.verbosity = 1  # errors; prompts are logged from level 4
    params.warmup = True


def main() -> None:
    """Load the weights and serve until the parent ends."""
    settings = begin(Settings)
    refuse_bad(settings)
    try:
        import xllamacpp  # noqa: PLC0415 - 0.3 s; settings that are wrong are told before
    except ImportError as error:  # the wheel brings everything but the OpenMP runtime
        fail(f"llama.cpp cannot be loaded: {error}. On Debian and Ubuntu: apt-get install libgomp1")

    params = configure(xllamacpp.CommonParams(), settings, cores=len(os.sched_getaffinity(0)))
    try:
        server: Any = xllamacpp.Server(params)  # Any: no types. Held: it stops when it is collected.
    except RuntimeError as error:
        fail(f"llama.cpp cannot serve {settings.weights}: {error}")
    threading.Event().wait()
    del server


def refuse_bad(settings: Settings) -> None:
    """End with a sentence where llama.cpp would say less."""
    if not Path(settings.weights).is_file():
        fail(f"The weights of {settings.name} are missing: there is no file {settings.weights}")
    if settings.pooling is not None and settings.pooling not in POOLING:
        fail(f"{settings.pooling} is no pooling of llama.cpp; it has {', '.join(POOLING)}")


if __name__ == "__main__":
    main()
